"""Runs a search: asks for trials, does them as runs, prunes, tells what they measured, and finds its way back after a kill.

A trial is RUNNING in the study from before its run is launched until its end is told; whatever
happens to this process, the next one finds it there and goes on with the same run. Results are read
from the run directories only.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from efficient_rl.config.run_config import RunConfig
from efficient_rl.errors import ConfigError
from efficient_rl.metrics import METRICS
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.state import RunState
from efficient_rl.search.objectives import Constraint
from efficient_rl.search.reports import Reports
from efficient_rl.search.space import Asked, UnfitError
from efficient_rl.search.study import MakeSampler, concluded, open_trials, seeded
from efficient_rl.sweep.controller import Flight, How
from efficient_rl.sweep.display import Row
from efficient_rl.sweep.request import Request
from efficient_rl.tracking.experiment import TrackedRun

STALE_PROPOSALS = 10  # in a row without a new run: the sampler is stuck, chance takes over
MOST_PROPOSALS = 200  # in a row without a new run, with nothing to wait for: there is no new run
REPEAT, UNFIT, HASH, SECONDS = "repeat_of", "unfit", "config_hash", "seconds"


@dataclass(frozen=True)
class Limits:
    """When a search asks for no more: after so many trials or hours. `parallel` runs at once at most."""

    trials: int | None
    hours: float | None
    parallel: int
    count_repeats: bool


@dataclass
class Loop:
    """One controller's work on a study. `ask` turns a trial's proposal into a run, or raises UnfitError.

    `size`: how many distinct runs there are, where that is known. `reports` None: nothing is
    pruned.
    """

    request: Request
    study: optuna.Study
    ask: Callable[[Asked], RunConfig]
    sampler: MakeSampler
    seed: int
    limits: Limits
    constraints: Collection[Constraint]
    flight: Flight
    reports: Reports | None = None
    size: int | None = None
    tracked: list[TrackedRun] = field(default_factory=list)
    _open: dict[str, list[optuna.Trial]] = field(default_factory=dict)  # by hash: those that wait for the end of a run
    _told: dict[str, int] = field(default_factory=dict)  # by hash: the first trial that was told its end
    _runs: dict[str, RunConfig] = field(default_factory=dict)
    _labels: dict[str, str] = field(default_factory=dict)
    _pruned: set[str] = field(default_factory=set)
    _counted: int = 0
    _in_a_row: int = 0
    _exhausted: bool = False
    _started: float = field(default_factory=time.monotonic)
    _before: float = 0.0

    def prepare(self) -> None:
        """Take in what earlier processes told. Trials that failed then are not counted: others take their place."""
        self._before = float(self.study.user_attrs.get(SECONDS, 0.0))
        for trial in concluded(self.study):
            if UNFIT in trial.user_attrs or HASH not in trial.user_attrs:
                continue
            run = self.ask(trial)
            if run.config_hash != trial.user_attrs[HASH]:
                raise ConfigError(
                    f"trial {trial.number} of {self.study.study_name} was run {trial.user_attrs[HASH][:8]}, and its values "
                    f"now make run {run.config_hash[:8]}: an option has changed; give this search name=..."
                )
            self._runs[run.config_hash] = run
            self._labels[run.config_hash] = _label(trial)
            if trial.state != TrialState.FAIL:
                self._know(run, trial, RunState.PRUNED if trial.state == TrialState.PRUNED else RunState.FINISHED)
                self._told.setdefault(run.config_hash, trial.number)
                self._count(trial.user_attrs)

    def fly(self) -> How:
        """Search until a limit is reached, or the user stops or leaves the search."""
        try:
            return self.flight.fly(self._resume, self._go_on)
        finally:
            self.study.set_user_attr(SECONDS, self._before + time.monotonic() - self._started)

    @property
    def exhausted(self) -> bool:
        """Whether the search ended because nothing new was proposed any more."""
        return self._exhausted

    def _resume(self) -> None:
        fresh = [run for trial in open_trials(self.study) if (run := self._take(trial)) is not None]
        self._launch(fresh)

    def _go_on(self, ended: list[str]) -> bool:
        for key in ended:
            self._end(key)
        for key, trials in list(self._open.items()):
            hopeless = self.reports is not None and self.reports.hopeless(self._folder(key), trials[0])
            if hopeless and key not in self._pruned and self.flight.cancel(key):
                self._pruned.add(key)
        self._fill()
        return bool(self._open)

    def _fill(self) -> None:
        """Ask until every slot is taken or a limit is reached, and launch what is new."""
        fresh: list[RunConfig] = []
        while len(self._open) < self.limits.parallel and self._wants_more():
            if self._in_a_row >= (2 * STALE_PROPOSALS if self._open else MOST_PROPOSALS):
                self._exhausted = not self._open
                break
            make = self.sampler if self._in_a_row < STALE_PROPOSALS else optuna.samplers.RandomSampler
            self.study.sampler = seeded(make, self.seed, self.study)
            run = self._take(self.study.ask())
            if run is not None:
                fresh.append(run)
        self._launch(fresh)

    def _wants_more(self) -> bool:
        seconds = self._before + time.monotonic() - self._started
        if self.limits.hours is not None and seconds >= 3600 * self.limits.hours:
            return False
        if self.limits.trials is not None and self._counted >= self.limits.trials:
            return False
        known = len(self._told.keys() | self._open.keys())
        self._exhausted = self.size is not None and known >= self.size and not self.limits.count_repeats
        return not self._exhausted

    def _take(self, trial: optuna.Trial) -> RunConfig | None:
        """Find out what a trial proposes; the run, where it is to be launched."""
        self._in_a_row += 1
        try:
            run = self.ask(trial)
        except UnfitError as error:
            trial.set_user_attr(UNFIT, str(error))
            self.study.tell(trial, state=TrialState.PRUNED)
            return None
        key = run.config_hash
        trial.set_user_attr(HASH, key)
        if key in self._open:
            self._mark_repeat(trial, self._open[key][0].number)
            self._open[key].append(trial)
            return None
        if key in self._told:
            self._mark_repeat(trial, self._told[key])
            self._tell_again(trial, self._told[key])
            return None
        self._in_a_row = 0
        self._count(trial.user_attrs)
        self._know(run, trial, RunState.WAITING)
        self._open[key] = [trial]
        if RunDirectory(self._folder(key)).result() is not None:
            self._end(key)  # done before, by another sweep
            return None
        return run

    def _launch(self, runs: list[RunConfig]) -> None:
        if runs:
            manifest = self.request.manifest(self._runs.values(), self._labels, self.flight.launcher.detaches)
            manifest.write(self.request.outputs)
            states = {run.config_hash: RunDirectory(self._folder(run.config_hash)).state() for run in runs}
            active = [key for key, state in states.items() if state is RunState.RUNNING]
            self.flight.start(runs, active)

    def _end(self, key: str) -> None:
        """Tell every trial that waits for a run how it ended; what was merely stopped stays open for the next process."""
        row, result = self.flight.rows[key], RunDirectory(self._folder(key)).result()
        trials = self._open.pop(key)
        self._in_a_row = 0
        if result is None and row.state != "failed" and key not in self._pruned:
            return
        for trial in trials:
            if result is not None:
                kept = trial.constraints
                for constraint in self.constraints:
                    if constraint.text not in kept:
                        trial.set_constraint(constraint.text, constraint.violation(result))
                names = self.study.metric_names or []
                self.study.tell(trial, [METRICS[name].value(result) for name in names])
            else:
                state = TrialState.PRUNED if key in self._pruned else TrialState.FAIL
                self.study.tell(trial, state=state)
                row.state = RunState.PRUNED if state == TrialState.PRUNED else RunState.FAILED
        if result is not None:
            row.state = RunState.FINISHED
        self._told[key] = trials[0].number

    def _tell_again(self, trial: optuna.Trial, number: int) -> None:
        """Tell a trial what the one before it with the same run was told."""
        before = self.study.get_trials(deepcopy=False)[number]
        for text, violation in before.constraints.items():
            if text not in trial.constraints:
                trial.set_constraint(text, violation)
        if before.state == TrialState.COMPLETE:
            self.study.tell(trial, before.values)
        else:
            self.study.tell(trial, state=before.state)

    def _mark_repeat(self, trial: optuna.Trial, number: int) -> None:
        trial.set_user_attr(REPEAT, number)
        if self.limits.count_repeats:
            self._counted += 1

    def _count(self, attributes: dict[str, Any]) -> None:
        self._counted += self.limits.count_repeats or REPEAT not in attributes

    def _know(self, run: RunConfig, trial: optuna.Trial | FrozenTrial, state: RunState) -> None:
        """Show, track and list a run from now on."""
        key = run.config_hash
        self._runs[key] = run
        if key in self.flight.rows:
            self.flight.rows[key].state = state
            return
        label = self._labels[key] = _label(trial)
        self.flight.add_row(Row(self._folder(key), label, run.grpo.max_steps, state))
        self.tracked.append(TrackedRun(self._folder(key), label, run.flat()))

    def _folder(self, key: str) -> Path:
        return self.request.outputs / "runs" / key


def _label(trial: optuna.Trial | FrozenTrial) -> str:
    return f"trial {trial.number}: {trial_label(trial.params)}"


def trial_label(params: dict[str, Any]) -> str:
    """The values of a trial as people read them."""
    named = {name.split(".")[-1]: f"{value:.3g}" if isinstance(value, float) else value for name, value in params.items()}
    return " ".join(f"{name}={value}" for name, value in named.items()) or "the only point"
