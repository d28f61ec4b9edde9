"""Prunes runs: reports the rewards that they log to the study, and asks its pruner."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import optuna

from efficient_rl.rundir.directory import RunDirectory

REWARD = "train/reward"


def why_never(pruner: Mapping[str, Any], report_steps: int, steps: int) -> str | None:
    """Why a pruner with these settings ends no run of so many steps early; None where it may."""
    for key in ("min_resource", "n_warmup_steps"):
        least = pruner.get(key, 0)
        if type(least) is int and report_steps * max(1, -(-least // report_steps)) >= steps:
            return (
                f"search.pruner.{key}={least} with search.report_steps={report_steps} ends no run of grpo.max_steps={steps} "
                "early; use smaller ones, or a search without a pruner such as search=tpe"
            )
    return None


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
