"""Estimates time, memory and GPU hours of runs, from similar finished runs or arithmetic."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console

from efficient_rl.config.run_config import RunConfig
from efficient_rl.errors import ConfigError
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.result import RunResult
from efficient_rl.sweep.request import Request

CPU_FLOPS = 2e10  # float32 multiply-adds and adds a core reaches on small matrices, to the order of magnitude
GPU_FLOPS = 2e13  # bfloat16 on a data-centre GPU that also samples, to the order of magnitude
BYTES_A_PARAMETER = 16  # float32 weight, gradient and Adam's two moments
TOKENS_BEFORE_COMPLETION = 64
Known = Sequence[tuple[RunConfig, RunResult]]


@dataclass(frozen=True)
class Estimate:
    """Seconds and peak bytes of one run; None where nothing is known. `source` says from what."""

    seconds: float | None
    peak_bytes: float | None
    source: str


@dataclass(frozen=True)
class Budget:
    """The estimate for the runs of a plan: GPU hours, and how many runs have an unknown length."""

    gpu_hours: float
    hours: float
    runs: int
    unknown: int

    def __str__(self) -> str:
        text = f"{self.runs} runs to do: about {self.hours:.1f} run hours, {self.gpu_hours:.1f} GPU hours"
        if self.unknown:
            text += f", and {self.unknown} runs of unknown length"
        return text


def finished_results(request: Request, runs: Sequence[RunConfig]) -> Known:
    """The finished runs with their results."""
    known = []
    for run in runs:
        result = RunDirectory(request.folder(run)).result()
        if result is not None:
            known.append((run, result))
    return known


def estimate(run: RunConfig, known: Known, gpu: bool = False) -> Estimate:
    """The median of finished runs with the same model and strategy, scaled to the run's work.

    Without such runs it is arithmetic, for a core or for a GPU.
    """
    alike = [pair for pair in known if _is_like(pair[0], run)]
    same = [pair for pair in alike if pair[0].strategy.target == run.strategy.target]
    chosen = same or alike
    if chosen:
        seconds, peaks = [], []
        for seen, result in chosen:
            around = result.total_seconds - result.train_seconds
            seconds.append(around + result.train_seconds * _work(run) / _work(seen))
            peaks.append(max(result.peak_memory_bytes.values(), default=0))
        source = f"{len(chosen)} finished {'like it' if same else 'with this model'}"
        return Estimate(median(seconds), median(peaks), source)
    parameters = _parameters(run)
    if parameters is None:
        return Estimate(None, None, "unknown until the first run")
    tokens = run.grpo.max_completion_length / 2 + TOKENS_BEFORE_COMPLETION
    flops = 8.0 * parameters * tokens * _work(run)  # forward 2, backward 4, sampling 2 a parameter and token
    return Estimate(flops / (GPU_FLOPS if gpu else CPU_FLOPS), float(parameters * BYTES_A_PARAMETER), "arithmetic")


def make_budget(runs: Sequence[RunConfig], known: Known, gpus_per_run: float) -> Budget:
    """The budget of `runs`, from similar finished runs, else from model size and steps."""
    seconds = [estimate(run, known, gpu=gpus_per_run > 0).seconds for run in runs]
    hours = sum(filter(None, seconds)) / 3600
    return Budget(hours * gpus_per_run, hours, len(runs), seconds.count(None))


def approve(budget: Budget, max_gpu_hours: float | None, console: Console) -> None:
    """ConfigError if the budget exceeds the bound, unless a user at a terminal agrees."""
    if max_gpu_hours is None or budget.gpu_hours <= max_gpu_hours:
        return
    bound = f"watch.max_gpu_hours={max_gpu_hours:g}"
    if not sys.stdin.isatty():
        raise ConfigError(f"{budget}: above {bound}; raise it, or ask for less. Nothing was started")
    answer = console.input(f"{budget}: above {bound}. Continue? [y/N] ")
    if answer.strip().lower() not in ("y", "yes"):
        raise ConfigError("nothing was started")


def _is_like(seen: RunConfig, run: RunConfig) -> bool:
    """Whether two runs train the same model on completions of the same length."""
    longest = seen.grpo.max_completion_length == run.grpo.max_completion_length
    return longest and seen.model.path == run.model.path


def _work(run: RunConfig) -> float:
    """Completions trained on, over the whole run."""
    grpo = run.grpo
    return grpo.max_steps * grpo.per_device_train_batch_size * grpo.gradient_accumulation_steps


def _parameters(run: RunConfig) -> int | None:
    """Parameters of the model: from its option, or the shape of a model in a local folder."""
    folder = run.model.folder
    if run.model.parameters is not None:
        return run.model.parameters
    if folder is None or not (folder / "config.json").is_file():
        return None
    shape = json.loads((folder / "config.json").read_text())
    try:
        hidden, inner, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
        return int(layers * (4 * hidden * hidden + 3 * hidden * inner) + shape["vocab_size"] * hidden)
    except KeyError:
        return None
