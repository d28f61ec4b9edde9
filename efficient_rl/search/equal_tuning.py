"""Tunes every arm of a comparison with the same number of trials, then runs each arm's best with fresh seeds on the test.

An arm is one combination of the swept values. Only its learning rate is tuned, around the arm's own
centre (model.learning_rate x strategy.learning_rate_factor), and only on the validation split.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from efficient_rl.config.compose import expand, override_key, swept_keys
from efficient_rl.config.filters import keeps
from efficient_rl.config.run_config import RunConfig, parse_run
from efficient_rl.errors import ConfigError
from efficient_rl.launch.base import build_launcher
from efficient_rl.search.arm import ARM, DIGITS, Arm, arm_row, show_arms
from efficient_rl.search.loop import Loop
from efficient_rl.search.optimize import Settings, check, is_count
from efficient_rl.search.space import Asked
from efficient_rl.search.study import MakeSampler, check_sampler, opened
from efficient_rl.search.summary import write_summary
from efficient_rl.sweep.budget import approve, make_budget
from efficient_rl.sweep.controller import Flight
from efficient_rl.sweep.execution import carry_out, collected
from efficient_rl.sweep.labels import label_runs
from efficient_rl.sweep.plan import read_plan

if TYPE_CHECKING:
    from efficient_rl.search.request import Search


@dataclass(kw_only=True)
class PerArm(Settings):
    """The same number of learning rates for every arm, then a test of each arm's best."""

    sampler: MakeSampler | None = None  # None: evenly spaced on the logarithmic scale
    trials_per_arm: int = 5
    decades: float = 2.0
    test_seeds: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._grid = self.sampler is None
        if self.sampler is not None:
            check_sampler(self.sampler)
        check(len(self.objectives) == 1, "objectives", dict(self.objectives), "must name the one figure that tunes the arms")
        check(is_count(self.trials_per_arm), "trials_per_arm", self.trials_per_arm, "must be at least 1")
        check(is_count(self.test_seeds), "test_seeds", self.test_seeds, "must be at least 1")
        width = isinstance(self.decades, int | float) and 0 < self.decades <= 10
        check(width, "decades", self.decades, "must lie in 0 < decades <= 10")

    def carry_out(self, search: "Search", console: Console) -> int:
        """Tune, then test; the exit status is 0, 1 where a run failed, or 130 where it was stopped."""
        request, arms = search.request, self.arms(search)
        launcher = build_launcher(request.settings["launcher"])
        trials = self.trials_per_arm * len(arms)
        runs = [arm.run for arm in arms for _ in range(self.trials_per_arm + self.test_seeds)]
        approve(make_budget(runs, [], launcher.gpus_per_run), request.watch.max_gpu_hours, console)
        tuning = replace(request, name=f"{request.name}-tuning")
        folder = request.outputs / "sweeps" / tuning.name
        named = {arm.name: arm for arm in arms}

        def ask(trial: Asked) -> RunConfig:
            return named[trial.suggest_categorical(ARM, list(named))].proposed(trial)

        with opened(folder, self.storage, tuning.name, self.objectives, self._question(search), None) as study:
            self._enqueue(study, arms)
            flight = Flight(tuning, launcher, console)
            limits = self.limits(launcher, trials, None, count_repeats=True)
            make = self.sampler or optuna.samplers.RandomSampler  # a grid leaves nothing to it
            loop = Loop(tuning, study, ask, make, self.seed, limits, (), flight)
            loop.prepare()
            status = collected(tuning, loop.tracked, flight, console, loop.fly)
            told = study.get_trials(states=(TrialState.COMPLETE, TrialState.FAIL))
            if status not in (0, 1) or study.get_trials(states=(TrialState.RUNNING,)):
                return status  # stopped, or left to the cluster
        return self._test(search, arms, told, console) or status

    def show(self, search: "Search", console: Console) -> None:
        """The table of a dry run: the arms and their learning rates."""
        arms = self.arms(search)
        table = Table(title=escape(f"search {search.request.name}"), title_justify="left")
        for column in ("arm", "learning rates"):
            table.add_column(column, overflow="fold")
        for arm in arms:
            rates = ", ".join(f"{rate:g}" for rate in arm.rates) if self._grid else f"{arm.rates[0]:g} to {arm.rates[-1]:g}"
            table.add_row(arm.name, rates)
        console.print(table)
        trials, tests = self.trials_per_arm * len(arms), self.test_seeds * len(arms)
        console.print(f"{trials} trials on the validation split, then {tests} runs on the test", highlight=False)

    def arms(self, search: "Search") -> list[Arm]:
        """The distinct combinations of the swept values; ConfigError for what cannot be compared so."""
        keys = [override_key(text) for text in search.arguments]
        for key, remedy in (("grpo.learning_rate", "it is what is tuned"), ("eval.split", "tuning and test have their own")):
            if key in keys:
                raise ConfigError(f"leave {key} out of search=per_arm: {remedy}")
        if "seed" in swept_keys(search.arguments):
            raise ConfigError("give seed one value: search.test_seeds says how many seeds test each arm")
        runs = [parse_run(point) for point in expand([*search.arguments, "eval.split=validation"], search.extra_folder)]
        distinct = {run.config_hash: run for run in runs}
        known = {name for run in distinct.values() for name in run.flat()}
        kept = [run for run in distinct.values() if all(keeps(rule, run.flat(), known) for rule in search.rules)]
        if len(kept) < 2:
            raise ConfigError(f"search=per_arm compares arms, and this is {len(kept)}; use strategy=first_k,last_k,lora")
        labels = label_runs(kept)
        names = [labels[run.config_hash] for run in kept]
        return [
            Arm(
                name if names.count(name) == 1 else f"{name} {run.config_hash[:8]}", run, self._rates(run.grpo.learning_rate)
            )
            for name, run in zip(names, kept, strict=True)
        ]

    def _rates(self, centre: float) -> tuple[float, ...]:
        """As many learning rates as trials, evenly spaced on the logarithmic scale around the centre."""
        steps = self.trials_per_arm - 1
        powers = [self.decades * (step / steps - 0.5) for step in range(steps + 1)] if steps else [0.0]
        return tuple(float(f"{centre * 10**power:.{DIGITS}g}") for power in powers)

    def _question(self, search: "Search") -> list[str]:
        grid = "grid" if self._grid else "sampler"
        return [*search.question, f"{grid} of {self.trials_per_arm} over {self.decades:g} decades"]

    def _enqueue(self, study: optuna.Study, arms: Sequence[Arm]) -> None:
        """Have the study propose what each arm still lacks, arm by arm in turn; what failed before is proposed again."""
        counted = [t for t in study.get_trials(deepcopy=False) if t.state != TrialState.FAIL]
        asked = [trial.system_attrs.get("fixed_params", trial.params) for trial in counted]
        for index in range(self.trials_per_arm):
            for arm in arms:
                params = {ARM: arm.name} | ({arm.key: arm.rates[index]} if self._grid else {})
                have = sum(all(each.get(key) == value for key, value in params.items()) for each in asked)
                if have <= (0 if self._grid else index):
                    study.enqueue_trial(params)

    def _test(self, search: "Search", arms: Sequence[Arm], told: Sequence[FrozenTrial], console: Console) -> int:
        request = search.request
        by_arm = {arm.name: [trial for trial in told if trial.params[ARM] == arm.name] for arm in arms}
        rows = [arm_row(arm, by_arm[arm.name], self.objectives, request.outputs / "runs") for arm in arms]
        if lacking := [row["arm"] for row in rows if row["best"] is None]:
            console.print(f"no trial of {', '.join(lacking)} finished; nothing can be compared", highlight=False)
            return 1
        runs = [run for arm, row in zip(arms, rows, strict=True) for run in self._tests(arm, row["best"]["learning_rate"])]
        for row, start in zip(rows, range(0, len(runs), self.test_seeds), strict=True):
            row["test"] = [run.config_hash for run in runs[start : start + self.test_seeds]]
        folder = request.outputs / "sweeps" / request.name
        folder.mkdir(parents=True, exist_ok=True)
        write_summary(folder, {"objective": self.objectives, "tuning": f"{request.name}-tuning", "arms": rows})
        show_arms(rows, self.objectives, console)
        final = replace(request, runs=tuple(runs))
        return carry_out(final, read_plan(final), console)

    def _tests(self, arm: Arm, rate: float) -> list[RunConfig]:
        """The arm's best with seeds that tuning never saw, on the test split."""
        tuned = replace(arm.run, grpo=replace(arm.run.grpo, learning_rate=rate), eval=replace(arm.run.eval, split="test"))
        return [replace(tuned, seed=(tuned.seed + 1 + index) % 2**32) for index in range(self.test_seeds)]
