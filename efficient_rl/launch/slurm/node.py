"""What runs on a node of the cluster: several runs, one after another or at once, each forked from one warm process."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from efficient_rl.launch.handle import Handle
from efficient_rl.launch.local import Layout, LocalLauncher
from efficient_rl.launch.worker import Job
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.process import SlurmJob, cluster_job

logger = logging.getLogger(__name__)
POLL_SECONDS = 0.5
REQUEUE_SECONDS = 60
EXIT_TERMINATED = 128 + signal.SIGTERM


@dataclass
class NodeJob:
    """The callable that submitit calls: does `jobs`, `at_once` at a time, and hands the node back when the cluster asks.

    A signal only sets a flag, because submitit would otherwise pickle and requeue in the middle of
    anything: the loop below lets every run write its checkpoint first, then lets submitit's own
    handler requeue the job.
    """

    jobs: list[Job]
    at_once: int
    grace_seconds: float
    processes_per_run: int = 1

    def __call__(self) -> dict[str, int]:
        """Do the jobs; how many ended in which way."""
        asked = _Asked()
        launcher = self._launcher()
        handles = launcher.launch([job for job in self.jobs if not _failed_here(job)])
        while not all(handle.ended for handle in handles):
            for handle in launcher.poll(POLL_SECONDS):
                logger.warning("%s %s", handle.job.key, handle.stage)
                if handle.stage == "elsewhere" and _given_up(handle):
                    launcher.stop()
                    sys.exit("a later start of this job has taken over")
            if asked.to_end:
                launcher.stop()
                asked.obey(all(handle.stage == "finished" for handle in handles))
        return {stage: sum(handle.stage == stage for handle in handles) for stage in {handle.stage for handle in handles}}

    def _launcher(self) -> LocalLauncher:
        nodes, node = int(os.environ.get("SLURM_NNODES", "1")), int(os.environ.get("SLURM_NODEID", "0"))
        here = self.processes_per_run // nodes
        job = cluster_job() or SlurmJob("none", 0, "")
        address = os.environ.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1") if nodes > 1 else "127.0.0.1"
        layout = Layout(node * here, self.processes_per_run, address, f"{job.id}-{job.restart}")
        return LocalLauncher(
            workers=self.at_once,
            grace_seconds=self.grace_seconds,
            processes_per_run=here,
            in_cluster_job=True,
            layout=layout,
        )

    def checkpoint(self) -> Any:
        """What submitit shall start after a requeue: the same; every run goes on from its own directory."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class _Asked:
    """SIGUSR2 (preemption, or a time limit ahead) and SIGTERM (the end), noted for the loop to act upon."""

    def __init__(self) -> None:
        self._requeue: Callable[[int, FrameType | None], Any] | None = None
        handler = signal.getsignal(signal.SIGUSR2)
        self._submitit = handler if callable(handler) else None
        self._signals: list[int] = []
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, self._note)

    @property
    def to_end(self) -> bool:
        """Whether a signal came."""
        return bool(self._signals)

    def obey(self, finished: bool) -> None:
        """Requeue the job if it was asked to make room; end it."""
        if finished:
            return
        if signal.SIGUSR2 in self._signals and self._submitit is not None:
            self._submitit(signal.SIGUSR2, None)  # returns only on the nodes beside the first, which requeues and ends them
            time.sleep(REQUEUE_SECONDS)
        sys.exit(EXIT_TERMINATED)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)


def _given_up(handle: Handle) -> bool:
    """Whether the run now belongs to a later start of this very job: the cluster has taken this node for dead."""
    now = cluster_job()
    return now is not None and now.is_earlier_start_of(_owner(handle.job))


def _failed_here(job: Job) -> bool:
    """Whether an earlier start of this very job did the run and it failed by itself: trying again would fail again."""
    now, owner = cluster_job(), _owner(job)
    return bool(now and owner and owner.id == now.id and RunDirectory(Path(job.folder)).failure() is not None)


def _owner(job: Job) -> SlurmJob | None:
    owner = RunDirectory(Path(job.folder)).owner()
    return owner.job if owner else None
