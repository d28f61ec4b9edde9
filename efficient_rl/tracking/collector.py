"""Sends what is new in the run directories of a sweep to a tracking store.

How far a metrics file was sent is kept beside it, so every point is sent once. A point that was
sent just before a crash is sent again: the same row, which the store ignores.
"""

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from efficient_rl.files import write_atomic
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.result import MISSING
from efficient_rl.rundir.state import RunState
from efficient_rl.tracking.client import database_path
from efficient_rl.tracking.experiment import Experiment, TrackedRun
from efficient_rl.tracking.views import write_charts_page

logger = logging.getLogger(__name__)
RUNNING = "RUNNING"
STATUSES = {  # MLflow's word for the state of a run directory
    RunState.FINISHED: "FINISHED",
    RunState.RUNNING: RUNNING,
    RunState.FAILED: "FAILED",
    RunState.WAITING: "KILLED",
}


@dataclass
class _Cursor:
    """How far a run directory has been sent to one experiment."""

    run_id: str
    offset: int = 0
    attempt: int = 0
    status: str = RUNNING
    store: str = ""  # which database file it was, so that a new one under the same name is seen


class Collector:
    """Sends the runs of a sweep to a store. Not thread-safe; several processes take turns."""

    def __init__(self, uri: str, sweep: str, command: str, outputs: Path) -> None:
        self.uri = uri
        self._sweep = sweep
        self._command = command
        self._outputs = outputs
        self._key = f"{sweep}-{hashlib.sha256(uri.encode()).hexdigest()[:8]}"
        self._experiment: Experiment | None = None
        self._complete: dict[Path, int] = {}  # nothing left to send until the next claim

    def is_sent(self, run: TrackedRun) -> bool:
        """Whether the store has everything of a run, without asking it."""
        cursor = self._cursor(run)
        return cursor is not None and cursor.status != RUNNING and not _has_news(run, cursor)

    def sync(self, runs: Iterable[TrackedRun]) -> None:
        """Send what the store lacks. Raises what MLflow raises where the store is away."""
        for run in runs:
            claimed = _last_claim(run.folder)
            if claimed is None or claimed == self._complete.get(run.folder):
                continue
            if _has_news(run, self._cursor(run)):
                self._send_alone(run)
            if self.is_sent(run):
                self._complete[run.folder] = claimed

    def close(self, finished: bool) -> None:
        """End the parent run, if this process ever opened it."""
        if self._experiment is not None:
            self._experiment.close(finished)

    def _opened(self) -> Experiment:
        if self._experiment is None:
            self._outputs.mkdir(parents=True, exist_ok=True)
            # MLflow breaks a database when several processes use it for the first time at once.
            with FileLock(_store_lock(self.uri, self._outputs)):
                self._experiment = Experiment(self.uri, self._sweep, self._command)
            write_charts_page(self._outputs / "sweeps" / self._sweep, self._experiment.id)
        return self._experiment

    def _send_alone(self, run: TrackedRun) -> None:
        (run.folder / "tracking").mkdir(exist_ok=True)
        try:
            with FileLock(run.folder / "tracking" / f"{self._key}.lock", timeout=0):
                self._send(self._opened(), run)
        except Timeout:
            logger.debug("another process sends %s", run.folder.name)

    def _send(self, experiment: Experiment, run: TrackedRun) -> None:
        cursor = self._cursor(run)
        if cursor is None or not experiment.has_run(cursor.run_id):
            cursor = _Cursor(experiment.child(run), store=_store_identity(self.uri))
        self._save(run, cursor)
        directory = RunDirectory(run.folder)
        status, attempt = STATUSES[directory.state()], directory.newest_attempt() or 0
        if status == RUNNING and cursor.status != RUNNING:
            experiment.reopen(cursor.run_id)
        rows = list(directory.metrics(cursor.offset))
        experiment.log_rows(cursor.run_id, rows)
        if rows:
            cursor.offset = rows[-1]["end"]
        self._save(run, cursor)
        if status != RUNNING and (cursor.status, cursor.attempt) != (status, attempt):
            experiment.log_end(cursor.run_id, run, status, self._outputs / "code")
            cursor.offset = _size(run.folder)
        cursor.status, cursor.attempt = status, attempt
        self._save(run, cursor)

    def _cursor_path(self, run: TrackedRun) -> Path:
        return run.folder / "tracking" / f"{self._key}.json"

    def _cursor(self, run: TrackedRun) -> _Cursor | None:
        try:
            cursor = _Cursor(**json.loads(self._cursor_path(run).read_text()))
        except (*MISSING, ValueError, TypeError):
            return None
        return cursor if cursor.store == _store_identity(self.uri) else None

    def _save(self, run: TrackedRun, cursor: _Cursor) -> None:
        write_atomic(self._cursor_path(run), json.dumps(asdict(cursor)))


def _has_news(run: TrackedRun, cursor: _Cursor | None) -> bool:
    if cursor is None:
        return True
    status = STATUSES[RunDirectory(run.folder).state()]
    return _size(run.folder) > cursor.offset or status != cursor.status


def _last_claim(folder: Path) -> int | None:
    """When the run was last claimed, in nanoseconds; None before the first time."""
    try:
        return (folder / "attempts").stat().st_mtime_ns
    except MISSING:
        return None


def _size(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.stat().st_size if path.is_file() else 0


def _store_lock(uri: str, outputs: Path) -> Path:
    """Beside a local database, which other output folders may share; else in the output folder."""
    database = database_path(uri)
    return outputs / "tracking.lock" if database is None else Path(f"{database}.lock")


def _store_identity(uri: str) -> str:
    """Tells a local database from another in its place; "" for a server, and without one."""
    database = database_path(uri)
    return str(database.stat().st_ino) if database is not None and database.exists() else ""
