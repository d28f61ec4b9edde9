"""Runs jobs in this process, one after another, for debuggers and print."""

import importlib
import logging
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from efficient_rl.cli import stop_handlers
from efficient_rl.launch.base import Handle, settle
from efficient_rl.launch.worker import EXIT_INTERRUPTED, LOG_FORMAT, Job, do
from efficient_rl.libraries import forget_process_group, quiet_libraries
from efficient_rl.rundir.state import RunState

logger = logging.getLogger(__name__)


@dataclass
class DebugLauncher:
    """Does one job a poll; a run that takes the process down takes the sweep down."""

    detaches = detach = False
    gpus_per_run = 1.0
    sharding = "ddp"
    slots = 1
    in_process = True

    def __post_init__(self) -> None:
        self._waiting: deque[Handle] = deque()

    def launch(self, jobs: Sequence[Job]) -> list[Handle]:
        handles = [Handle(job) for job in jobs]
        self._waiting.extend(handles)
        return handles

    def attach(self, jobs: Sequence[Job]) -> list[Handle]:
        """None: no job outlives this process."""
        return []

    def poll(self, timeout: float = 0) -> list[Handle]:
        """Do the job that the last poll has marked as running, and mark the next one.

        Ctrl-C ends it after a checkpoint, a second one at once; the signal then takes its effect.
        """
        ended = []
        if self._waiting and self._waiting[0].state is RunState.RUNNING:
            handle = self._waiting.popleft()
            quiet_libraries()
            forget_process_group()
            importlib.import_module("efficient_rl.run")  # for seconds nobody would hear a signal
            with _passed_on(), _logged(handle.job.folder / "log.txt"):
                try:
                    code = do(handle.job, release=True)
                except KeyboardInterrupt:
                    code = EXIT_INTERRUPTED
                settle(handle, code)
            ended.append(handle)
        if self._waiting:
            self._waiting[0].state = RunState.RUNNING
        return ended

    def requeue(self, handle: Handle, why: str) -> bool:
        """No: a job here ends within the poll that starts it."""
        return False

    def cancel(self, handle: Handle) -> None:
        """Nothing: a job has ended before it can be cancelled."""

    def stop(self) -> None:
        for handle in self._waiting:
            handle.state = RunState.STOPPED
        self._waiting.clear()

    leave = stop


@contextmanager
def _passed_on() -> Iterator[None]:
    """Hold the first Ctrl-C or SIGTERM back until the end; the second Ctrl-C interrupts."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        logger.warning("stopping: the run writes a checkpoint (a second Ctrl-C ends it at once)")
        received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    with stop_handlers(note):
        yield
    if received:
        signal.raise_signal(received[0])


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Append what is logged to a file; warnings go to the terminal too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    root, level = logging.getLogger(), logging.getLogger().level
    terminal, file = logging.StreamHandler(), logging.FileHandler(path)
    terminal.setLevel(logging.WARNING)
    root.setLevel(logging.INFO)
    for handler in (terminal, file):
        handler.setFormatter(logging.Formatter(LOG_FORMAT))
        root.addHandler(handler)
    try:
        yield
    finally:
        root.setLevel(level)
        for handler in (terminal, file):
            root.removeHandler(handler)
            handler.close()
