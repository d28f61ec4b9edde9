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

from efficient_rl.launch.handle import Handle, settle
from efficient_rl.launch.settings import Supervision, check, is_number
from efficient_rl.launch.worker import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_NOT_MINE, Job, work
from efficient_rl.run import quiet_libraries

EXIT_SERVER_LOST = 255  # multiprocessing's, for a fork of whose end the lost server could not tell
PRELOADED = [
    "efficient_rl.preload",
    "efficient_rl.launch.worker",
]


@dataclass(eq=False)
class LocalHandle(Handle):
    """A job and, while it runs, its process. `exit_code` is None until it ended; minus the signal's number if killed."""

    process: ForkServerProcess | None = None
    slot: int | None = None
    exit_code: int | None = None
    again: bool = False  # it is ended only to be started again


@dataclass
class LocalLauncher(Supervision):
    """Keeps at most `workers` jobs running; None means one a GPU, or without GPUs one a core.

    `in_cluster_job`: where everything dies at once, the cluster knows why, and nothing is noted here.
    """

    workers: int | None = None
    grace_seconds: float = 30
    in_cluster_job: bool = False
    target: Callable[[Job, Mapping[str, str]], None] = work
    detaches = detach = False
    _waiting: deque[LocalHandle] = field(default_factory=deque)
    _running: list[LocalHandle] = field(default_factory=list)
    _context: multiprocessing.context.ForkServerContext | None = None
    _stopping: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = type(self.workers) is int and self.workers >= 1
        check(self.workers is None or whole, "workers", self.workers, "must be a whole number of at least 1, or null")
        seconds = is_number(self.grace_seconds) and self.grace_seconds >= 0
        check(seconds, "grace_seconds", self.grace_seconds, "must be a number of seconds")
        self._gpus = visible_gpus()
        self._slots = self.workers or len(self._gpus) or len(os.sched_getaffinity(0))

    @property
    def gpus_per_run(self) -> float:
        """GPUs that one run occupies."""
        return min(1.0, len(self._gpus) / self._slots)

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
        if not self._running:
            time.sleep(timeout)
        connection.wait([handle.process.sentinel for handle in self._running if handle.process], timeout)
        ended: list[Handle] = []
        for handle in list(self._running):
            assert handle.process is not None
            if handle.process.exitcode is not None:
                handle.exit_code = handle.process.exitcode
                handle.process.close()
                self._running.remove(handle)
                self._settle(handle, ended)
        self._start_waiting()
        return ended

    def _settle(self, handle: LocalHandle, ended: list[Handle]) -> None:
        died = handle.exit_code not in (0, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_NOT_MINE)
        if died and (self._stopping or (self.in_cluster_job and handle.exit_code == EXIT_SERVER_LOST)):
            handle.stage = "stopped"
        else:
            settle(handle, handle.exit_code)
        if handle.again and handle.stage in ("stopped", "failed"):
            handle.stage, handle.again, handle.failure = "waiting", False, None
            self._waiting.append(handle)
        else:
            ended.append(handle)

    def requeue(self, handle: Handle) -> None:
        """Kill the job's process; it starts again from its last checkpoint."""
        assert isinstance(handle, LocalHandle)
        if handle.process is not None and not handle.ended:
            handle.again = True
            handle.process.kill()

    def stop(self) -> None:
        """Drop what waits, ask what runs to write a checkpoint and end, kill what does not."""
        self._waiting.clear()
        self._stopping = True
        for handle in self._running:
            assert handle.process is not None
            handle.process.terminate()
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
            assert handle.process is not None
            handle.process.kill()
            handle.process.join()
        self.poll()

    def _start_waiting(self) -> None:
        while self._waiting and len(self._running) < self._slots:
            self._start(self._waiting.popleft())

    def _start(self, handle: LocalHandle) -> None:
        taken = {running.slot for running in self._running}
        handle.slot = next(slot for slot in range(self._slots) if slot not in taken)
        gpus = self._gpus
        environment = {"CUDA_VISIBLE_DEVICES": gpus[handle.slot % len(gpus)]} if gpus else {}
        handle.process = self._server().Process(target=self.target, args=(handle.job, environment))
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2})
        try:
            # A cluster signals every process of a job. The server must outlive that; a worker unblocks what it listens to.
            handle.process.start()
        except EOFError as error:
            raise RuntimeError(
                "the process that runs are forked from could not load its libraries; "
                "`python -c 'import efficient_rl.preload'` shows why"
            ) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        handle.stage = "running"
        self._running.append(handle)

    def _server(self) -> multiprocessing.context.ForkServerContext:
        if self._context is None:
            quiet_libraries()
            self._context = multiprocessing.get_context("forkserver")
            self._context.set_forkserver_preload(PRELOADED)
        return self._context


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
