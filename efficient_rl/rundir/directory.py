"""The directory of one run, `outputs/runs/<config_hash>`: what it holds, and who may work on it.

The directory is the truth: a run is finished when its `result.json` is valid, and only then. The
owner of the newest attempt works on it; an attempt is alive while its process is.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efficient_rl.files import write_atomic
from efficient_rl.rundir.attempt import (
    AlreadyActive,
    AlreadyFinished,
    Attempt,
    attempt_path,
    locked,
    newest_attempt,
)
from efficient_rl.rundir.checkpoints import newest_checkpoint
from efficient_rl.rundir.metric_lines import read_metrics
from efficient_rl.rundir.process import Owner, cluster_job, this_process
from efficient_rl.rundir.result import MISSING, Failure, RunResult
from efficient_rl.rundir.state import RunState

if TYPE_CHECKING:
    from efficient_rl.config.run_config import RunConfig

HEARTBEAT_SECONDS = 900.0  # an attempt on another machine without a heartbeat for so long is dead
KEPT_BY_ARCHIVE = ("attempts", "earlier", "log.txt", "job.json")


class RunDirectory:
    """Reads the directory of one run; `claim` starts an attempt, which writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def result(self) -> RunResult | None:
        """The result, or None where there is no valid one."""
        return RunResult.read(self.folder)

    def state(self) -> RunState:
        """Finished, running, failed or waiting."""
        if self.result() is not None:
            return RunState.FINISHED
        newest = self.newest_attempt()
        if newest and self._is_alive(newest):
            return RunState.RUNNING
        return RunState.FAILED if self.failure() is not None else RunState.WAITING

    def failure(self) -> Failure | None:
        """Why the newest attempt failed, or None where it did not."""
        failure = Failure.read(self.folder)
        return failure if failure and failure.attempt == (self.newest_attempt() or 0) else None

    def record_failure(self, failure: Failure) -> None:
        """Record a failure that the attempt itself could not record (it was killed)."""
        failure.write(self.folder)

    def metrics(self, start: int = 0) -> Iterator[dict[str, Any]]:
        """The metric lines from byte `start` on; see `read_metrics`."""
        return read_metrics(self.folder, start)

    def newest_attempt(self) -> int | None:
        """The number of the newest attempt, None before the first."""
        return newest_attempt(self.folder)

    def owner(self) -> Owner | None:
        """The process of the newest attempt; None without one, after a release, or if damaged."""
        newest = self.newest_attempt()
        return self._owner(newest) if newest else None

    def last_heartbeat(self) -> float | None:
        """When the newest attempt was claimed or last showed a step, in Unix seconds."""
        newest = self.newest_attempt()
        return self._heartbeat(newest) if newest else None

    def checkpoint(self) -> Path | None:
        """The newest checkpoint whose files are what was written; damaged ones are passed over."""
        return newest_checkpoint(self.folder)

    def claim(
        self,
        config: "RunConfig",
        redo_through_attempt: int | None = None,
        ended_attempts: int = 0,
    ) -> Attempt:
        """Start an attempt; AlreadyActive while another lives, AlreadyFinished with a result.

        `redo_through_attempt`: what attempts up to this number left is archived and done again.
        `ended_attempts`: attempts up to this number are known to have ended, also where that cannot
        be seen from here.
        """
        (self.folder / "attempts").mkdir(parents=True, exist_ok=True)
        with locked(self.folder):
            newest = self.newest_attempt() or 0
            # A requeued Slurm job may start while its first start still runs on a node that Slurm
            # has lost: the later start is the owner, whatever the earlier one's heartbeat says.
            if newest > ended_attempts and self._is_alive(newest) and not self._superseded(newest):
                raise AlreadyActive(f"attempt {newest} works on run {self.folder.name}")
            redo = redo_through_attempt is not None and newest <= redo_through_attempt
            finished = self.result() is not None
            if finished and not redo:
                raise AlreadyFinished(f"run {self.folder.name} is finished")
            number = newest + 1
            # This file fences the older attempt off, so it comes before anything of it is moved.
            write_atomic(attempt_path(self.folder, number), this_process().to_json())
            if redo:
                self._archive(number)
            elif not finished and (self.folder / "result.json").exists():
                (self.folder / "result.json").rename(self.folder / f"result.invalid-{number}.json")
            write_atomic(self.folder / "config.yaml", config.to_yaml(), durable=True)
        return Attempt(self.folder, number)

    def _archive(self, number: int) -> None:
        kept = self.folder / "earlier" / f"before-attempt-{number}"
        kept.mkdir(parents=True, exist_ok=True)
        for path in list(self.folder.iterdir()):
            if path.name not in KEPT_BY_ARCHIVE:
                path.rename(kept / path.name)

    def _is_alive(self, number: int) -> bool:
        owner = self._owner(number)
        if owner is None or self.failure() is not None:
            return False
        if owner.is_here:
            return owner.is_alive()
        # Of another machine's process only its heartbeat can be seen.
        return time.time() - (self._heartbeat(number) or 0.0) < HEARTBEAT_SECONDS

    def _superseded(self, number: int) -> bool:
        """Whether the attempt is of an earlier start of this Slurm job, which Slurm gave up."""
        owner = self._owner(number)
        job = owner.job if owner else None
        return job is not None and job.is_earlier_start_of(cluster_job())

    def _owner(self, number: int) -> Owner | None:
        try:
            return Owner.parse(attempt_path(self.folder, number).read_text())
        except (*MISSING, UnicodeDecodeError):
            return None

    def _heartbeat(self, number: int) -> float | None:
        try:
            return attempt_path(self.folder, number).stat().st_mtime
        except MISSING:
            return None
