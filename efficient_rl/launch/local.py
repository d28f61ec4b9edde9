"""Runs jobs on this machine: each is forked from a server that has the heavy libraries loaded and computes nothing."""

import multiprocessing
import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.context import ForkServerProcess

from efficient_rl.launch.worker import Job, work
from efficient_rl.run import quiet_libraries

PRELOADED = [
    "efficient_rl.preload",
    "efficient_rl.launch.worker",
]


@dataclass
class Handle:
    """A job and, once it runs, its process. `exit_code` is None until it ended; minus the signal's number if killed."""

    job: Job
    process: ForkServerProcess | None = None
    slot: int | None = None
    exit_code: int | None = None

    def done(self) -> bool:
        """Whether the job ended."""
        return self.exit_code is not None

    def running(self) -> bool:
        """Whether the job has started and not ended."""
        return self.process is not None and not self.done()


@dataclass
class LocalLauncher:
    """Keeps at most `workers` jobs running; None means one a GPU, or without GPUs one a core."""

    workers: int | None = None
    grace_seconds: float = 30
    target: Callable[[Job, Mapping[str, str]], None] = work
    _waiting: deque[Handle] = field(default_factory=deque)
    _running: list[Handle] = field(default_factory=list)
    _context: multiprocessing.context.ForkServerContext | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and (not isinstance(self.workers, int) or self.workers < 1):
            raise ValueError(f"launcher.workers={self.workers!r} must be a whole number of at least 1, or null")
        if not isinstance(self.grace_seconds, int | float) or isinstance(self.grace_seconds, bool) or self.grace_seconds < 0:
            raise ValueError(f"launcher.grace_seconds={self.grace_seconds!r} must be a number of seconds")
        self._gpus = _gpu_count()
        self._slots = self.workers or self._gpus or len(os.sched_getaffinity(0))

    def launch(self, jobs: Sequence[Job]) -> list[Handle]:
        """Queue the jobs; they start as slots are free, whenever `poll` is called."""
        handles = [Handle(job) for job in jobs]
        self._waiting.extend(handles)
        self.poll()
        return handles

    def poll(self, timeout: float = 0) -> list[Handle]:
        """Start what can start and wait up to `timeout` seconds for one to end; the handles that ended since."""
        self._start_waiting()
        connection.wait([handle.process.sentinel for handle in self._running if handle.process], timeout)
        ended = []
        for handle in list(self._running):
            assert handle.process is not None
            if handle.process.exitcode is not None:
                handle.exit_code = handle.process.exitcode
                handle.process.close()
                self._running.remove(handle)
                ended.append(handle)
        self._start_waiting()
        return ended

    def stop(self) -> list[Handle]:
        """Drop what waits, ask what runs to write a checkpoint and end, kill what does not; all handles that were left."""
        left = [*self._running, *self._waiting]
        self._waiting.clear()
        for handle in self._running:
            assert handle.process is not None
            handle.process.terminate()
        deadline = time.monotonic() + self.grace_seconds
        while self._running and time.monotonic() < deadline:
            self.poll(timeout=0.1)
        self.kill()
        return left

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

    def _start(self, handle: Handle) -> None:
        taken = {running.slot for running in self._running}
        handle.slot = next(slot for slot in range(self._slots) if slot not in taken)
        environment = {"CUDA_VISIBLE_DEVICES": str(handle.slot % self._gpus)} if self._gpus else {}
        handle.process = self._server().Process(target=self.target, args=(handle.job, environment))
        try:
            handle.process.start()
        except EOFError as error:
            raise RuntimeError(
                "the process that runs are forked from could not load its libraries; "
                "`python -c 'import efficient_rl.preload'` shows why"
            ) from error
        self._running.append(handle)

    def _server(self) -> multiprocessing.context.ForkServerContext:
        if self._context is None:
            quiet_libraries()
            self._context = multiprocessing.get_context("forkserver")
            self._context.set_forkserver_preload(PRELOADED)
        return self._context


def _gpu_count() -> int:
    """GPUs that this process may use, without loading torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip()])
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
