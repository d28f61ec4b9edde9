"""Prunes runs: reports the rewards that they log to the study, and asks its pruner."""

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

import optuna

from efficient_rl.rundir.directory import RunDirectory

REWARD = "train/reward"


@dataclass
class _Read:
    """How far the metrics of one run were read, and its newest rewards."""

    rewards: deque[float]
    offset: int = 0
    reported: int = 0


@dataclass
class Pruning:
    """Reports, every `every` steps, the mean of that many training rewards to the trial."""

    every: int
    _read: dict[Path, _Read] = field(default_factory=dict)

    def should_prune(self, folder: Path, trial: optuna.Trial) -> bool:
        """Whether the pruner would end the run, by what it has logged since this was last asked."""
        read = self._read.get(folder)
        if read is None:
            told = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values  # by an earlier process
            read = self._read[folder] = _Read(deque(maxlen=self.every), reported=max(told, default=0))
        news = False
        for line in RunDirectory(folder).metrics(read.offset):
            read.offset = line["end"]
            if REWARD not in line["metrics"]:
                continue
            read.rewards.append(line["metrics"][REWARD])
            step = line["step"]
            if step - step % self.every > read.reported:
                read.reported, news = step - step % self.every, True
                trial.report(mean(read.rewards), read.reported)
        return news and trial.should_prune()
