"""Tunes every arm with the same number of trials, then tests each arm's best with fresh seeds.

An arm is one combination of the swept values. Only its learning rate is tuned, around the arm's own
centre (model.learning_rate x strategy.learning_rate_factor), and only on the validation split.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from efficient_rl.cli import lay_out, print_line
from efficient_rl.config.overrides import parse_overrides
from efficient_rl.config.run_config import RunConfig
from efficient_rl.errors import ConfigError
from efficient_rl.launch.base import Launcher, build_launcher
from efficient_rl.preflight.inspection import refuse_known_faults
from efficient_rl.search.arm import ARM, DIGITS, Arm, arm_row, show_arms
from efficient_rl.search.base import Search, check, is_count, question_of
from efficient_rl.search.loop import SearchLoop
from efficient_rl.search.space import TrialLike
from efficient_rl.search.study import MakeSampler, check_sampler, opened
from efficient_rl.search.summary import write_summary
from efficient_rl.search.trials import Trials
from efficient_rl.sweep.controller import Controller
from efficient_rl.sweep.estimate import approve, known_runs, make_budget
from efficient_rl.sweep.execution import execute_plan, run_with_tracking
from efficient_rl.sweep.labels import label_runs
from efficient_rl.sweep.manifest import set_aside
from efficient_rl.sweep.plan import make_plan, read_plan
from efficient_rl.sweep.request import CommandLine, Request, apply_filters, parse_runs


@dataclass(kw_only=True)
class EqualTuning(Search):
    """The same number of learning rates for every arm, then a test of each arm's best."""

    sampler: MakeSampler | None = None  # None: evenly spaced on the logarithmic scale
    trials_per_arm: int = 5
    decades: float = 2.0
    test_seeds: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sampler is not None:
            check_sampler(self.sampler)
        check(len(self.objectives) == 1, "objectives", dict(self.objectives), "must name the one figure that tunes the arms")
        check(is_count(self.trials_per_arm), "trials_per_arm", self.trials_per_arm, "must be at least 1")
        check(is_count(self.test_seeds), "test_seeds", self.test_seeds, "must be at least 1")
        width = isinstance(self.decades, int | float) and 0 < self.decades <= 10
        check(width, "decades", self.decades, "must lie in 0 < decades <= 10")

    def execute(self, line: CommandLine, request: Request, console: Console) -> int:
        launcher = build_launcher(request.settings["launcher"])
        arms = self._checked_arms(line, launcher)
        request.check_models([arm.run for arm in arms], launcher, console)
        limits = self.limits(launcher, self.trials_per_arm * len(arms), None)
        runs = [arm.run for arm in arms] * (self.trials_per_arm + self.test_seeds)
        known = known_runs(request, {run.model.path for run in runs})
        approve(make_budget(runs, known, launcher.gpus_per_run), request.watch.max_gpu_hours, console)
        tuning = replace(request, name=f"{request.name}-tuning")
        kind = "grid" if self.sampler is None else "sampler"
        question = [*question_of(line), f"{kind} of {self.trials_per_arm} over {self.decades:g} decades"]
        with opened(tuning.sweep_folder, self.storage, tuning.name, self.objectives, question, None) as study:
            arms = _named_as_before(study, arms)
            self._enqueue(study, arms)
            controller = Controller(tuning, launcher, console)
            make = self.sampler or optuna.samplers.RandomSampler  # a grid leaves nothing to it
            trials = Trials(study, count_repeats=True)
            loop = SearchLoop(tuning, controller, trials, _proposer(arms), make, self.seed, limits)
            loop.restore()
            status = run_with_tracking(tuning, loop.tracked, controller, console, loop.run)
            told = study.get_trials(states=(TrialState.COMPLETE, TrialState.FAIL))
            if status not in (0, 1) or study.get_trials(states=(TrialState.RUNNING,)):
                return status  # stopped, or left to the cluster
        return self._test(request, arms, told, console) or status

    def show(self, line: CommandLine, request: Request, console: Console) -> None:
        """The table of a dry run: the arms and their learning rates."""
        arms = self._checked_arms(line, build_launcher(request.settings["launcher"]))
        rows = []
        for arm in arms:
            rates = [*map("{:g}".format, arm.rates)]
            rows.append((arm.name, ", ".join(rates) if self.sampler is None else f"{rates[0]} to {rates[-1]}"))
        lines = lay_out(("arm", "learning rates"), rows, None, (), "arm")
        print_line(console, "\n".join([f"search {request.name}", *lines]))
        trials, tests = self.trials_per_arm * len(arms), self.test_seeds * len(arms)
        console.print(f"{trials} trials on the validation split, then {tests} runs on the test", highlight=False)

    def _checked_arms(self, line: CommandLine, launcher: Launcher) -> list[Arm]:
        arms = self.arms(line)
        refuse_known_faults([arm.run for arm in arms], launcher)
        return arms

    def arms(self, line: CommandLine) -> list[Arm]:
        """The distinct combinations of the swept values; ConfigError if not comparable."""
        for override in line.overrides:
            if override.key == "grpo.learning_rate":
                raise ConfigError("leave grpo.learning_rate out of search=per_arm: it is what is tuned")
            if override.key == "eval.split":
                raise ConfigError("leave eval.split out of search=per_arm: tuning and test have their own")
            if override.key == "seed" and override.swept:
                raise ConfigError("give seed one value: search.test_seeds says how many seeds test each arm")
        points = line.composer.points([*line.overrides, *parse_overrides(["eval.split=validation"])])
        runs = make_plan(parse_runs(points), {}).runs  # each once
        kept = apply_filters(runs, line.rules)
        if len(kept) < 2:
            raise ConfigError(f"search=per_arm compares arms, and this is {len(kept)}; use strategy=first_k,last_k,lora")
        labels = label_runs(kept)
        return [Arm(labels[run.config_hash], run, self._rates(run.grpo.learning_rate)) for run in kept]

    def _rates(self, centre: float) -> tuple[float, ...]:
        """One learning rate a trial, evenly spaced on the log scale around the centre."""
        if self.trials_per_arm == 1:
            return (float(f"{centre:.{DIGITS}g}"),)
        rates = []
        for step in range(self.trials_per_arm):
            power = self.decades * (step / (self.trials_per_arm - 1) - 0.5)
            rates.append(float(f"{centre * 10**power:.{DIGITS}g}"))
        return tuple(rates)

    def _enqueue(self, study: optuna.Study, arms: Sequence[Arm]) -> None:
        """Enqueue what each arm still lacks, in turn; failed trials are proposed again."""
        asked = []
        for trial in study.get_trials(deepcopy=False):
            if trial.state != TrialState.FAIL:
                asked.append(trial.system_attrs.get("fixed_params", trial.params))
        for index in range(self.trials_per_arm):
            for arm in arms:
                params: dict[str, str | float] = {ARM: arm.name}
                needed = index + 1
                if self.sampler is None:
                    params[arm.key] = arm.rates[index]
                    needed = 1
                if sum(params.items() <= each.items() for each in asked) < needed:
                    study.enqueue_trial(params)

    def _test(self, request: Request, arms: Sequence[Arm], told: Sequence[FrozenTrial], console: Console) -> int:
        """Run the best of every arm with fresh seeds on the test split; the exit status."""
        rows, runs, lacking = [], list[RunConfig](), []
        for arm in arms:
            trials = [trial for trial in told if trial.params[ARM] == arm.name]
            row = arm_row(arm, trials, self.objectives, request.outputs / "runs")
            rows.append(row)
            if row["best"] is None:
                lacking.append(arm.name)
                continue
            tests = self._tests(arm, row["best"]["learning_rate"])
            row["test"] = [run.config_hash for run in tests]
            runs += tests
        if lacking:
            console.print(f"no trial of {', '.join(lacking)} finished; nothing can be compared", highlight=False)
            return 1
        summary = {"objective": self.objectives, "tuning": f"{request.name}-tuning", "arms": rows}
        write_summary(request.sweep_folder, summary)
        show_arms(rows, self.objectives, console)
        final = replace(request, runs=tuple(runs))
        set_aside(request.sweep_folder, {run.config_hash for run in runs})  # tests of what fewer trials had found
        return execute_plan(final, read_plan(final), console)

    def _tests(self, arm: Arm, rate: float) -> list[RunConfig]:
        """The arm's best with seeds that tuning never saw, on the test split."""
        run = arm.run
        tuned = replace(run, grpo=replace(run.grpo, learning_rate=rate), eval=replace(run.eval, split="test"))
        seeds = range(run.seed + 1, run.seed + 1 + self.test_seeds)
        return [replace(tuned, seed=seed % 2**32) for seed in seeds]


def _proposer(arms: Sequence[Arm]) -> Callable[[TrialLike], RunConfig]:
    """What turns a trial into a run: the trial chooses the arm, the arm its learning rate."""
    named = {arm.name: arm for arm in arms}
    return lambda trial: named[trial.suggest_categorical(ARM, list(named))].propose(trial)


def _named_as_before(study: optuna.Study, arms: list[Arm]) -> list[Arm]:
    """The arms by their names in the study, which an earlier version may have chosen."""
    for trial in study.get_trials(deepcopy=False):
        known = trial.distributions.get(ARM)
        if isinstance(known, CategoricalDistribution):
            return [replace(arm, name=str(name)) for arm, name in zip(arms, known.choices, strict=True)]
    return arms
