"""Reads a sweep and its runs from the output folder: what was asked for, and what each finished run measured."""

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

from efficient_rl.record import Record

EXAMPLE = "python -m efficient_rl.sweep -m strategy=first_k,last_k,lora"
DAMAGED = (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError)  # what a file not as written raises


class ReportError(ValueError):
    """The report cannot be made; the message says why and what to do."""


@dataclass(frozen=True)
class Result:
    """What a finished run measured. Accuracies are shares of 1; `peak_memory_bytes` is the highest of all phases."""

    trainable_params: int
    mean_active_params: float
    total_params: int
    accuracy: float
    accuracy_before: float
    greedy_accuracy: float
    standard_error: float  # of the accuracy over the held-out problems
    problems: int
    final_reward: float
    peak_memory_bytes: int
    train_seconds: float
    tokens: int
    code_version: str


@dataclass(frozen=True)
class Run:
    """One configuration and seed: its flat parameters, its result (None: not finished) and its (step, reward) pairs."""

    hash: str
    params: Mapping[str, Any]
    result: Result | None = None
    rewards: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class SweepData:
    """A sweep with all its runs, finished or not; `created` is in Unix seconds."""

    name: str
    created: float
    command: str
    question: str | None
    runs: tuple[Run, ...]

    @property
    def finished(self) -> tuple[Run, ...]:
        """The runs that have a result."""
        return tuple(run for run in self.runs if run.result is not None)


def load_sweep(outputs: Path, name: str | None) -> SweepData:
    """The sweep `name` of the folder `outputs`, or its newest one for None; ReportError where there is no such sweep."""
    folder = outputs / "sweeps"
    names = sorted(path.parent.name for path in folder.glob("*/sweep.json"))
    if not names:
        raise ReportError(f"no sweep in {folder}; make one with: {EXAMPLE}")
    if name is not None and name not in names:
        raise ReportError(f"unknown sweep {name!r}; {suggest(name, names)}")
    wanted = names if name is None else [name]
    sweeps = [sweep for found in wanted if (sweep := _read_sweep(outputs, found)) is not None]
    if not sweeps:
        files = ", ".join(str(folder / found / "sweep.json") for found in wanted)
        raise ReportError(f"damaged: {files}; the command that made a sweep writes its file anew")
    newest = max(sweeps, key=lambda sweep: (sweep.created, sweep.name))
    return replace(newest, runs=tuple(_with_result(run, outputs / "runs" / run.hash) for run in newest.runs))


def suggest(name: str, valid: Iterable[str]) -> str:
    """Half a sentence with the nearest of the valid names, and all of them."""
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return f"{guess}valid: {', '.join(names)}"


def _read_sweep(outputs: Path, name: str) -> SweepData | None:
    """The sweep without the results of its runs; None where its file is damaged. A hash named twice is one run."""
    try:
        raw = json.loads((outputs / "sweeps" / name / "sweep.json").read_text(encoding="utf-8"))
        runs = {str(entry["hash"]): Run(str(entry["hash"]), dict(entry["params"])) for entry in raw["runs"]}
        question = raw.get("question")
        return SweepData(
            name,
            _number(raw["created"]),
            str(raw["command"]),
            None if question is None else str(question),
            tuple(runs.values()),
        )
    except DAMAGED:
        return None


def _with_result(run: Run, folder: Path) -> Run:
    result = _read_result(folder)
    return replace(run, result=result, rewards=_read_rewards(folder) if result else ())


def _read_result(folder: Path) -> Result | None:
    """The result of a run; None where the run directory says that it is not finished."""
    found = Record(folder).result()
    if found is None:
        return None
    return Result(
        trainable_params=found.trainable_params,
        mean_active_params=found.mean_active_params,
        total_params=found.total_params,
        accuracy=found.accuracy,
        accuracy_before=found.accuracy_before,
        greedy_accuracy=float(found.evaluation["greedy_accuracy"]),
        standard_error=float(found.evaluation["standard_error"]),
        problems=int(found.evaluation["problems"]),
        final_reward=found.final_reward,
        peak_memory_bytes=int(max(found.peak_memory_bytes.values(), default=0)),
        train_seconds=found.train_seconds,
        tokens=found.tokens,
        code_version=found.code_version,
    )


def _read_rewards(folder: Path) -> tuple[tuple[int, float], ...]:
    """(step, reward) of every training step, in order of steps."""
    rows = ((row["step"], row["metrics"]) for row in Record(folder).metrics())
    return tuple(sorted((step, metrics["train/reward"]) for step, metrics in rows if "train/reward" in metrics))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)
