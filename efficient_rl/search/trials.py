"""The ledger of a search: which trials wait for which run, and what the study received."""

import time
from collections.abc import Collection
from dataclasses import dataclass, field

import optuna
from optuna.trial import FrozenTrial, TrialState

from efficient_rl.metrics import METRICS
from efficient_rl.rundir.result import RunResult
from efficient_rl.search.objectives import Constraint

# What the study keeps of a trial beside its values; the words are those of search.json too.
REPEAT, INFEASIBLE, HASH, SECONDS = "repeat_of", "unfit", "config_hash", "seconds"


@dataclass
class Trials:
    """The trials of a study by the hash of the run that each proposes.

    A trial is RUNNING in the study from before its run is launched until its end is told, so the
    next process finds it there. `open` are those that wait, `counted` those that count towards the
    limit.
    """

    study: optuna.Study
    constraints: Collection[Constraint] = ()
    count_repeats: bool = False
    counted: int = 0
    open: dict[str, list[optuna.Trial]] = field(default_factory=dict)
    _told: dict[str, int] = field(default_factory=dict)  # the number of the first trial that was told

    @property
    def distinct(self) -> int:
        """How many distinct runs were proposed."""
        return len(self._told.keys() | self.open.keys())

    def restore(self, trial: FrozenTrial) -> None:
        """Load a trial that an earlier process reported."""
        self._told.setdefault(trial.user_attrs[HASH], trial.number)
        self._count(REPEAT in trial.user_attrs)

    def add(self, trial: optuna.Trial, key: str) -> bool:
        """Note which run a trial proposes; whether the run is new.

        A repeat waits with the first trial of its run, or gets the same values.
        """
        trial.set_user_attr(HASH, key)
        if key not in self.open and key not in self._told:
            self.open[key] = [trial]
            self._count(REPEAT in trial.user_attrs)
            return True
        first = self.open[key][0].number if key in self.open else self._told[key]
        trial.set_user_attr(REPEAT, first)
        self._count(repeat=True)
        if key in self.open:
            self.open[key].append(trial)
        else:
            self._tell_again(trial, first)
        return False

    def refuse(self, trial: optuna.Trial, why: str) -> None:
        """End a trial that proposes what cannot be run; it counts for nothing."""
        trial.set_user_attr(INFEASIBLE, why)
        self.study.tell(trial, state=TrialState.PRUNED)

    def tell_result(self, key: str, result: RunResult) -> None:
        """Tell all trials that wait for a run what it measured."""
        values = [METRICS[name].value(result) for name in self.study.metric_names or []]
        for trial in self.open[key]:
            _constrain(trial, {each.text: each.violation(result) for each in self.constraints})
            self.study.tell(trial, values)
        self._close(key)

    def tell_state(self, key: str, state: TrialState) -> None:
        """Tell all trials that wait for a run that it ended without a result."""
        for trial in self.open[key]:
            self.study.tell(trial, state=state)
        self._close(key)

    def suspend(self, key: str) -> None:
        """Stop waiting for a stopped run; its trials stay RUNNING for the next process."""
        del self.open[key]

    def _close(self, key: str) -> None:
        self._told[key] = self.open.pop(key)[0].number

    def _tell_again(self, trial: optuna.Trial, number: int) -> None:
        before = self.study.get_trials(deepcopy=False)[number]
        _constrain(trial, before.constraints)
        if before.state == TrialState.COMPLETE:
            self.study.tell(trial, before.values)
        else:
            self.study.tell(trial, state=before.state)

    def _count(self, repeat: bool) -> None:
        self.counted += self.count_repeats or not repeat


class Stopwatch:
    """The seconds that a search has taken, those of earlier processes included."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._before = float(study.user_attrs.get(SECONDS, 0.0))
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Until now."""
        return self._before + time.monotonic() - self._started

    def save(self) -> None:
        """Keep the time in the study."""
        self._study.set_user_attr(SECONDS, self.seconds)


def _constrain(trial: optuna.Trial, violations: dict[str, float]) -> None:
    """Set the constraints that a trial does not have yet: a killed process may have set some."""
    kept = trial.constraints
    for text, violation in violations.items():
        if text not in kept:
            trial.set_constraint(text, violation)
