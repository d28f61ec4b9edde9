"""The entry point of a cluster job: its runs, each forked from one warm process."""

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from efficient_rl.launch.base import Handle
from efficient_rl.launch.local import LocalLauncher, NodeRanks
from efficient_rl.launch.slurm.retries import EXIT_RUN_FAILED
from efficient_rl.launch.worker import EXIT_DISK_FULL, Job
from efficient_rl.rundir.process import SlurmJob, cluster_job
from efficient_rl.rundir.state import RunState

logger = logging.getLogger(__name__)
POLL_SECONDS = 0.5
REQUEUE_SECONDS = 60
NO_SPACE = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT)))
EXIT_TERMINATED = 128 + signal.SIGTERM


@dataclass
class NodeJob:
    """The callable that submitit runs: does `jobs`, `at_once` at a time.

    A signal only sets a flag, because submitit's own handler would pickle and requeue at once. The
    loop first lets every run write its checkpoint, then calls that handler to requeue the job.
    """

    jobs: list[Job]
    at_once: int
    grace_seconds: float
    processes_per_run: int = 1

    def __call__(self) -> dict[str, int]:
        """Do the jobs; how many ended in which state. Exits with a status where one failed."""
        received = _Signals()
        launcher = self._launcher()
        jobs = [job for job in self.jobs if not _failed_here(job)]
        handles = launcher.launch(jobs)
        while not all(handle.state.ended for handle in handles):
            for handle in launcher.poll(POLL_SECONDS):
                logger.warning("%s %s", handle.job.key, _outcome(handle))
                if handle.state is RunState.ELSEWHERE and _superseded(handle.job):
                    launcher.stop()
                    sys.exit("a later start of this job has taken over")
            if received:
                launcher.stop()
                if not all(handle.state is RunState.FINISHED for handle in handles):
                    received.handle_signals()
        if status := _exit_status(handles, failed_before=len(jobs) < len(self.jobs)):
            sys.exit(status)
        return dict(Counter(str(handle.state) for handle in handles))

    def _launcher(self) -> LocalLauncher:
        nodes, node = int(os.environ.get("SLURM_NNODES", "1")), int(os.environ.get("SLURM_NODEID", "0"))
        here = self.processes_per_run // nodes
        job = cluster_job() or SlurmJob("none", 0, "")
        address = "127.0.0.1"
        if nodes > 1:
            address = os.environ.get("SLURM_LAUNCH_NODE_IPADDR", address)
        key = f"{job.id}-{job.restart}"
        return LocalLauncher(
            workers=self.at_once,
            grace_seconds=self.grace_seconds,
            processes_per_run=here,
            in_cluster_job=True,
            ranks=NodeRanks(node * here, self.processes_per_run, address, key),
        )

    def checkpoint(self) -> Any:
        """What submitit starts after a requeue: the same; every run resumes by itself."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class _Signals:
    """Records SIGUSR2 (preemption, time limit ahead) and SIGTERM (the end) for the loop."""

    def __init__(self) -> None:
        handler = signal.getsignal(signal.SIGUSR2)
        self._requeue: Callable[[int, FrameType | None], Any] | None = handler if callable(handler) else None
        self._received: list[int] = []
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, self._record)

    def __bool__(self) -> bool:
        return bool(self._received)

    def handle_signals(self) -> None:
        """Have submitit requeue the job if it must make room; exit."""
        if signal.SIGUSR2 in self._received and self._requeue is not None:
            try:
                self._requeue(signal.SIGUSR2, None)  # exits, or on other nodes than the first returns
                time.sleep(REQUEUE_SECONDS)  # until the first node's requeue ends this one too
            except (OSError, subprocess.SubprocessError) as error:  # who watches submits it again
                logger.warning("the job could not be requeued: %s", error)
        sys.exit(EXIT_TERMINATED)

    def _record(self, number: int, frame: FrameType | None) -> None:
        self._received.append(number)


def _outcome(handle: Handle) -> str:
    return f"{handle.state} ({handle.failure.error})" if handle.failure else str(handle.state)


def _exit_status(handles: Sequence[Handle], failed_before: bool) -> int:
    """0 unless a run failed; it tells of a full disk, about which nothing can be written."""
    errors = [handle.failure.error for handle in handles if handle.failure]
    if any(words in error for error in errors for words in NO_SPACE):
        return EXIT_DISK_FULL
    failed = failed_before or any(handle.state is RunState.FAILED for handle in handles)
    return EXIT_RUN_FAILED if failed else 0


def _superseded(job: Job) -> bool:
    """Whether the run belongs to a later start of this very job: Slurm took this node for dead."""
    now, owner = cluster_job(), job.directory.owner()
    return now is not None and owner is not None and now.is_earlier_start_of(owner.job)


def _failed_here(job: Job) -> bool:
    """Whether the run failed in an earlier start of this very job, so that it would fail again."""
    now, owner = cluster_job(), job.directory.owner()
    if now is None or owner is None or owner.job_id != now.id:
        return False
    return job.directory.failure() is not None
