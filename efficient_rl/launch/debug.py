"""Runs jobs in this very process, one after another, so that a debugger and print reach them."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from efficient_rl.launch.handle import Handle, settle
from efficient_rl.launch.settings import Supervision
from efficient_rl.launch.worker import Job, do
from efficient_rl.libraries import quiet_libraries


@dataclass
class DebugLauncher(Supervision):
    """Does one job a poll; a run that takes the process down takes the sweep down."""

    detaches = detach = False
    gpus_per_run = 1.0
    sharding = "ddp"
    slots = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._waiting: deque[Handle] = deque()

    def launch(self, jobs: Sequence[Job]) -> list[Handle]:
        """Queue the jobs."""
        handles = [Handle(job) for job in jobs]
        self._waiting.extend(handles)
        return handles

    def attach(self, jobs: Sequence[Job]) -> list[Handle]:
        """None: nothing goes on without this process."""
        return []

    def poll(self, timeout: float = 0) -> list[Handle]:
        """Do the next job."""
        if not self._waiting:
            return []
        quiet_libraries()
        handle = self._waiting.popleft()
        settle(handle, do(handle.job, release=True))
        return [handle]

    def requeue(self, handle: Handle, why: str) -> bool:
        """Nothing: a job that runs here is not looked at while it runs."""
        return False

    def cancel(self, handle: Handle) -> None:
        """Nothing: a job is over before anybody can cancel it."""

    def stop(self) -> None:
        """Drop what waits; nothing else runs."""
        self._waiting.clear()

    def leave(self) -> None:
        """The same as `stop`."""
        self.stop()
