"""The settings of a search over a space, and the search from its request to its summary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optuna.pruners import BasePruner
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from efficient_rl.config.run_config import RunConfig
from efficient_rl.errors import ConfigError
from efficient_rl.launch.base import Launcher, build_launcher
from efficient_rl.search.loop import Limits, Loop
from efficient_rl.search.objectives import Constraint, parse_constraints, parse_objectives
from efficient_rl.search.reports import Reports
from efficient_rl.search.study import MakeSampler, check_pruner, check_sampler, enqueue, opened
from efficient_rl.search.summary import importances, show_summary, summarize, write_summary
from efficient_rl.sweep.budget import Budget, approve, make_budget
from efficient_rl.sweep.controller import Flight, How
from efficient_rl.sweep.execution import collected

if TYPE_CHECKING:
    from efficient_rl.search.request import Search


@dataclass(kw_only=True)
class Settings:
    """What every search can be told; the keys are those of conf/search/random.yaml, which says what each means."""

    objectives: Mapping[str, str]
    seed: int = 0
    parallel: int | None = None
    storage: str | None = None

    def __post_init__(self) -> None:
        self.objectives = parse_objectives(self.objectives)
        check(type(self.seed) is int and self.seed >= 0, "seed", self.seed, "must be a whole number, 0 or above")
        check(self.parallel is None or is_count(self.parallel), "parallel", self.parallel, "must be at least 1, or null")
        check(self.storage is None or "://" in str(self.storage), "storage", self.storage, "must be a URL, or null")

    def limits(self, launcher: Launcher, trials: int | None, hours: float | None, count_repeats: bool) -> Limits:
        """How far the search goes with this launcher, which must be able to wait for the search."""
        if launcher.detach:
            raise ConfigError("launcher.detach=true leaves no one to propose the next trials; use launcher.detach=false")
        return Limits(trials, hours, self.parallel or launcher.slots, count_repeats)


@dataclass(kw_only=True)
class Optimize(Settings):
    """Search a space for the best run, or with several objectives for the front."""

    sampler: MakeSampler
    constraints: Sequence[str] | str = ()
    trials: int | None = None
    hours: float | None = None
    fixed: Sequence[Any] = ()
    count_repeats: bool = False
    pruner: BasePruner | None = None
    report_steps: int = 5
    bounds: tuple[Constraint, ...] = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sampler(self.sampler)
        self.bounds = parse_constraints(self.constraints)
        check(self.trials is None or is_count(self.trials), "trials", self.trials, "must be at least 1, or null")
        hours = isinstance(self.hours, int | float) and not isinstance(self.hours, bool) and self.hours > 0
        check(self.hours is None or hours, "hours", self.hours, "must be a number above 0, or null")
        check(self.trials is not None or self.hours is not None, "trials", None, "and search.hours=None: set one of them")
        texts = isinstance(self.fixed, list | tuple) and all(_are_texts(each) for each in self.fixed)
        check(texts, "fixed", self.fixed, 'must be a list of overrides, e.g. ["strategy=lora lora.rank=1"]')
        check(isinstance(self.count_repeats, bool), "count_repeats", self.count_repeats, "must be true or false")
        check(is_count(self.report_steps), "report_steps", self.report_steps, "must be at least 1")
        ((figure, direction), *others) = self.objectives.items()
        if self.pruner is not None:
            check_pruner(self.pruner)
        if self.pruner is not None and (others or direction != "maximize"):
            what = f"{len(self.objectives)} objectives" if others else f"{direction} {figure}"
            raise ConfigError(f"search.pruner judges runs by their training reward, not by {what}; use search.pruner=null")

    def carry_out(self, search: "Search", console: Console) -> int:
        """Do the search; the exit status is 0, 1 where a run failed, or 130 where it was stopped."""
        request, space = search.request, search.space
        if not space.knobs:
            raise ConfigError("a search needs a space: give a key several values, e.g. strategy=choice(first_k,last_k,lora)")
        launcher = build_launcher(request.settings["launcher"])
        limits = self.limits(launcher, self.trials, self.hours, self.count_repeats)
        fixed = [space.params(overrides) for overrides in self.fixed]
        approve(_budget(space.example(), limits, launcher), request.watch.max_gpu_hours, console)
        folder = request.outputs / "sweeps" / request.name
        with opened(folder, self.storage, request.name, self.objectives, search.question, self.pruner) as study:
            enqueue(study, fixed)
            flight = Flight(request, launcher, console)
            reports = None if self.pruner is None else Reports(self.report_steps)
            loop = Loop(
                request, study, space.ask, self.sampler, self.seed, limits, self.bounds, flight, reports, space.size()
            )
            loop.prepare()

            def watch() -> How:
                how = loop.fly()
                summary = summarize(study, request.outputs / "runs")
                write_summary(folder, summary | {"importances": importances(study)})
                return how

            status = collected(request, loop.tracked, flight, console, watch)
            show_summary(study, summarize(study, request.outputs / "runs"), console)
            if loop.exhausted:
                console.print(
                    "no new run was proposed any more: the space is used up, or the filters leave too little of it"
                )
            return status

    def show(self, search: "Search", console: Console) -> None:
        """The table of a dry run: the space, and what is asked of it."""
        table = Table(title=escape(f"search {search.request.name}"), title_justify="left")
        for column in ("key", "values"):
            table.add_column(column, overflow="fold")
        for knob in search.space.knobs:
            table.add_row(knob.axis.key, str(knob))
        console.print(table)
        for figure, direction in self.objectives.items():
            console.print(f"{direction} {figure}", highlight=False)
        for bound in self.bounds:
            console.print(f"with {bound.text}", highlight=False, markup=False)
        ends = [f"{limit:g} {unit}" for limit, unit in ((self.trials, "trials"), (self.hours, "h")) if limit is not None]
        console.print(f"up to {' or '.join(ends)}, {len(self.fixed)} of them fixed", highlight=False)


def _budget(example: RunConfig, limits: Limits, launcher: Launcher) -> Budget:
    """An estimate from one run of the space: what the trials would take, or what fits into the hours."""
    budgets = []
    if limits.trials is not None:
        budgets.append(make_budget([example] * limits.trials, [], launcher.gpus_per_run))
    if limits.hours is not None:
        hours = limits.hours * limits.parallel
        budgets.append(Budget(hours * launcher.gpus_per_run, hours, limits.parallel, 0))
    return min(budgets, key=lambda budget: budget.gpu_hours)


def check(condition: bool, key: str, value: Any, bound: str) -> None:
    """Raise a ConfigError that names the setting, its value and its bound, unless the condition holds."""
    if not condition:
        raise ConfigError(f"search.{key}={value!r} {bound}")


def _are_texts(fixed: Any) -> bool:
    return isinstance(fixed, str) or (isinstance(fixed, list | tuple) and all(isinstance(each, str) for each in fixed))


def is_count(value: Any) -> bool:
    """Whether it is a whole number of at least 1."""
    return type(value) is int and value >= 1
