"""Runs jobs on this machine, a slot each, in processes that are forked from a warm server."""

import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection

from efficient_rl.distributed.rendezvous import distributed_environment
from efficient_rl.errors import require
from efficient_rl.launch.base import Handle, check_processes, settle
from efficient_rl.launch.cgroups import oom_kills
from efficient_rl.launch.gpus import visible_names
from efficient_rl.launch.processes import EXIT_SERVER_LOST, REPORTED, RunProcesses, Target
from efficient_rl.launch.worker import Job, work
from efficient_rl.rundir.state import RunState


@dataclass(eq=False)
class LocalHandle(Handle):
    """A job with its processes; `exit_code` is minus a signal's number, None while it runs."""

    processes: RunProcesses = field(default_factory=lambda: RunProcesses([]))
    slot: int | None = None
    exit_code: int | None = None
    restarts: int = 0
    restarting: bool = False  # it was killed to be started again
    given_up: str | None = None  # why it was killed for good
    kill_at: float | None = None  # it was asked to end; its grace period ends here


@dataclass(frozen=True)
class NodeRanks:
    """The ranks of a run on this machine: the first, the total number, and the rendezvous."""

    first_rank: int
    world_size: int
    address: str
    key: str


@dataclass
class LocalLauncher:
    """Keeps at most `workers` jobs running, each of `processes_per_run` processes.

    `workers` None: as many as there are GPUs for, or without GPUs cores. `in_cluster_job`: if the
    fork server dies, the cluster ended the job and knows why, so no failure is recorded here.
    `ranks`: set where other machines train each run too.
    """

    workers: int | None = None
    grace_seconds: float = 30
    processes_per_run: int = 1
    sharding: str = "ddp"
    in_cluster_job: bool = False
    ranks: NodeRanks | None = None
    target: Target = work
    detaches = detach = False

    def __post_init__(self) -> None:
        whole = type(self.workers) is int and self.workers >= 1
        bound = "must be a whole number of at least 1, or null"
        require(self.workers is None or whole, "launcher.workers", self.workers, bound)
        seconds = type(self.grace_seconds) in (int, float) and self.grace_seconds >= 0
        require(seconds, "launcher.grace_seconds", self.grace_seconds, "must be a number of seconds")
        check_processes(self.processes_per_run, self.sharding)
        self._gpus = visible_names()
        places = len(self._gpus) or len(os.sched_getaffinity(0))
        self._slots = self.workers or max(1, places // self.processes_per_run)
        self._waiting: deque[LocalHandle] = deque()
        self._running: list[LocalHandle] = []
        self._dropped: list[LocalHandle] = []
        self._stopping = False
        self._started = 0
        self._oom_kills = 0  # how many kills of the kernel's counter have been attributed to a run

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def gpus_per_run(self) -> float:
        return min(float(self.processes_per_run), len(self._gpus) / self._slots)

    def launch(self, jobs: Sequence[Job]) -> list[Handle]:
        """Queue the jobs; `poll` starts them as slots become free."""
        handles = [LocalHandle(job) for job in jobs]
        self._waiting.extend(handles)
        self.poll()
        return list(handles)

    def attach(self, jobs: Sequence[Job]) -> list[Handle]:
        """None: local jobs end with the process that launched them."""
        return []

    def poll(self, timeout: float = 0) -> list[Handle]:
        """Start what can start, wait up to `timeout` seconds; the handles whose jobs ended."""
        self._start_waiting()
        self._kill_overdue()
        if not self._running:
            time.sleep(timeout)
        alive = [process.sentinel for handle in self._running for process in handle.processes.alive]
        connection.wait(alive, timeout)
        ended: list[Handle] = [*self._dropped]
        self._dropped.clear()
        for handle in list(self._running):
            handle.exit_code = handle.processes.poll()
            if handle.exit_code is not None:
                handle.processes.close()
                self._running.remove(handle)
                if not self._settle(handle):
                    ended.append(handle)
        self._start_waiting()
        return ended

    def requeue(self, handle: Handle, why: str) -> bool:
        """Kill the job; it restarts from its last checkpoint, at most `Job.retries` times."""
        assert isinstance(handle, LocalHandle)
        if handle.state is not RunState.RUNNING:
            return False
        handle.restarting = handle.restarts < handle.job.retries
        if not handle.restarting:
            handle.given_up = f"{why} (after {handle.restarts} more tries)"
        handle.restarts += 1
        handle.processes.kill()
        return handle.restarting

    def cancel(self, handle: Handle) -> None:
        """Drop a waiting job; ask a running one to checkpoint and end in `grace_seconds`."""
        assert isinstance(handle, LocalHandle)
        if handle in self._waiting:
            self._waiting.remove(handle)
            handle.state = RunState.STOPPED
            self._dropped.append(handle)
        elif handle in self._running and handle.kill_at is None:
            handle.restarting = False
            handle.kill_at = time.monotonic() + self.grace_seconds
            handle.processes.terminate()

    def stop(self) -> None:
        """Drop the waiting jobs; let the running ones checkpoint and end, or kill them."""
        self._waiting.clear()
        self._stopping = True
        for handle in self._running:
            handle.processes.terminate()
        deadline = time.monotonic() + self.grace_seconds
        try:
            while self._running and time.monotonic() < deadline:
                self.poll(timeout=0.1)
        finally:  # also after a second Ctrl-C
            self.kill()
            self._stopping = False

    leave = stop  # no job outlives this process

    def kill(self) -> None:
        for handle in self._running:
            handle.processes.kill()
            handle.processes.join()
        self.poll()

    def _start_waiting(self) -> None:
        while self._waiting and len(self._running) < self._slots:
            self._start(self._waiting.popleft())

    def _start(self, handle: LocalHandle) -> None:
        if not self._running:
            self._oom_kills = oom_kills() or 0
        free = set(range(self._slots)) - {running.slot for running in self._running}
        handle.slot = min(free)
        self._started += 1
        handle.processes = RunProcesses.start(self.target, handle.job, self._environments(handle))
        handle.state = RunState.RUNNING
        self._running.append(handle)

    def _environments(self, handle: LocalHandle) -> Iterator[dict[str, str]]:
        """For each process of a run: the GPUs of its slot, and how it finds the others."""
        size = self.processes_per_run
        ranks = self.ranks or NodeRanks(0, size, "127.0.0.1", str(os.getpid()))
        environment: dict[str, str] = {}
        if self._gpus:
            assert handle.slot is not None
            first = handle.slot * size
            own = [self._gpus[(first + index) % len(self._gpus)] for index in range(min(size, len(self._gpus)))]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(own)
        key = f"{ranks.key}-{handle.job.key}-{self._started}"
        for index in range(size):
            if ranks.world_size > 1:
                rank = ranks.first_rank + index
                environment |= distributed_environment(rank, ranks.world_size, index, size, ranks.address, key)
            yield dict(environment)

    def _kill_overdue(self) -> None:
        for handle in self._running:
            if handle.kill_at is not None and time.monotonic() > handle.kill_at:
                handle.processes.kill()

    def _settle(self, handle: LocalHandle) -> bool:
        """Set how an ended job ended; whether it starts again."""
        died = handle.exit_code not in REPORTED
        ended_here = died and (self._stopping or (self.in_cluster_job and handle.exit_code == EXIT_SERVER_LOST))
        if ended_here or (handle.kill_at is not None and handle.job.directory.result() is None):
            handle.state = RunState.STOPPED  # if it was killed, with an older checkpoint
        else:
            settle(handle, handle.exit_code, self._was_oom_killed(handle.exit_code), handle.given_up)
        again = handle.restarting and handle.state in (RunState.STOPPED, RunState.FAILED)
        if again:
            handle.state, handle.restarting, handle.failure = RunState.WAITING, False, None
            self._waiting.append(handle)
        return again

    def _was_oom_killed(self, exit_code: int | None) -> bool:
        """Whether the kernel counts an out-of-memory kill that no other run explains."""
        if exit_code != -signal.SIGKILL or (oom_kills() or 0) <= self._oom_kills:
            return False
        self._oom_kills += 1
        return True
