"""Estimates time, memory and GPU hours of runs: from finished runs, memory also from shapes."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from operator import attrgetter
from statistics import median
from typing import Any, Self

from rich.console import Console

from efficient_rl.config.run_config import RunConfig, flatten
from efficient_rl.errors import ConfigError
from efficient_rl.preflight.memory import estimate_memory
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.result import RunResult
from efficient_rl.sweep.display import duration
from efficient_rl.sweep.manifest import read_manifests
from efficient_rl.sweep.request import Request

TOKENS_BEFORE_COMPLETION = 64
MOST_READ = 50  # finished runs of a model, of the newest sweeps
UNKNOWN = "unknown until a run with this model has finished here"


@dataclass(frozen=True)
class Work:
    """What a run has to do: tokens that it trains on, and evaluates after its first step."""

    model: str
    strategy: str
    length: int
    batch: tuple[Any, ...]  # what decides about memory, beside the model
    trained: float
    evaluated: float

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Self:
        """The work of a run, from its flat parameters."""
        length, steps = params["grpo.max_completion_length"], params["grpo.max_steps"]
        rows, passes = params["grpo.per_device_train_batch_size"], params["grpo.gradient_accumulation_steps"]
        tokens = TOKENS_BEFORE_COMPLETION + length
        every = params["eval.steps"]
        evaluations = 1 + ((steps - 1) // every if every else 0)
        evaluated = evaluations * params["eval.problems"] * (1 + params["eval.samples"]) * tokens
        own = {key: value for key, value in params.items() if key.startswith("strategy.") and key != "strategy.name"}
        batch = rows, passes, length, params["grpo.beta"], params["grpo.gradient_checkpointing"]
        strategy, model, settings = (
            params["strategy.target"],
            params["model.path"],
            json.dumps(own, sort_keys=True, default=str),
        )
        return cls(model, strategy, length, (*batch, settings), steps * rows * passes * tokens, evaluated)


def work_of(run: RunConfig) -> Work:
    """The work of a run; 1,000 of them are not flattened for it."""
    params = flatten(asdict(run.strategy), "strategy.") | {"model.path": run.model.path}
    for section in ("grpo", "eval"):
        for name, value in vars(getattr(run, section)).items():
            params[f"{section}.{name}"] = value
    return Work.of(params)


Known = Sequence[tuple[Work, RunResult]]  # finished runs


@dataclass(frozen=True)
class Estimate:
    """Seconds, and the peak of tensors in bytes, of one run; None where nothing is known.

    `seconds_from` and `bytes_from` say what they come from, or why they are unknown.
    """

    seconds: float | None
    peak_bytes: float | None
    seconds_from: str
    bytes_from: str


@dataclass(frozen=True)
class Budget:
    """The estimate for the runs of a plan; of `unknown` of them the length is not known."""

    hours: float
    gpus: float  # of a run
    runs: int
    unknown: int

    @property
    def gpu_hours(self) -> float:
        return self.hours * self.gpus

    def __str__(self) -> str:
        """The same in words."""
        if self.unknown == self.runs:
            return f"{self.runs} runs to do, of unknown length: no run with their model has finished here"
        text = f"{self.runs} runs to do: about {duration(3600 * self.hours)} of one worker"
        if self.gpus:
            text += f", {self.gpu_hours:.1f} GPU hours"
        if self.unknown:
            text += f", and {self.unknown} runs of unknown length"
        return text


def known_runs(request: Request, models: Iterable[str]) -> Known:
    """The newest finished runs of these models in the output folder, of whatever sweep."""
    manifests = sorted(read_manifests(request.outputs), key=attrgetter("created"), reverse=True)
    wanted, read = set(models), Counter[str]()
    known, seen = list[tuple[Work, RunResult]](), set[str]()
    for manifest in manifests:
        for run in manifest.runs:
            model = str(run.params.get("model.path"))
            if model not in wanted or run.hash in seen or read[model] >= MOST_READ:
                continue
            seen.add(run.hash)
            result = RunDirectory(request.outputs / "runs" / run.hash).result()
            if result is not None:
                read[model] += 1
                with suppress(KeyError, TypeError):  # of a list that another version wrote
                    known.append((Work.of(run.params), result))
    return known


def estimate(run: RunConfig, known: Known) -> Estimate:
    """Medians over finished runs, of the same model for seconds, and like it for bytes.

    Seconds are scaled to the work. Bytes come from the model's shape where there is no such run.
    """
    work = work_of(run)
    seconds, seconds_from = _seconds(work, known)
    alike = [result for seen, result in known if (seen.model, seen.strategy, seen.batch) == _kind(work)]
    if alike:
        peak = median(map(attrgetter("highest_peak_bytes"), alike))
        return Estimate(seconds, peak, seconds_from, _finished(len(alike), "like it"))
    memory = estimate_memory(run)
    if memory is None:
        return Estimate(seconds, None, seconds_from, UNKNOWN)
    return Estimate(seconds, memory.training, seconds_from, "the model's shape")


def _kind(work: Work) -> tuple[str, str, tuple[Any, ...]]:
    return work.model, work.strategy, work.batch


def _seconds(work: Work, known: Known) -> tuple[float | None, str]:
    """Seconds, from finished runs as much like it as there are."""
    own = [pair for pair in known if pair[0].model == work.model]
    same = [pair for pair in own if pair[0].strategy == work.strategy]
    equal = [pair for pair in same if pair[0].length == work.length]
    chosen = equal or same or own
    if not chosen:
        return None, UNKNOWN
    words = "like it" if equal else "with this model"
    return median(_scaled(work, seen, result) for seen, result in chosen), _finished(len(chosen), words)


def _scaled(work: Work, seen: Work, result: RunResult) -> float:
    """What a run took, scaled to other work: training and evaluation by their tokens."""
    around = max(0.0, result.total_seconds - result.train_seconds)
    evaluation = min(around, result.phase_seconds.get("evaluation", 0.0))
    scaled = result.train_seconds * work.trained / seen.trained
    return around - evaluation + evaluation * work.evaluated / seen.evaluated + scaled


def _finished(count: int, words: str) -> str:
    return f"{count} finished {words}"


def make_budget(runs: Sequence[RunConfig], known: Known, gpus_per_run: float) -> Budget:
    """The budget of `runs`, as far as finished runs tell their length."""
    seconds = [_seconds(work_of(run), known)[0] for run in runs]
    return Budget(sum(filter(None, seconds)) / 3600, gpus_per_run, len(runs), seconds.count(None))


def approve(budget: Budget, max_gpu_hours: float | None, console: Console) -> None:
    """ConfigError if the budget exceeds the bound, or is unknown, unless a user agrees."""
    if max_gpu_hours is None or not budget.gpus or (budget.gpu_hours <= max_gpu_hours and not budget.unknown):
        return
    bound = f"watch.max_gpu_hours={max_gpu_hours:g}"
    above = f"above {bound}" if budget.gpu_hours > max_gpu_hours else f"perhaps above {bound}"
    if not sys.stdin.isatty():
        raise ConfigError(f"{budget}: {above}; raise it, leave it out, or ask for less. Nothing was started")
    answer = console.input(f"{budget}: {above}. Continue? [y/N] ")
    if answer.strip().lower() not in ("y", "yes"):
        raise ConfigError("nothing was started")
