"""Sends what is new in the run directories of a sweep to a tracking store.

How far a metrics file was sent is kept beside it, so every point is sent once. A point that was
sent just before a crash is sent again: the same row, which the store ignores.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock, Timeout

from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.result import MISSING
from efficient_rl.rundir.state import RunState
from efficient_rl.tracking.client import database_path, make_database
from efficient_rl.tracking.experiment import Experiment, TrackedRun, active_runs
from efficient_rl.tracking.notes import (
    RUNNING,
    Cursor,
    ParentNote,
    key_of,
    read_note,
    store_identity,
    write_note,
)
from efficient_rl.tracking.views import write_charts_page

logger = logging.getLogger(__name__)
STATUSES = {  # MLflow's word for the state of a run directory
    RunState.FINISHED: "FINISHED",
    RunState.RUNNING: RUNNING,
    RunState.FAILED: "FAILED",
    RunState.WAITING: "KILLED",
}


class Collector:
    """Sends the runs of a sweep to a store. Not thread-safe; several processes take turns.

    `refused`: what the store did not take, and why.
    """

    def __init__(self, uri: str, sweep: str, command: str, outputs: Path) -> None:
        self.uri = uri
        self.refused: list[str] = []
        self._sweep = sweep
        self._command = command
        self._outputs = outputs
        self._key = f"{sweep}-{key_of(uri)}"
        self._parent_path = outputs / "sweeps" / sweep / "tracking" / f"{key_of(uri)}.json"
        self._experiment: Experiment | None = None
        self._complete: dict[Path, int] = {}  # nothing left to send until the next claim
        self._lost: set[Path] | None = None  # sent before, and no longer shown by the store
        self._parent_seen: str | None = None
        self._moved = False  # whether the sweep has a new parent run, below which its runs belong

    def is_sent(self, run: TrackedRun) -> bool:
        """Whether the store has everything of a run, without asking it."""
        cursor = self._cursor(run)
        return cursor is not None and cursor.status != RUNNING and not _has_news(run, cursor)

    def sync(self, runs: Iterable[TrackedRun]) -> None:
        """Send what the store lacks. Raises what MLflow raises where the store is away.

        An error with one run, which the store answers with, does not keep the others back; the
        first is raised at the end.
        """
        listed, error, moved = list(runs), None, self._moved
        if self._lost is None:
            self._lost = self._find_lost(listed)
        sent = False
        for run in listed:
            claimed = _last_claim(run.folder)
            if claimed is None or (claimed == self._complete.get(run.folder) and not moved):
                continue
            if run.folder in self._lost or moved or _has_news(run, self._cursor(run)):
                try:
                    self._send_alone(run)
                    sent = True
                except Exception as problem:  # noqa: BLE001 the store may fail in any way
                    error = error or problem
                    self._reopen()
            if run.folder not in self._lost and self.is_sent(run):
                self._complete[run.folder] = claimed
        if error is not None:
            raise error
        if sent:
            self._keep_running()
        if self._moved and not moved:
            self.sync(listed)  # some still stand below the parent that is gone
        elif sent:
            self._moved = False
            self._note_parent(self._opened(), RUNNING)

    def close(self, finished: bool) -> None:
        """End the parent run, as finished or as killed, if anything of the sweep was ever sent."""
        status, note = "FINISHED" if finished else "KILLED", self._parent()
        if self._experiment is None and (note is None or note.status == status):
            return
        experiment = self._opened()
        try:
            experiment.close(status)
        except Exception:
            self._reopen()
            raise
        self._note_parent(experiment, status)

    def _opened(self) -> Experiment:
        if self._experiment is None:
            self._outputs.mkdir(parents=True, exist_ok=True)
            # MLflow breaks a database when several processes use it for the first time at once.
            with FileLock(_store_lock(self.uri, self._outputs)):
                make_database(self.uri)
                self._experiment = Experiment(self.uri, self._sweep, self._command, self.refused)
            write_charts_page(self._outputs / "sweeps" / self._sweep, self._experiment.id)
            self._moved |= self._parent_seen not in (None, self._experiment.parent)
            self._parent_seen = self._experiment.parent
        return self._experiment

    def _keep_running(self) -> None:
        try:
            self._opened().keep_running()
        except Exception:
            self._reopen()
            raise

    def _reopen(self) -> None:
        """Look again for what may have been deleted meanwhile; raises where the store is away."""
        self._experiment = None
        self._opened()

    def _find_lost(self, runs: Iterable[TrackedRun]) -> set[Path]:
        """The runs that were sent and that the store does not show under the sweep any more.

        All, where its parent run is not shown, or not known from an earlier command.
        """
        cursors = {run.folder: self._cursor(run) for run in runs}
        sent = {folder: cursor.run_id for folder, cursor in cursors.items() if cursor is not None}
        note = self._parent()
        if not sent or note is None:
            return set(sent)
        shown = active_runs(self.uri, note.experiment)
        if note.run_id not in shown:
            return set(sent)
        return {folder for folder, run_id in sent.items() if run_id not in shown}

    def _send_alone(self, run: TrackedRun) -> None:
        (run.folder / "tracking").mkdir(exist_ok=True)
        try:
            with FileLock(run.folder / "tracking" / f"{self._key}.lock", timeout=0):
                self._send(self._opened(), run)
        except Timeout:
            logger.debug("another process sends %s", run.folder.name)
        else:
            assert self._lost is not None
            self._lost.discard(run.folder)

    def _send(self, experiment: Experiment, run: TrackedRun) -> None:
        cursor = self._cursor(run)
        if cursor is None or not experiment.has_run(cursor.run_id):
            cursor = Cursor(experiment.child(run), store=store_identity(self.uri))
        path = self._cursor_path(run)
        write_note(cursor, path)
        directory = RunDirectory(run.folder)
        status, attempt = STATUSES[directory.state()], directory.newest_attempt() or 0
        if status == RUNNING and cursor.status != RUNNING:
            experiment.reopen(cursor.run_id)
        rows = list(directory.metrics(cursor.offset))
        experiment.log_rows(cursor.run_id, rows)
        if rows:
            cursor.offset = rows[-1]["end"]
        write_note(cursor, path)
        if status != RUNNING and (cursor.status, cursor.attempt) != (status, attempt):
            experiment.log_end(cursor.run_id, run, status, self._outputs / "code")
            cursor.offset = _size(run.folder)
        cursor.status, cursor.attempt = status, attempt
        write_note(cursor, path)

    def _cursor_path(self, run: TrackedRun) -> Path:
        return run.folder / "tracking" / f"{self._key}.json"

    def _cursor(self, run: TrackedRun) -> Cursor | None:
        return read_note(Cursor, self._cursor_path(run), self.uri)

    def _parent(self) -> ParentNote | None:
        return read_note(ParentNote, self._parent_path, self.uri)

    def _note_parent(self, experiment: Experiment, status: str) -> None:
        note = ParentNote(experiment.id, experiment.parent, status, store_identity(self.uri))
        write_note(note, self._parent_path)


def _has_news(run: TrackedRun, cursor: Cursor | None) -> bool:
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
