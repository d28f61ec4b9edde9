"""One attempt at a run: writes everything, under a lock, while it is the newest attempt."""

import functools
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
from typing import Any, Self

from filelock import FileLock, Timeout

from efficient_rl.files import write_atomic
from efficient_rl.rundir.checkpoints import file_digests, seal
from efficient_rl.rundir.metric_lines import METRICS_FILE, append_line, kind, read_metrics
from efficient_rl.rundir.result import MISSING, Cause, Failure, RunResult

LOCK_SECONDS = 60.0
ATTEMPT_FILE = re.compile(r"(\d{6,})\.json")
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "MemoryError")


class AttemptLost(RuntimeError):
    """A newer attempt owns the run directory; this one must stop and write nothing more."""


class AlreadyActive(RuntimeError):
    """Another live process works on the run."""


class AlreadyFinished(RuntimeError):
    """The run has its result; there is nothing to do."""


class Attempt:
    """Attempt `number` at the run in `folder`; a context that releases the run.

    A write raises AttemptLost where a newer attempt exists: a process that was taken for dead and
    comes back cannot overwrite its successor. What takes longer to write than a lock should be held
    (checkpoints, the model) goes to a folder of the attempt's own and is published under the lock.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = folder
        self.number = number

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def checkpoints(self) -> Path:
        """Where this attempt writes its checkpoints; every attempt has a folder of its own."""
        return self.folder / "checkpoints" / f"attempt-{self.number:06d}"

    @property
    def model_draft(self) -> Path:
        """Where this attempt writes the trained model; `finish` publishes it as `model`."""
        return self.folder / f".model.{self.number:06d}.draft"

    def heartbeat(self) -> None:
        """Show, between steps, that the attempt is alive; raises AttemptLost where it must stop."""
        with self._fenced():
            os.utime(attempt_path(self.folder, self.number))

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add one line to the metrics, unless an earlier attempt had recorded that step."""
        with self._fenced():
            os.utime(attempt_path(self.folder, self.number))
            if (step, kind(metrics)) not in self._recorded_before:
                row = {"step": step, "time": time.time(), "attempt": self.number}
                append_line(self.folder / METRICS_FILE, row | {"metrics": dict(metrics)})

    def append_rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add lines of JSON to a file that is kept for reading only."""
        with self._fenced():
            for row in rows:
                append_line(self.folder / name, row)

    def write(self, name: str, text: str) -> None:
        """Write a file whole or not at all."""
        with self._fenced():
            write_atomic(self.folder / name, text, durable=True)

    def seal_checkpoint(self, folder: Path) -> None:
        """Mark a checkpoint as complete, with its digests; remove those of earlier attempts."""
        digests = file_digests(folder)  # before the lock: a checkpoint may be large
        with self._fenced():
            seal(folder, digests)
            for other in (self.folder / "checkpoints").iterdir():
                if other != self.checkpoints:
                    shutil.rmtree(other, ignore_errors=True)

    def finish(self, result: RunResult) -> None:
        """Publish model and result, which finishes the run, and remove its checkpoints."""
        with self._fenced():
            if self.model_draft.is_dir():
                shutil.rmtree(self.folder / "model", ignore_errors=True)
                self.model_draft.rename(self.folder / "model")
            text = json.dumps(asdict(result), indent=1)
            write_atomic(self.folder / "result.json", text, durable=True)
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
            for left in self.folder.glob(".model.*.draft"):  # of attempts that were cut off
                shutil.rmtree(left, ignore_errors=True)

    def fail(self, error: BaseException) -> None:
        """Record why this attempt failed; the traceback is in the log."""
        last = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
        cause: Cause = "out_of_memory" if any(sign in last for sign in OUT_OF_MEMORY) else "error"
        Failure(self.number, last, str(self.folder / "log.txt"), cause).write(self.folder)

    def release(self) -> None:
        """Release the run while this process continues (a notebook); it can be claimed again."""
        attempt_path(self.folder, self.number).write_text(json.dumps({"released": time.time()}))

    @functools.cached_property
    def _recorded_before(self) -> set[tuple[int, str]]:
        return {(row["step"], kind(row["metrics"])) for row in read_metrics(self.folder)}

    @contextmanager
    def _fenced(self) -> Iterator[None]:
        with locked(self.folder):
            if newest_attempt(self.folder) != self.number:
                name = f"attempt {self.number} of run {self.folder.name}"
                raise AttemptLost(f"{name} is no longer the newest")
            yield


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run directory, under which attempts are claimed and write."""
    try:
        with FileLock(folder / "attempts" / "lock", timeout=LOCK_SECONDS):
            yield
    except Timeout as error:
        raise AlreadyActive(f"another process holds the lock of run {folder.name}") from error


def attempt_path(folder: Path, number: int) -> Path:
    """The file that is the attempt: its content is the owner, its mtime the last heartbeat."""
    return folder / "attempts" / f"{number:06d}.json"


def newest_attempt(folder: Path) -> int | None:
    """The number of the newest attempt at the run, None before the first."""
    try:
        names = os.listdir(folder / "attempts")
    except MISSING:
        return None
    matches = filter(None, map(ATTEMPT_FILE.fullmatch, names))
    return max((int(match[1]) for match in matches), default=None)
