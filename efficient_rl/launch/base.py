"""Ways to start runs: one interface, this process, this machine or a cluster."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from efficient_rl.config.schema import Component

if TYPE_CHECKING:
    from efficient_rl.launch.handle import Handle
    from efficient_rl.launch.worker import Job


class Launcher(Protocol):
    """Starts jobs and says how they ended; `local.LocalLauncher` is one.

    `detaches`: its jobs go on without the process that launched them; `detach`: leave at once.
    `gpus_per_run`: what a run occupies, for estimates; `slots`: how many may run at once.
    """

    detaches: bool
    detach: bool
    notify: str | None
    stall_minutes: float | None
    requeue_stalled: bool
    max_gpu_hours: float | None
    sharding: str

    @property
    def gpus_per_run(self) -> float: ...

    @property
    def slots(self) -> int: ...

    def launch(self, jobs: "Sequence[Job]") -> "list[Handle]":
        """Start the jobs, now or as soon as there is room."""

    def attach(self, jobs: "Sequence[Job]") -> "list[Handle]":
        """Handles of those jobs that an earlier process launched and that still go on."""

    def poll(self, timeout: float = 0) -> "list[Handle]":
        """The handles whose jobs ended since the last call, after at most `timeout` seconds if none has."""

    def requeue(self, handle: "Handle", why: str) -> bool:
        """End a job that does not go on; whether it starts again from its last checkpoint.

        It does not after `retries` times: then `poll` tells of it as failed, for the reason `why`.
        """

    def cancel(self, handle: "Handle") -> None:
        """End one job after a checkpoint; `poll` tells of it, as stopped, or as finished where that was quicker."""

    def stop(self) -> None:
        """Drop what waits; let what runs write a checkpoint and end."""

    def leave(self) -> None:
        """Forget the jobs and let them go on."""


def build_launcher(settings: Mapping[str, Any]) -> Launcher:
    """The launcher that a configuration of the group names; ConfigError for settings out of range."""
    arguments = dict(settings)
    launcher: Launcher = Component("launcher", arguments.pop("_target_"), arguments).build()
    return launcher
