"""Reads sweeps back from a store's database, with SQL on MLflow's tables.

Two million points take seconds this way, and minutes through MLflow's client.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import Connection, bindparam, text

from efficient_rl.tracking.names import read_name, stored_name

RUNS_A_QUERY = 500
SWEEPS = """
    SELECT t.value, CAST(r.experiment_id AS VARCHAR(32)), r.run_uuid, r.start_time,
           COALESCE(c.value, '')
    FROM tags t JOIN runs r ON r.run_uuid = t.run_uuid
    LEFT JOIN tags c ON c.run_uuid = t.run_uuid AND c.key = 'command'
    WHERE t.key = 'sweep_parent' AND r.lifecycle_stage = 'active'
"""
CHILDREN = """
    SELECT p.run_uuid FROM tags p JOIN runs r ON r.run_uuid = p.run_uuid
    WHERE p.key = 'mlflow.parentRunId' AND p.value = :parent AND r.lifecycle_stage = 'active'
"""
HISTORIES = """
    SELECT run_uuid, key, step, value FROM metrics
    WHERE run_uuid IN :runs AND key IN :keys AND NOT is_nan
"""

Point = tuple[str, str, int, float]  # run, metric, step, value


@dataclass(frozen=True)
class StoredSweep:
    """The parent run of a sweep; `created` is in Unix seconds."""

    name: str
    experiment: str
    run_id: str
    created: float
    command: str


@dataclass
class StoredRun:
    """A run under a parent: `latest_metrics` holds every metric's last value."""

    run_id: str
    status: str
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    latest_metrics: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The hash of its configuration."""
        return self.tags.get("config_hash", self.run_id)

    @property
    def repetition(self) -> int:
        """How often `force` had repeated it."""
        return int(self.tags.get("repetition", 0))


class Store(Protocol):
    """What reading needs of a store."""

    def sweeps(self) -> list[StoredSweep]:
        """All that were tracked."""

    def runs(self, sweep: StoredSweep) -> list[StoredRun]:
        """The runs under a sweep's parent."""

    def histories(self, run_ids: Sequence[str], keys: Sequence[str]) -> Iterator[Point]:
        """Every point of these metrics of these runs: run, metric, step, value."""


@dataclass(frozen=True)
class DatabaseStore:
    """MLflow's tables in a database."""

    connection: Connection

    def sweeps(self) -> list[StoredSweep]:
        rows = self.connection.execute(text(SWEEPS))
        return [StoredSweep(a, b, c, start / 1000, command) for a, b, c, start, command in rows]

    def runs(self, sweep: StoredSweep) -> list[StoredRun]:
        runs = {row[0]: StoredRun(*row) for row in self._select(sweep, "run_uuid, status", "runs")}
        for table in ("tags", "params", "latest_metrics"):
            for run_id, key, value in self._select(sweep, "run_uuid, key, value", table):
                getattr(runs[run_id], table)[read_name(key, runs[run_id].tags)] = value
        return list(runs.values())

    def histories(self, run_ids: Sequence[str], keys: Sequence[str]) -> Iterator[Point]:
        names = dict(zip(map(stored_name, keys), keys, strict=True))
        lists: list[Any] = [bindparam(name, expanding=True) for name in ("runs", "keys")]
        query = text(HISTORIES).bindparams(*lists)
        streamed = self.connection.execution_options(stream_results=True)
        for start in range(0, len(run_ids), RUNS_A_QUERY):
            chunk = list(run_ids[start : start + RUNS_A_QUERY])
            for row in streamed.execute(query, {"runs": chunk, "keys": list(names)}):
                yield row[0], names[row[1]], row[2], row[3]

    def _select(self, sweep: StoredSweep, columns: str, table: str) -> Iterable[Any]:
        query = f"SELECT {columns} FROM {table} WHERE run_uuid IN ({CHILDREN})"
        return self.connection.execute(text(query), {"parent": sweep.run_id})
