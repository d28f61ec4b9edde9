"""Searches a space for the best run, or with several objectives for the front."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.pruners import BasePruner
from rich.console import Console

from efficient_rl.cli import lay_out, print_line
from efficient_rl.config.overrides import parse_overrides
from efficient_rl.config.run_config import RunConfig
from efficient_rl.errors import ConfigError
from efficient_rl.launch.base import Launcher, build_launcher
from efficient_rl.preflight.inspection import refuse_known_faults
from efficient_rl.search.base import Search, check, is_count, question_of
from efficient_rl.search.loop import Limits, SearchLoop
from efficient_rl.search.objectives import Constraint, parse_constraints
from efficient_rl.search.pruning import Pruning, why_never
from efficient_rl.search.space import Space
from efficient_rl.search.study import MakeSampler, check_pruner, check_sampler, enqueue, opened
from efficient_rl.search.summary import importances, show_summary, summarize, write_summary
from efficient_rl.search.trials import Trials
from efficient_rl.sweep.controller import Controller, Outcome
from efficient_rl.sweep.estimate import Budget, approve, known_runs, make_budget
from efficient_rl.sweep.execution import run_with_tracking
from efficient_rl.sweep.request import CommandLine, Request


@dataclass(kw_only=True)
class Optimize(Search):
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

    def execute(self, line: CommandLine, request: Request, console: Console) -> int:
        """Ask for trials until a limit is reached, and say which runs are best."""
        launcher = build_launcher(request.settings["launcher"])
        space = self._make_space(line, launcher)
        limits = self.limits(launcher, self.trials, self.hours)
        fixed = [space.params(overrides) for overrides in self.fixed]
        self._warn(line, space, console)
        request.check_models(space.corners, launcher, console)
        approve(_budget(request, space.corners[0], limits, launcher), request.watch.max_gpu_hours, console)
        folder, runs = request.sweep_folder, request.outputs / "runs"
        question = question_of(line)
        with opened(folder, self.storage, request.name, self.objectives, question, self.pruner) as study:
            enqueue(study, fixed)
            trials = Trials(study, self.bounds, self.count_repeats)
            controller = Controller(request, launcher, console)
            pruning = None if self.pruner is None else Pruning(self.report_steps)
            loop = SearchLoop(
                request, controller, trials, space.propose, self.sampler, self.seed, limits, pruning, space.size()
            )
            loop.restore()

            def run() -> Outcome:
                outcome = loop.run()
                write_summary(folder, summarize(study, runs) | {"importances": importances(study)})
                return outcome

            status = run_with_tracking(request, loop.tracked, controller, console, run)
            show_summary(study, summarize(study, runs), console)
            if loop.exhausted:
                console.print(
                    "no new run was proposed any more: the space is used up, or the filters leave too little of it"
                )
            return status

    def show(self, line: CommandLine, request: Request, console: Console) -> None:
        """The table of a dry run: the space, and what is asked of it."""
        space = self._make_space(line, build_launcher(request.settings["launcher"]))
        rows = [(parameter.axis.key, str(parameter)) for parameter in space.parameters]
        lines = lay_out(("key", "values"), rows, None, (), "key")
        print_line(console, "\n".join([f"search {request.name}", *lines]))
        for name, direction in self.objectives.items():
            console.print(f"{direction} {name}", highlight=False)
        for bound in self.bounds:
            console.print(f"with {bound.text}", highlight=False, markup=False)
        trials = f"{self.trials} trials" if self.trials is not None else ""
        hours = f"{self.hours:g} h" if self.hours is not None else ""
        ends = " or ".join(filter(None, (trials, hours)))
        console.print(f"up to {ends}, {len(self.fixed)} of them fixed", highlight=False)
        self._warn(line, space, console)

    def _make_space(self, line: CommandLine, launcher: Launcher) -> Space:
        """The space of the overrides; without an eval.split of its own, on the validation split.

        ConfigError where there is nothing to search, or its runs would end at once.
        """
        overrides = list(line.overrides)
        if all(override.key != "eval.split" for override in overrides):
            # What chooses the best must not be what the best is then measured on.
            overrides += parse_overrides(["eval.split=validation"])
        space = Space(line.composer, overrides, line.rules)
        size = space.size()
        if size is not None and size < 2:
            raise ConfigError(
                f"a search needs a space, and this one has {size} {'run' if size == 1 else 'runs'}: "
                "give a key several values, e.g. strategy=choice(first_k,last_k,lora)"
            )
        refuse_known_faults(space.corners, launcher)
        return space

    def _warn(self, line: CommandLine, space: Space, console: Console) -> None:
        """Print what makes the pruner useless, if anything does."""
        if self.pruner is None or space.searches("grpo.max_steps"):
            return
        steps = max(run.grpo.max_steps for run in space.corners)
        reason = why_never(line.shared_tree()["search"]["pruner"], self.report_steps, steps)
        if reason is not None:
            print_line(console, f"warning: {reason}")


def _budget(request: Request, example: RunConfig, limits: Limits, launcher: Launcher) -> Budget:
    """The budget of a search, from one run of its space: for its trials or its hours."""
    budgets = []
    if limits.trials is not None:
        budgets.append(
            make_budget([example] * limits.trials, known_runs(request, [example.model.path]), launcher.gpus_per_run)
        )
    if limits.hours is not None:
        hours = limits.hours * limits.parallel
        budgets.append(Budget(hours, launcher.gpus_per_run, limits.parallel, 0))
    return min(budgets, key=lambda budget: (budget.unknown > 0, budget.gpu_hours))


def _are_texts(fixed: Any) -> bool:
    return isinstance(fixed, str) or (isinstance(fixed, list | tuple) and all(isinstance(each, str) for each in fixed))
