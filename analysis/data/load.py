"""Reads a sweep from the output folder: its manifest, and the results of finished runs."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efficient_rl.metrics import CPU_SECONDS
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.result import RunResult
from efficient_rl.sweep.manifest import find_manifest

# What reading a damaged file raises.
DAMAGED = (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError)
REWARD, DIFFICULTY, TOKENS = "train/reward", "train/difficulty", "train/tokens"
SECONDS, ACCURACY = "time/step_seconds", "eval/accuracy"
SERIES = (REWARD, DIFFICULTY, TOKENS, SECONDS, CPU_SECONDS, ACCURACY)
CPU_TIME, WALL_CLOCK = "CPU time", "wall clock"
BLOCKS = "blocks/"  # one series for each transformer block of a model under a schedule


@dataclass(frozen=True, eq=False)
class Series:
    """A metric over the steps that recorded it, in order; arrays (steps,)."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Series):
            return NotImplemented
        return np.array_equal(self.steps, other.steps) and np.array_equal(self.values, other.values)


@dataclass(frozen=True)
class Run:
    """One configuration and seed: flat parameters, series, and its result once finished."""

    hash: str
    params: Mapping[str, Any]
    result: RunResult | None = None
    series: Mapping[str, Series] = field(default_factory=dict)

    @property
    def seed(self) -> str:
        """As text, because it is a key only."""
        return str(self.params.get("seed"))

    def identity(self, without: Collection[str] = ()) -> str:
        """Its parameters as one text, without the seed and the given ones."""
        left_out = {"seed", *without}
        kept = {key: value for key, value in self.params.items() if key not in left_out}
        return json.dumps(kept, sort_keys=True, default=str)


@dataclass(frozen=True)
class SweepData:
    """A sweep with all its runs, finished or not; `created` is in Unix seconds."""

    name: str
    created: float
    command: str
    question: str | None
    runs: tuple[Run, ...]

    @property
    def finished(self) -> list[Run]:
        """The runs that have a result."""
        return finished_runs(self.runs)

    @property
    def code_versions(self) -> list[str]:
        """The versions of the code that the finished runs ran, sorted."""
        return sorted({result.code_version for result in results_of(self.runs)})


def finished_runs(runs: Iterable[Run]) -> list[Run]:
    """Those that have a result."""
    return [run for run in runs if run.result is not None]


def results_of(runs: Iterable[Run]) -> list[RunResult]:
    """The results of the finished ones."""
    return [run.result for run in runs if run.result is not None]


def on_one_clock(runs: Sequence[Run]) -> tuple[list[Run], str]:
    """The runs, with CPU time for the seconds of training if all recorded it; and which it is.

    The wall clock also counts what else the machine did.
    """
    if any(result.train_cpu_seconds is None for result in results_of(runs)):
        return list(runs), WALL_CLOCK
    return list(map(_on_cpu_time, runs)), CPU_TIME


def _on_cpu_time(run: Run) -> Run:
    if run.result is None or run.result.train_cpu_seconds is None:
        return run
    series = {**run.series}
    if CPU_SECONDS in series:
        series[SECONDS] = series[CPU_SECONDS]
    return replace(run, result=replace(run.result, train_seconds=run.result.train_cpu_seconds), series=series)


def load_sweep(outputs: Path, name: str | None) -> SweepData:
    """The sweep `name` of the folder `outputs`, or its newest; ConfigError where there is none."""
    manifest = find_manifest(outputs, name)
    runs = with_results((Run(run.hash, run.params) for run in manifest.runs), outputs)
    command, question = manifest.command, manifest.question
    return SweepData(manifest.name, manifest.created, command, question, tuple(runs))


def with_results(runs: Iterable[Run], outputs: Path) -> Iterable[Run]:
    """The runs with what their directories hold, where they are finished."""
    for run in runs:
        folder = RunDirectory(outputs / "runs" / run.hash)
        result = folder.result()
        yield run if result is None else replace(run, result=result, series=_read_series(folder))


def make_series(points: Iterable[tuple[int, float]]) -> Series:
    """The series of (step, value) pairs, in order of steps."""
    ordered = np.array(sorted(points), dtype=np.float64).reshape(-1, 2)
    return Series(ordered[:, 0].astype(np.int64), ordered[:, 1])


def is_series(name: str) -> bool:
    """Whether the report needs the whole series of a metric."""
    return name in SERIES or name.startswith(BLOCKS)


def _read_series(folder: RunDirectory) -> dict[str, Series]:
    points = defaultdict(list)
    for row in folder.metrics():
        for name in filter(is_series, row["metrics"]):
            points[name].append((row["step"], row["metrics"][name]))
    return {name: make_series(pairs) for name, pairs in points.items()}
