"""Runs a search: asks for trials, launches their runs, prunes, and reports the results."""

from collections.abc import Callable
from dataclasses import dataclass, field

import optuna
from optuna.trial import FrozenTrial, TrialState

from efficient_rl.config.run_config import RunConfig
from efficient_rl.errors import ConfigError
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.state import RunState
from efficient_rl.search.pruning import Pruning
from efficient_rl.search.space import InfeasibleError, TrialLike
from efficient_rl.search.study import MakeSampler, concluded, open_trials, seeded
from efficient_rl.search.trials import HASH, INFEASIBLE, Stopwatch, Trials
from efficient_rl.sweep.controller import Controller, Outcome
from efficient_rl.sweep.display import Row
from efficient_rl.sweep.labels import label_params
from efficient_rl.sweep.request import Request
from efficient_rl.tracking.experiment import TrackedRun

STALE_PROPOSALS = 10  # in a row without a new run: the sampler is stuck, chance takes over
MOST_PROPOSALS = 200  # in a row without a new run, with nothing to wait for: there is no new run


@dataclass(frozen=True)
class Limits:
    """Limits of a search: trials or hours, and `parallel` concurrent runs."""

    trials: int | None
    hours: float | None
    parallel: int

    def reached(self, trials: int, seconds: float) -> bool:
        """Whether no further trial may start."""
        enough = self.trials is not None and trials >= self.trials
        return enough or (self.hours is not None and seconds >= 3600 * self.hours)


@dataclass
class SearchLoop:
    """One process's work on a study. `propose` turns a trial into a run, or raises InfeasibleError.

    `size` is the number of distinct runs, where that is known; `pruning` None: no run is pruned.
    Results are read from the run directories only. `exhausted`: nothing new was proposed any more.
    """

    request: Request
    controller: Controller
    trials: Trials
    propose: Callable[[TrialLike], RunConfig]
    sampler: MakeSampler
    seed: int
    limits: Limits
    pruning: Pruning | None = None
    size: int | None = None
    tracked: list[TrackedRun] = field(default_factory=list)
    exhausted: bool = False
    _runs: dict[str, RunConfig] = field(default_factory=dict)
    _labels: dict[str, str] = field(default_factory=dict)
    _pruned: set[str] = field(default_factory=set)
    _stale: int = 0  # proposals in a row without a new run

    def __post_init__(self) -> None:
        self._study = self.trials.study
        self._stopwatch = Stopwatch(self._study)

    def restore(self) -> None:
        """Load the trials of earlier processes; failed ones do not count and are replaced."""
        for trial in concluded(self._study):
            if INFEASIBLE in trial.user_attrs or HASH not in trial.user_attrs:
                continue
            run, known = self.propose(trial), trial.user_attrs[HASH]
            if run.config_hash != known:
                raise ConfigError(
                    f"trial {trial.number} of {self._study.study_name} was run {known[:8]}, and its values "
                    f"now make run {run.config_hash[:8]}: an option has changed; give this search name=..."
                )
            self._list(run, trial)
            if trial.state != TrialState.FAIL:
                pruned = trial.state == TrialState.PRUNED
                self._show(run, RunState.PRUNED if pruned else RunState.FINISHED)
                self.trials.restore(trial)

    def run(self) -> Outcome:
        """Search until a limit is reached, or the user stops or leaves the search."""
        try:
            return self.controller.run(self._resume, self._proceed)
        finally:
            self._stopwatch.save()

    def _resume(self) -> None:
        """Go on with the trials that an earlier process left open."""
        taken = map(self._take, open_trials(self._study))
        self._launch([run for run in taken if run is not None])

    def _proceed(self, ended: list[str]) -> bool:
        for key in ended:
            self._end(key)
        if self.pruning is not None:
            self._prune(self.pruning)
        self._fill()
        return bool(self.trials.open)

    def _prune(self, pruning: Pruning) -> None:
        for key, trials in list(self.trials.open.items()):
            unpromising = pruning.should_prune(self.controller.rows[key].folder, trials[0])
            if unpromising and key not in self._pruned and self.controller.cancel(key):
                self._pruned.add(key)

    def _fill(self) -> None:
        """Ask until every slot is taken or a limit is reached, and launch what is new."""
        fresh: list[RunConfig] = []
        while len(self.trials.open) < self.limits.parallel and self._wants_more():
            if self._stale >= (2 * STALE_PROPOSALS if self.trials.open else MOST_PROPOSALS):
                self.exhausted = not self.trials.open
                break
            make = self.sampler if self._stale < STALE_PROPOSALS else optuna.samplers.RandomSampler
            self._study.sampler = seeded(make, self.seed, self._study)
            run = self._take(self._study.ask())
            if run is not None:
                fresh.append(run)
        self._launch(fresh)

    def _wants_more(self) -> bool:
        if self.limits.reached(self.trials.counted, self._stopwatch.seconds):
            return False
        all_known = self.size is not None and self.trials.distinct >= self.size
        self.exhausted = all_known and not self.trials.count_repeats
        return not self.exhausted

    def _take(self, trial: optuna.Trial) -> RunConfig | None:
        """Find out what a trial proposes; the run, where it is to be launched."""
        self._stale += 1
        try:
            run = self.propose(trial)
        except InfeasibleError as error:
            self.trials.refuse(trial, str(error))
            return None
        if not self.trials.add(trial, run.config_hash):
            return None
        self._stale = 0
        self._list(run, trial)
        self._show(run, RunState.WAITING)
        if RunDirectory(self.request.folder(run)).result() is not None:
            self._end(run.config_hash)  # done before, by another sweep
            return None
        return run

    def _launch(self, runs: list[RunConfig]) -> None:
        if not runs:
            return
        self.request.write_manifest(self._runs.values(), self._labels, self.controller.launcher.detaches)
        active = []
        for run in runs:
            if RunDirectory(self.request.folder(run)).state() is RunState.RUNNING:
                active.append(run.config_hash)
        self.controller.start(runs, active)

    def _end(self, key: str) -> None:
        """Report the end of a run to its trials; a stopped run resumes in the next process."""
        row = self.controller.rows[key]
        result = RunDirectory(row.folder).result()
        self._stale = 0
        if result is not None:
            row.state = RunState.FINISHED
            self.trials.tell_result(key, result)
        elif key in self._pruned:
            row.state = RunState.PRUNED
            self.trials.tell_state(key, TrialState.PRUNED)
        elif row.state == RunState.FAILED:
            self.trials.tell_state(key, TrialState.FAIL)
        else:
            self.trials.suspend(key)

    def _list(self, run: RunConfig, trial: optuna.Trial | FrozenTrial) -> None:
        """Name a run in the manifest, after the first trial that proposed it."""
        self._runs[run.config_hash] = run
        if run.config_hash not in self.controller.rows:
            self._labels[run.config_hash] = f"trial {trial.number}: {label_params(trial.params)}"

    def _show(self, run: RunConfig, state: RunState) -> None:
        key, folder = run.config_hash, self.request.folder(run)
        if key in self.controller.rows:
            self.controller.rows[key].state = state
            return
        self.controller.add_row(Row(folder, self._labels[key], run.grpo.max_steps, state))
        self.tracked.append(TrackedRun(folder, self._labels[key], run.flat()))
