"""Runs jobs on this machine: each is forked from a server that has the heavy libraries loaded and computes nothing."""

import multiprocessing
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from efficient_rl.distributed.rendezvous import distributed_environment
from efficient_rl.launch.cgroups import oom_kills
from efficient_rl.launch.handle import Handle, settle
from efficient_rl.launch.settings import Supervision, check, check_processes, is_number
from efficient_rl.launch.worker import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_NOT_MINE, Job, work
from efficient_rl.libraries import quiet_libraries
from efficient_rl.rundir.directory import RunDirectory

EXIT_SERVER_LOST = 255  # multiprocessing's, for a fork of whose end the lost server could not tell
TELLING = (0, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_NOT_MINE)
GROUP_SECONDS = 60.0  # for the others of a run to note why they end
PRELOADED = [
    "efficient_rl.launch.forkserver_preload",
    "efficient_rl.launch.worker",
]


@dataclass(eq=False)
class LocalHandle(Handle):
    """A job and, while it runs, its processes. `exit_code` is None until it ended; minus the signal's number if killed."""

    processes: list[ForkServerProcess] = field(default_factory=list)
    slot: int | None = None
    exit_code: int | None = None
    again: bool = False  # it is ended only to be started again
    restarts: int = 0  # how often that was
    given_up: str | None = None  # why it was ended for good
    broken_since: float | None = None  # when the first of several processes ended badly
    kill_at: float | None = None  # when it was asked to end, and how long it may take


@dataclass(frozen=True)
class Layout:
    """This machine's place among several that train a run together: its first rank, how many there are, where they meet."""

    first_rank: int
    world_size: int
    address: str
    key: str


@dataclass
class LocalLauncher(Supervision):
    """Keeps at most `workers` jobs running, each of `processes_per_run` processes.

    `workers` None means as many as there are GPUs for, or without GPUs cores. `in_cluster_job`:
    where everything dies at once, the cluster knows why, and nothing is noted here. `layout`: where
    other machines train each run too.
    """

    workers: int | None = None
    grace_seconds: float = 30
    processes_per_run: int = 1
    sharding: str = "ddp"
    in_cluster_job: bool = False
    layout: Layout | None = None
    target: Callable[[Job, Mapping[str, str]], None] = work
    detaches = detach = False
    _waiting: deque[LocalHandle] = field(default_factory=deque)
    _running: list[LocalHandle] = field(default_factory=list)
    _dropped: list[LocalHandle] = field(default_factory=list)
    _context: multiprocessing.context.ForkServerContext | None = None
    _stopping: bool = False
    _started: int = 0
    _oom_kills: int = 0  # of these every run was told, or they are older

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = type(self.workers) is int and self.workers >= 1
        check(self.workers is None or whole, "workers", self.workers, "must be a whole number of at least 1, or null")
        seconds = is_number(self.grace_seconds) and self.grace_seconds >= 0
        check(seconds, "grace_seconds", self.grace_seconds, "must be a number of seconds")
        check_processes(self.processes_per_run, self.sharding)
        self._gpus = visible_gpus()
        places = len(self._gpus) or len(os.sched_getaffinity(0))
        self._slots = self.workers or max(1, places // self.processes_per_run)

    @property
    def slots(self) -> int:
        """Runs at once."""
        return self._slots

    @property
    def gpus_per_run(self) -> float:
        """GPUs that one run occupies."""
        return min(float(self.processes_per_run), len(self._gpus) / self._slots)

    def launch(self, jobs: Sequence[Job]) -> list[Handle]:
        """Queue the jobs; they start as slots are free, whenever `poll` is called."""
        handles = [LocalHandle(job) for job in jobs]
        self._waiting.extend(handles)
        self.poll()
        return list(handles)

    def attach(self, jobs: Sequence[Job]) -> list[Handle]:
        """None: local jobs end with the process that launched them."""
        return []

    def poll(self, timeout: float = 0) -> list[Handle]:
        """Start what can start and wait up to `timeout` seconds for one to end; the handles that ended since."""
        self._start_waiting()
        self._kill_overdue()
        if not self._running:
            time.sleep(timeout)
        connection.wait([process.sentinel for handle in self._running for process in _alive(handle)], timeout)
        ended: list[Handle] = [*self._dropped]
        self._dropped.clear()
        for handle in list(self._running):
            codes = [process.exitcode for process in handle.processes]
            if all(code is not None for code in codes):
                handle.exit_code = _group_code([code for code in codes if code is not None])
                for process in handle.processes:
                    process.close()
                self._running.remove(handle)
                self._settle(handle, ended)
            elif any(codes):
                self._end_broken(handle)
        self._start_waiting()
        return ended

    def _end_broken(self, handle: LocalHandle) -> None:
        """Kill what is left of a group one process of which ended badly, once it had time to end and say why by itself."""
        now = time.monotonic()
        handle.broken_since = handle.broken_since or now
        if now - handle.broken_since > GROUP_SECONDS:
            for process in _alive(handle):
                process.kill()

    def _settle(self, handle: LocalHandle, ended: list[Handle]) -> None:
        died = handle.exit_code not in TELLING
        ended_here = died and (self._stopping or (self.in_cluster_job and handle.exit_code == EXIT_SERVER_LOST))
        if ended_here or (handle.kill_at is not None and RunDirectory(Path(handle.job.folder)).result() is None):
            handle.stage = "stopped"  # also where it had to be killed: its last checkpoint is older then
        else:
            settle(handle, handle.exit_code, self._ended_by_kernel(handle.exit_code), handle.given_up)
        if handle.again and handle.stage in ("stopped", "failed"):
            handle.stage, handle.again, handle.failure = "waiting", False, None
            self._waiting.append(handle)
        else:
            ended.append(handle)

    def _ended_by_kernel(self, exit_code: int | None) -> bool:
        """Whether the kernel killed the process for lack of memory: its counter has a kill that no other run was told of."""
        if exit_code != -signal.SIGKILL or (kills := oom_kills()) is None or kills <= self._oom_kills:
            return False
        self._oom_kills += 1
        return True

    def requeue(self, handle: Handle, why: str) -> bool:
        """Kill the job's processes; it starts again from its last checkpoint, at most `retries` times."""
        assert isinstance(handle, LocalHandle)
        if handle.stage != "running":
            return False
        handle.again = handle.restarts < self.retries
        handle.given_up = None if handle.again else f"{why} (after {handle.restarts} more tries)"
        handle.restarts += 1
        for process in _alive(handle):
            process.kill()
        return handle.again

    def cancel(self, handle: Handle) -> None:
        """Drop the job if it waits, else ask it to write a checkpoint and end; it is killed if it does not."""
        assert isinstance(handle, LocalHandle)
        if handle in self._waiting:
            self._waiting.remove(handle)
            handle.stage = "stopped"
            self._dropped.append(handle)
        elif handle in self._running and handle.kill_at is None:
            handle.again = False
            handle.kill_at = time.monotonic() + self.grace_seconds
            for process in _alive(handle):
                process.terminate()

    def _kill_overdue(self) -> None:
        for handle in self._running:
            if handle.kill_at is not None and time.monotonic() > handle.kill_at:
                for process in _alive(handle):
                    process.kill()

    def stop(self) -> None:
        """Drop what waits, ask what runs to write a checkpoint and end, kill what does not."""
        self._waiting.clear()
        self._stopping = True
        for handle in self._running:
            for process in _alive(handle):
                process.terminate()
        deadline = time.monotonic() + self.grace_seconds
        while self._running and time.monotonic() < deadline:
            self.poll(timeout=0.1)
        self.kill()
        self._stopping = False

    def leave(self) -> None:
        """The same as `stop`: nothing goes on without this process."""
        self.stop()

    def kill(self) -> None:
        """End at once whatever still runs."""
        for handle in self._running:
            for process in _alive(handle):
                process.kill()
                process.join()
        self.poll()

    def _start_waiting(self) -> None:
        while self._waiting and len(self._running) < self._slots:
            self._start(self._waiting.popleft())

    def _start(self, handle: LocalHandle) -> None:
        if not self._running:
            self._oom_kills = oom_kills() or 0
        taken = {running.slot for running in self._running}
        handle.slot = next(slot for slot in range(self._slots) if slot not in taken)
        self._started += 1
        handle.processes, handle.broken_since = [], None
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2})
        try:
            # A cluster signals every process of a job. The server must outlive that; a worker unblocks what it listens to.
            for index in range(self.processes_per_run):
                environment = self._gpu_environment(handle.slot) | self._group_environment(handle, index)
                process = self._server().Process(target=self.target, args=(handle.job, environment))
                process.start()
                handle.processes.append(process)
        except EOFError as error:
            raise RuntimeError(
                "the process that runs are forked from could not load its libraries; "
                "`python -c 'import efficient_rl.launch.forkserver_preload'` shows why"
            ) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        handle.stage = "running"
        self._running.append(handle)

    def _gpu_environment(self, slot: int) -> dict[str, str]:
        """The GPUs of a slot: one for each process of its run."""
        if not self._gpus:
            return {}
        first, count = slot * self.processes_per_run, len(self._gpus)
        own = [self._gpus[(first + index) % count] for index in range(min(self.processes_per_run, count))]
        return {"CUDA_VISIBLE_DEVICES": ",".join(own)}

    def _group_environment(self, handle: LocalHandle, index: int) -> dict[str, str]:
        """What the processes of a run must know of each other; nothing for one alone."""
        size = self.processes_per_run
        layout = self.layout or Layout(0, size, "127.0.0.1", str(os.getpid()))
        if layout.world_size == 1:
            return {}
        key = f"{layout.key}-{handle.job.key}-{self._started}"
        return distributed_environment(layout.first_rank + index, layout.world_size, index, size, layout.address, key)

    def _server(self) -> multiprocessing.context.ForkServerContext:
        if self._context is None:
            quiet_libraries()
            self._context = multiprocessing.get_context("forkserver")
            self._context.set_forkserver_preload(PRELOADED)
        return self._context


def _alive(handle: LocalHandle) -> list[ForkServerProcess]:
    return [process for process in handle.processes if process.exitcode is None]


def _group_code(codes: Sequence[int]) -> int:
    """The exit code of several processes together: a death without a word if there was one, else the first one's."""
    silent = [code for code in codes if code not in TELLING]
    return next(iter(silent), codes[0] or next((code for code in codes if code), 0))


def visible_gpus() -> list[str]:
    """The names by which CUDA_VISIBLE_DEVICES calls the GPUs that this process may use, found without loading torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    return [str(index) for index, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]
