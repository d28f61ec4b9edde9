"""Says before a submission how many GPU hours it will take, and asks where that is more than the user wanted to spend."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from efficient_rl.config.run_config import RunConfig
from efficient_rl.errors import ConfigError
from efficient_rl.rundir.result import RunResult
from efficient_rl.sweep.estimate import estimate


@dataclass(frozen=True)
class Budget:
    """The estimate for the runs of a plan: GPU hours, and runs of which nothing is known."""

    gpu_hours: float
    hours: float
    runs: int
    unknown: int

    def __str__(self) -> str:
        text = f"{self.runs} runs to do: about {self.hours:.1f} run hours, {self.gpu_hours:.1f} GPU hours"
        return text + (f", and {self.unknown} runs of unknown length" if self.unknown else "")


def make_budget(runs: Sequence[RunConfig], known: Sequence[tuple[RunConfig, RunResult]], gpus_per_run: float) -> Budget:
    """The budget of `runs`, from finished runs like them, else from the model's size and the steps."""
    seconds = [estimate(run, known, gpu=gpus_per_run > 0).seconds for run in runs]
    hours = sum(value for value in seconds if value is not None) / 3600
    return Budget(hours * gpus_per_run, hours, len(runs), sum(value is None for value in seconds))


def approve(budget: Budget, max_gpu_hours: float | None, console: Console) -> None:
    """Return if the budget is within the bound or the user agrees; ConfigError otherwise, and always without a terminal."""
    if max_gpu_hours is None or budget.gpu_hours <= max_gpu_hours:
        return
    bound = f"watch.max_gpu_hours={max_gpu_hours:g}"
    if not sys.stdin.isatty():
        raise ConfigError(f"{budget}: above {bound}; raise it, or ask for less. Nothing was started")
    answer = console.input(f"{budget}: above {bound}. Go on? [y/N] ")
    if answer.strip().lower() not in ("y", "yes"):
        raise ConfigError("nothing was started")
