"""Reads a sweep from the output folder: what was asked for, and what each finished run measured."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import isfinite
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efficient_rl.errors import ConfigError, did_you_mean
from efficient_rl.rundir.directory import Record, RunResult

EXAMPLE = "python -m efficient_rl.sweep -m strategy=first_k,last_k,lora"
# What reading a damaged file raises.
DAMAGED = (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError)
REWARD, DIFFICULTY, TOKENS = "train/reward", "train/difficulty", "train/tokens"
SECONDS, ACCURACY = "time/step_seconds", "eval/accuracy"
SERIES = (REWARD, DIFFICULTY, TOKENS, SECONDS, ACCURACY)
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
    """One configuration and seed: its flat parameters, its result (None: unfinished), its series."""

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


def load_sweep(outputs: Path, name: str | None) -> SweepData:
    """The sweep `name` of the folder `outputs`, or its newest; ConfigError where there is none."""
    folder, names = outputs / "sweeps", sweep_names(outputs)
    if not names:
        raise ConfigError(f"no sweep in {folder}; make one with: {EXAMPLE}")
    if name is not None and name not in names:
        raise ConfigError(f"unknown sweep {name!r}; {did_you_mean(name, names)}")
    wanted = names if name is None else [name]
    sweeps = _read_sweeps(outputs, wanted)
    if not sweeps:
        files = ", ".join(f"{folder / each / 'sweep.json'}" for each in wanted)
        raise ConfigError(f"damaged: {files}; the command that made a sweep writes its file anew")
    newest = max(sweeps, key=attrgetter("created", "name"))
    return replace(newest, runs=tuple(with_results(newest.runs, outputs)))


def sweep_names(outputs: Path) -> list[str]:
    """All sweeps of an output folder, damaged ones too."""
    return sorted(path.parent.name for path in (outputs / "sweeps").glob("*/sweep.json"))


def read_params(outputs: Path) -> dict[str, Mapping[str, Any]]:
    """The parameters of every run that any sweep names, by its hash."""
    params: dict[str, Mapping[str, Any]] = {}
    for sweep in _read_sweeps(outputs, sweep_names(outputs)):
        params |= {run.hash: run.params for run in sweep.runs}
    return params


def with_results(runs: Iterable[Run], outputs: Path) -> Iterable[Run]:
    """The runs with what their directories hold, where they are finished."""
    for run in runs:
        record = Record(outputs / "runs" / run.hash)
        result = record.result()
        yield run if result is None else replace(run, result=result, series=_read_series(record))


def make_series(points: Iterable[tuple[int, float]]) -> Series:
    """The series of (step, value) pairs, in order of steps."""
    ordered = np.array(sorted(points), dtype=np.float64).reshape(-1, 2)
    return Series(ordered[:, 0].astype(np.int64), ordered[:, 1])


def is_series(name: str) -> bool:
    """Whether the report needs the whole series of a metric."""
    return name in SERIES or name.startswith(BLOCKS)


def _read_sweeps(outputs: Path, names: Sequence[str]) -> list[SweepData]:
    return list(filter(None, map(partial(_read_sweep, outputs), names)))


def _read_sweep(outputs: Path, name: str) -> SweepData | None:
    """The sweep without results; None where its file is damaged. A hash named twice is one run."""
    try:
        raw = json.loads((outputs / "sweeps" / name / "sweep.json").read_text(encoding="utf-8"))
        runs = {str(run["hash"]): Run(str(run["hash"]), dict(run["params"])) for run in raw["runs"]}
        created, question = float(raw["created"]), raw.get("question")
        if not isfinite(created):
            return None
        said = str(question) if question is not None else None
        return SweepData(name, created, str(raw["command"]), said, tuple(runs.values()))
    except DAMAGED:
        return None


def _read_series(record: Record) -> dict[str, Series]:
    points = defaultdict(list)
    for row in record.metrics():
        for name in filter(is_series, row["metrics"]):
            points[name].append((row["step"], row["metrics"][name]))
    return {name: make_series(pairs) for name, pairs in points.items()}
