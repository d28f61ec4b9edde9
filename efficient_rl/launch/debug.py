"""Runs jobs in this process, one after another, for debuggers and print."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from efficient_rl.launch.base import Handle, settle
from efficient_rl.launch.worker import Job, do
from efficient_rl.libraries import forget_process_group, quiet_libraries


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
        """Do the next job."""
        if not self._waiting:
            return []
        quiet_libraries()
        forget_process_group()
        handle = self._waiting.popleft()
        settle(handle, do(handle.job, release=True))
        return [handle]

    def requeue(self, handle: Handle, why: str) -> bool:
        """No: a job here ends within the poll that starts it."""
        return False

    def cancel(self, handle: Handle) -> None:
        """Nothing: a job has ended before it can be cancelled."""

    def stop(self) -> None:
        self._waiting.clear()

    leave = stop
