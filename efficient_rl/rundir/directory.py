"""Owns the run directory: who works on it, its metrics, checkpoints and result. The directory is the truth.

A run is finished when `result.json` is valid, and only then. Whoever works on a run holds the
newest attempt; an attempt is alive while its process is. Attempts are claimed, and everything is
written, under one lock and only by the newest attempt: an old process that comes back to life
cannot overwrite a newer one. What takes longer to write than a lock should be held (checkpoints,
the model) goes to a place of the attempt's own and is published under the lock.
"""

import hashlib
import json
import os
import re
import shutil
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from efficient_rl.config.run_config import RunConfig, to_dict
from efficient_rl.rundir.process import Owner, cluster_job, this_process
from efficient_rl.rundir.result import MISSING, Cause, Failure, RunResult
from efficient_rl.rundir.state import RunState

MARKER = "complete.json"
HEARTBEAT_SECONDS = 900.0  # an attempt on another machine that wrote nothing for so long is given up
LOCK_SECONDS = 60.0
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "MemoryError")


class AttemptLost(RuntimeError):
    """A newer attempt owns the run directory; this one must stop and write nothing more."""


class AlreadyActive(RuntimeError):
    """Another live process works on the run."""


class AlreadyFinished(RuntimeError):
    """The run has its result; there is nothing to do."""


class Record:
    """The directory of one run, at `outputs/runs/<config_hash>`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.attempt: int | None = None
        self._file_lock = FileLock(folder / "attempts" / "lock", timeout=LOCK_SECONDS)
        self._recorded: set[tuple[int, str]] = set()

    # Reading

    def result(self) -> RunResult | None:
        """The result, or None where there is no valid one."""
        return RunResult.read(self.folder)

    def state(self) -> RunState:
        """Finished, running, failed or waiting."""
        if self.result() is not None:
            return RunState.FINISHED
        newest = self.newest_attempt()
        if newest and self._alive(newest):
            return RunState.RUNNING
        return RunState.FAILED if self.failure() is not None else RunState.WAITING

    def failure(self) -> Failure | None:
        """Why the newest attempt failed, or None where it did not."""
        failure = Failure.read(self.folder)
        return failure if failure and failure.attempt == (self.newest_attempt() or 0) else None

    def metrics(self, start: int = 0) -> Iterator[dict[str, Any]]:
        """The complete metric lines from byte `start` on: `step`, `time` (Unix seconds), `metrics`; half a line is skipped.

        Each step counts once: the first line that has it. Every row carries `end`, the byte after
        it.
        """
        seen: set[tuple[int, str]] = set()
        try:
            stream = (self.folder / "metrics.jsonl").open("rb")
        except MISSING:
            return
        with stream:
            stream.seek(start)
            end = start
            for line in stream:
                end += len(line)
                row = _json(line) if line.endswith(b"\n") else None
                if row is None:
                    continue
                key = (row["step"], _kind(row["metrics"]))
                if key not in seen:
                    seen.add(key)
                    yield {**row, "end": end}

    def owner(self) -> Owner | None:
        """The process of the newest attempt; None before the first, after a release, or where it is damaged."""
        newest = self.newest_attempt()
        return self._owner(newest) if newest else None

    def last_sign(self) -> float | None:
        """When the newest attempt was claimed, last logged a step or evaluated a batch, in Unix seconds; None before."""
        newest = self.newest_attempt()
        try:
            return self._attempt_path(newest).stat().st_mtime if newest else None
        except MISSING:
            return None

    def checkpoint(self) -> Path | None:
        """The newest checkpoint whose files are what was written; damaged ones are passed over."""
        folders = sorted(
            (self.folder / "checkpoints").glob("**/checkpoint-*"),
            key=lambda folder: int(folder.name.rpartition("-")[2]),
            reverse=True,
        )
        return next((folder for folder in folders if _intact(folder)), None)

    # Writing, by the owner of the newest attempt

    def claim(self, config: RunConfig, force_before: int | None = None, over: int = 0) -> None:
        """Become the newest attempt; raises AlreadyActive while another one lives, AlreadyFinished where nothing is left.

        `force_before`: whatever attempts up to this number left is set aside and done again.
        `over`: attempts up to this number are known to have ended, also where that cannot be seen
        from here.
        """
        (self.folder / "attempts").mkdir(parents=True, exist_ok=True)
        with self._locked():
            newest = self.newest_attempt() or 0
            if newest > over and self._alive(newest) and not self._superseded(newest):
                raise AlreadyActive(f"run {self.folder.name} is being worked on by attempt {newest}")
            forced = force_before is not None and newest <= force_before
            if self.result() is not None and not forced:
                raise AlreadyFinished(f"run {self.folder.name} is finished")
            self.attempt = newest + 1
            path = self._attempt_path(self.attempt)
            draft = path.with_suffix(".draft")
            draft.write_text(json.dumps(this_process().to_json()))
            draft.rename(path)
            if forced:
                self._set_aside()
            elif (self.folder / "result.json").exists() and self.result() is None:
                (self.folder / "result.json").rename(self.folder / f"result.invalid-{self.attempt}.json")
            self._recorded = {(row["step"], _kind(row["metrics"])) for row in self.metrics()}
            self.write("config.yaml", yaml.safe_dump(to_dict(config), sort_keys=False))

    def release(self) -> None:
        """Give the run up while this process lives on (a notebook, for hours), so that it can be claimed again."""
        assert self.attempt is not None
        self._attempt_path(self.attempt).write_text(json.dumps({"released": time.time()}))

    @property
    def checkpoints(self) -> Path:
        """Where this attempt writes its checkpoints; those of the attempts before it are read from theirs."""
        assert self.attempt is not None
        return self.folder / "checkpoints" / f"attempt-{self.attempt:06d}"

    @property
    def model_draft(self) -> Path:
        """Where this attempt writes the trained model; `finish` publishes it as `model`."""
        assert self.attempt is not None
        return self.folder / f".model.{self.attempt:06d}.draft"

    def beat(self) -> None:
        """Show that the attempt goes on, where it takes long to the next step; raises AttemptLost where it must not."""
        with self._owned() as attempt:
            os.utime(self._attempt_path(attempt))

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add one line to the metrics, unless an earlier attempt already recorded that step before it was cut off."""
        with self._owned() as attempt:
            os.utime(self._attempt_path(attempt))
            if (step, _kind(metrics)) in self._recorded:
                return
            line = json.dumps({"step": step, "time": time.time(), "attempt": attempt, "metrics": dict(metrics)})
            self._append_line("metrics.jsonl", line)

    def append_rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add lines of JSON to a file that is kept for reading only."""
        with self._owned():
            for row in rows:
                self._append_line(name, json.dumps(row))

    def write(self, name: str, text: str) -> None:
        """Write a file whole or not at all."""
        with self._owned() as attempt:
            draft = self.folder / f".{name}.{attempt}.draft"
            try:
                with draft.open("w") as stream:
                    stream.write(text)
                    stream.flush()
                    os.fsync(stream.fileno())
                draft.rename(self.folder / name)
            finally:
                draft.unlink(missing_ok=True)

    def finish(self, result: RunResult) -> None:
        """Publish model and result; the run is finished from here on, and its checkpoints are no longer needed."""
        with self._owned():
            if self.model_draft.is_dir():
                shutil.rmtree(self.folder / "model", ignore_errors=True)
                self.model_draft.rename(self.folder / "model")
            self.write("result.json", json.dumps(asdict(result), indent=1))
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
            for left in self.folder.glob(".model.*.draft"):  # of attempts that were cut off
                shutil.rmtree(left, ignore_errors=True)

    def fail(self, error: BaseException) -> None:
        """Note why this attempt failed; the traceback is in the log."""
        assert self.attempt is not None
        last = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
        cause: Cause = "out_of_memory" if any(sign in last for sign in OUT_OF_MEMORY) else "error"
        self.note_failure(Failure(self.attempt, last, str(self.folder / "log.txt"), cause))

    def note_failure(self, failure: Failure) -> None:
        """Note a failure that the attempt itself could not note (it was killed)."""
        failure.write(self.folder)

    def seal_checkpoint(self, folder: Path) -> None:
        """Mark a checkpoint as complete, with the digest of every file; those of earlier attempts are then of no use."""
        digests = {str(path.relative_to(folder)): digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}
        with self._owned():
            draft = folder / f".{MARKER}.draft"
            draft.write_text(json.dumps(digests))
            draft.rename(folder / MARKER)
            for other in (self.folder / "checkpoints").iterdir():
                if other != self.checkpoints:
                    shutil.rmtree(other, ignore_errors=True)

    def _set_aside(self) -> None:
        kept = self.folder / "earlier" / f"before-attempt-{self.attempt}"
        kept.mkdir(parents=True, exist_ok=True)
        for path in list(self.folder.iterdir()):
            if path.name not in ("attempts", "earlier", "log.txt", "job.json"):
                path.rename(kept / path.name)

    def _attempt_path(self, attempt: int) -> Path:
        return self.folder / "attempts" / f"{attempt:06d}.json"

    def newest_attempt(self) -> int | None:
        """The number of the newest attempt, or None before the first."""
        try:
            names = os.listdir(self.folder / "attempts")
        except MISSING:
            return None
        return max((int(name[:-5]) for name in names if re.fullmatch(r"\d{6,}\.json", name)), default=None)

    def _alive(self, attempt: int) -> bool:
        owner = self._owner(attempt)
        if owner is None or self.failure() is not None:
            return False
        if owner.is_here:
            return owner.is_alive()
        try:
            quiet_seconds = time.time() - self._attempt_path(attempt).stat().st_mtime
        except MISSING:
            return False
        return quiet_seconds < HEARTBEAT_SECONDS

    def _superseded(self, attempt: int) -> bool:
        """Whether the attempt belongs to an earlier start of this very cluster job, which the cluster has given up."""
        owner = self._owner(attempt)
        return owner is not None and owner.job is not None and owner.job.is_earlier_start_of(cluster_job())

    def _owner(self, attempt: int) -> Owner | None:
        try:
            return Owner.parse(json.loads(self._attempt_path(attempt).read_text()))
        except (*MISSING, ValueError):
            return None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody else claims or writes meanwhile."""
        try:
            with self._file_lock:
                yield
        except Timeout as error:
            raise AlreadyActive(f"run {self.folder.name} is locked by a process that does not go on") from error

    @contextmanager
    def _owned(self) -> Iterator[int]:
        """Nobody else writes meanwhile, and the attempt is the newest; raises AttemptLost where it is not."""
        with self._locked():
            if self.attempt is None or self.newest_attempt() != self.attempt:
                raise AttemptLost(f"attempt {self.attempt} of run {self.folder.name} is no longer the newest")
            yield self.attempt

    def _append_line(self, name: str, line: str) -> None:
        with (self.folder / name).open("ab+") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    line = "\n" + line  # the process before this one was killed in the middle of a line
            stream.write(line.encode() + b"\n")


def digest(path: Path) -> str:
    """The BLAKE2b digest of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()


def _intact(folder: Path) -> bool:
    try:
        digests = json.loads((folder / MARKER).read_text())
        return all(digest(folder / name) == value for name, value in digests.items())
    except (OSError, ValueError, AttributeError):
        return False


def _kind(metrics: Mapping[str, float]) -> str:
    """A step has one line of each kind: what training logs, and what evaluation does."""
    return "eval" if any(name.startswith("eval/") for name in metrics) else "train"


def _json(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    whole = (
        isinstance(row, dict)
        and type(row.get("step")) is int
        and isinstance(row.get("time"), int | float)
        and isinstance(row.get("metrics"), dict)
        and all(isinstance(value, int | float) for value in row["metrics"].values())
    )
    return row if whole else None
