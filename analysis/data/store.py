"""Reads a sweep from the tracking store, in bulk: what load reads from run directories, as far as the store was sent it.

A database is asked with SQL on the store's own tables (two million points in seconds, where the
client takes minutes), a server through its interface for many runs at once.
"""

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, bindparam, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from analysis.data.load import (
    BLOCKS,
    REWARD,
    SERIES,
    ReportError,
    Result,
    Run,
    Series,
    SweepData,
    make_series,
    suggest,
)
from efficient_rl.sweep.manifest import EXAMPLE

SQL_SCHEMES, SERVER_SCHEMES = ("sqlite", "postgresql"), ("http", "https")
RUNS_A_QUERY = 500
LITERAL_ERRORS = (ValueError, SyntaxError, RecursionError, MemoryError)
ACTIVE_PARAMS, MEMORY = "params/active", "memory/"
SET = re.compile(r"eval/([^/]+)/accuracy")


@dataclass(frozen=True)
class StoredSweep:
    """The parent run of a sweep."""

    name: str
    experiment: str
    run_id: str
    created: float
    command: str


@dataclass
class StoredRun:
    """A run under a parent: `last` holds every metric's last value."""

    run_id: str
    status: str
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)


class Store(Protocol):
    """What reading needs of a store."""

    def sweeps(self) -> list[StoredSweep]:
        """All that were tracked."""

    def runs(self, sweep: StoredSweep) -> list[StoredRun]:
        """The runs under a sweep's parent."""

    def histories(self, run_ids: Sequence[str], keys: Sequence[str]) -> Iterator[tuple[str, str, int, float]]:
        """Every point of these metrics of these runs: run, metric, step, value."""


def load_stored(uri: str, name: str | None) -> SweepData:
    """The sweep `name` of the store, or its newest one for None; ReportError where there is none or the store is away."""
    scheme = uri.partition("://")[0].partition("+")[0]
    if scheme in SERVER_SCHEMES:
        from analysis.data.server import ServerStore

        return _load(ServerStore(uri), uri, name)
    if scheme not in SQL_SCHEMES:
        raise ReportError(f"{uri} cannot be read; use {', '.join(SQL_SCHEMES + SERVER_SCHEMES)}, or the run directories")
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.exists():
        raise ReportError(f"no database {path}; make one with: {EXAMPLE}")
    try:
        with create_engine(uri).connect() as connection:
            return _load(SqlStore(connection), uri, name)
    except SQLAlchemyError as error:
        raise ReportError(f"{uri} cannot be read: {str(error).splitlines()[0]}") from error


def _load(store: Store, uri: str, name: str | None) -> SweepData:
    found = store.sweeps()
    if not found:
        raise ReportError(f"no sweep in {uri}; make one with: {EXAMPLE}")
    wanted = [sweep for sweep in found if name in (None, sweep.name)]
    if not wanted:
        raise ReportError(f"unknown sweep {name!r}; {suggest(str(name), {sweep.name for sweep in found})}")
    sweep = max(wanted, key=lambda sweep: (sweep.created, sweep.name))
    runs = _newest_repetitions(store.runs(sweep))
    points: dict[str, dict[str, list[tuple[int, float]]]] = {run.run_id: {} for run in runs}
    finished = [run for run in runs if run.status == "FINISHED"]
    for run_id, key, step, value in store.histories([run.run_id for run in finished], _wanted_keys(finished)):
        points[run_id].setdefault(key, []).append((step, value))
    read = [_run(run, {key: make_series(each) for key, each in points.pop(run.run_id).items()}) for run in runs]
    return SweepData(sweep.name, sweep.created, sweep.command, None, tuple(read))


def _newest_repetitions(runs: Iterable[StoredRun]) -> list[StoredRun]:
    """Of the runs that `force` repeated the last one."""
    newest: dict[str, StoredRun] = {}
    for run in sorted(runs, key=lambda run: (run.tags.get("config_hash", ""), int(run.tags.get("repetition", 0)))):
        newest[run.tags.get("config_hash", run.run_id)] = run
    return list(newest.values())


def _wanted_keys(runs: Sequence[StoredRun]) -> list[str]:
    known = {key for run in runs for key in run.last}
    evaluated = {key for key in known if key.startswith("eval/accuracy_difficulty_")}
    prefixed = {key for key in known if key.startswith((BLOCKS, MEMORY)) and key != "memory/total_peak_bytes"}
    return sorted(known & {*SERIES, ACTIVE_PARAMS} | evaluated | prefixed)


def _run(run: StoredRun, points: Mapping[str, Series]) -> Run:
    params = {key: _value(value) for key, value in run.params.items()}
    kept = {key: each for key, each in points.items() if key in SERIES or key.startswith(BLOCKS)}
    key = run.tags.get("config_hash", run.run_id)
    if run.status != "FINISHED" or "accuracy" not in run.last:
        return Run(key, params)
    return Run(key, params, _result(run, points), kept)


def _result(run: StoredRun, points: Mapping[str, Series]) -> Result:
    """The result put together from metrics, as execute put it together from the same ones."""
    last = run.last
    rewards = points[REWARD].values if REWARD in points else make_series([]).values
    tail = rewards[-max(1, len(rewards) // 10) :]
    sizes = {
        key[len(MEMORY) :].removesuffix("_bytes"): int(each.values.max()) for key, each in points.items() if MEMORY in key
    }
    peaks = {name.removesuffix("_peak"): size for name, size in sizes.items() if name.endswith("_peak")}
    active = points.get(ACTIVE_PARAMS)
    levels = _after(points, "eval/accuracy_difficulty_")
    return Result(
        trainable_params=int(last["params/trainable"]),
        mean_active_params=float(sum(active.values) / len(active.values)) if active is not None else 0.0,
        total_params=int(last["params/total"]),
        accuracy=last["accuracy"],
        accuracy_before=last["accuracy_before"],
        greedy_accuracy=last["greedy_accuracy"],
        standard_error=last["eval/standard_error"],
        problems=int(last.get("problems", _value(run.params.get("eval.problems", "0")))),
        final_reward=float(sum(tail)) / max(1, len(tail)),
        peak_memory_bytes=max(peaks.values(), default=0),
        train_seconds=last["time/train_seconds"],
        tokens=int(last.get("train/tokens", 0)),
        code_version=run.tags.get("code_version", "unknown"),
        samples=int(last.get("samples", 0)),
        right=tuple(json.loads(run.tags.get("right", "[]"))),
        right_before=tuple(json.loads(run.tags.get("right_before", "[]"))),
        by_difficulty={name: float(each.values[-1]) for name, each in levels.items()},
        by_difficulty_before={name: float(each.values[0]) for name, each in levels.items()},
        by_source={
            key.removeprefix("eval/accuracy_source_"): v for key, v in last.items() if "eval/accuracy_source_" in key
        },
        sets={found[1]: value for key, value in last.items() if (found := SET.fullmatch(key))},
        phase_peaks_bytes=peaks,
        parts_bytes={name: size for name, size in sizes.items() if not name.endswith("_peak")},
    )


def _after(points: Mapping[str, Series], prefix: str) -> dict[str, Series]:
    return {key.removeprefix(prefix): each for key, each in points.items() if key.startswith(prefix)}


def _value(written: str) -> Any:
    """A parameter as it was before the store made it a text; only Python's literals are read, nothing is executed."""
    try:
        return ast.literal_eval(written)
    except LITERAL_ERRORS:
        return written


@dataclass(frozen=True)
class SqlStore:
    """The store's own tables."""

    connection: Connection

    def sweeps(self) -> list[StoredSweep]:
        """All that were tracked."""
        rows = self.connection.execute(
            text(
                "SELECT t.value, r.experiment_id, r.run_uuid, r.start_time, c.value FROM tags t "
                "JOIN runs r ON r.run_uuid = t.run_uuid "
                "LEFT JOIN tags c ON c.run_uuid = t.run_uuid AND c.key = 'command' "
                "WHERE t.key = 'sweep_parent' AND r.lifecycle_stage = 'active'"
            )
        )
        return [StoredSweep(name, str(exp), run, start / 1000, command or "") for name, exp, run, start, command in rows]

    def runs(self, sweep: StoredSweep) -> list[StoredRun]:
        """The runs under a sweep's parent."""
        children = (
            "SELECT p.run_uuid FROM tags p JOIN runs r ON r.run_uuid = p.run_uuid "
            "WHERE p.key = 'mlflow.parentRunId' AND p.value = :parent AND r.lifecycle_stage = 'active'"
        )

        def select(columns: str, table: str) -> Iterable[Any]:
            query = f"SELECT {columns} FROM {table} WHERE run_uuid IN ({children})"
            return self.connection.execute(text(query), {"parent": sweep.run_id})

        runs = {run_id: StoredRun(run_id, status) for run_id, status in select("run_uuid, status", "runs")}
        for run_id, key, value in select("run_uuid, key, value", "tags"):
            runs[run_id].tags[key] = value
        for run_id, key, value in select("run_uuid, key, value", "params"):
            runs[run_id].params[key] = value
        for run_id, key, value in select("run_uuid, key, value", "latest_metrics"):
            runs[run_id].last[key] = value
        return list(runs.values())

    def histories(self, run_ids: Sequence[str], keys: Sequence[str]) -> Iterator[tuple[str, str, int, float]]:
        """Every point of these metrics of these runs: run, metric, step, value."""
        query = text(
            "SELECT run_uuid, key, step, value FROM metrics WHERE run_uuid IN :runs AND key IN :keys AND NOT is_nan"
        ).bindparams(bindparam("runs", expanding=True), bindparam("keys", expanding=True))
        for start in range(0, len(run_ids), RUNS_A_QUERY):
            chunk = {"runs": list(run_ids[start : start + RUNS_A_QUERY]), "keys": list(keys)}
            for row in self.connection.execution_options(stream_results=True).execute(query, chunk):
                yield row[0], row[1], row[2], row[3]
