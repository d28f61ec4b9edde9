"""Reads a sweep and its runs from the output folder: what was asked for, and what each finished run measured."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efficient_rl.errors import ConfigError
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.result import RunResult
from efficient_rl.sweep.manifest import find_manifest, read_manifests

DAMAGED = (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError)  # what a file not as written raises
REWARD, DIFFICULTY, TOKENS, SECONDS = "train/reward", "train/difficulty", "train/tokens", "time/step_seconds"
ACCURACY = "eval/accuracy"
SERIES = (REWARD, DIFFICULTY, TOKENS, SECONDS, ACCURACY)
BLOCKS = "blocks/"  # one series for each transformer block of a model under a schedule


class ReportError(ValueError):
    """The report cannot be made; the message says why and what to do."""


@dataclass(frozen=True)
class Result:
    """What a finished run measured. Accuracies are shares of 1, on the problems of the run's own task unless said otherwise.

    `right` counts the right ones of the `samples` of every problem, () where the run did not record
    it; `sets` are accuracies on further evaluation sets. `peak_memory_bytes` is the highest of all
    phases, `parts_bytes` what held memory.
    """

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
    samples: int = 0
    right: tuple[int, ...] = ()
    right_before: tuple[int, ...] = ()
    by_difficulty: Mapping[str, float] = field(default_factory=dict)
    by_difficulty_before: Mapping[str, float] = field(default_factory=dict)
    by_source: Mapping[str, float] = field(default_factory=dict)
    sets: Mapping[str, float] = field(default_factory=dict)
    phase_peaks_bytes: Mapping[str, int] = field(default_factory=dict)
    parts_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Series:
    """A metric over the steps that recorded it, in order; arrays (steps,)."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Series) and np.array_equal(self.steps, other.steps)
        return same and isinstance(other, Series) and np.array_equal(self.values, other.values)


@dataclass(frozen=True)
class Run:
    """One configuration and seed: its flat parameters, its result (None: not finished), and metrics over steps by name."""

    hash: str
    params: Mapping[str, Any]
    result: Result | None = None
    series: Mapping[str, Series] = field(default_factory=dict)


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
    try:
        manifest = find_manifest(outputs, name)
    except ConfigError as error:
        raise ReportError(str(error)) from error
    runs = [with_result(Run(run.hash, run.params), outputs / "runs" / run.hash) for run in manifest.runs]
    return SweepData(manifest.name, manifest.created, manifest.command, manifest.question, tuple(runs))


def read_params(outputs: Path) -> dict[str, Mapping[str, Any]]:
    """The parameters of every run that any sweep names, by its hash."""
    return {run.hash: run.params for manifest in read_manifests(outputs) for run in manifest.runs}


def suggest(name: str, valid: Iterable[str]) -> str:
    """Half a sentence with the nearest of the valid names, and all of them."""
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return f"{guess}valid: {', '.join(names)}"


def with_result(run: Run, folder: Path) -> Run:
    """The run with what its directory holds, if it is finished."""
    found = RunDirectory(folder).result()
    if found is None:
        return run
    return replace(run, result=result_of(found), series=_read_series(folder))


def result_of(found: RunResult) -> Result:
    """What the report needs of a run's result."""
    after, before = found.evaluation, found.evaluation_before
    by_source = dict(after.get("by_source", {}))
    return Result(
        trainable_params=found.trainable_params,
        mean_active_params=found.mean_active_params,
        total_params=found.total_params,
        accuracy=found.accuracy,
        accuracy_before=found.accuracy_before,
        greedy_accuracy=float(after["greedy_accuracy"]),
        standard_error=float(after["standard_error"]),
        problems=int(after["problems"]),
        final_reward=found.final_reward,
        peak_memory_bytes=int(max(found.peak_memory_bytes.values(), default=0)),
        train_seconds=found.train_seconds,
        tokens=found.tokens,
        code_version=found.code_version,
        samples=int(after["samples"]),
        right=tuple(map(int, after.get("right", ()))),
        right_before=tuple(map(int, before.get("right", ()))),
        by_difficulty=dict(after.get("by_difficulty", {})),
        by_difficulty_before=dict(before.get("by_difficulty", {})),
        by_source=by_source if len(by_source) > 1 else {},
        sets={name: float(each["accuracy"]) for name, each in after.get("sets", {}).items()},
        phase_peaks_bytes={name: int(size) for name, size in found.peak_memory_bytes.items()},
        parts_bytes={name: int(size) for name, size in found.memory_parts_bytes.items()},
    )


def _read_series(folder: Path) -> dict[str, Series]:
    points: dict[str, list[tuple[int, float]]] = {}
    for row in RunDirectory(folder).metrics():
        for name, value in row["metrics"].items():
            if name in SERIES or name.startswith(BLOCKS):
                points.setdefault(name, []).append((row["step"], value))
    return {name: make_series(pairs) for name, pairs in points.items()}


def make_series(points: Iterable[tuple[int, float]]) -> Series:
    """The series of (step, value) pairs, in order of steps."""
    ordered = sorted(points)
    return Series(np.array([s for s, _ in ordered], dtype=np.int64), np.array([v for _, v in ordered], dtype=np.float64))
