"""Ways to start runs: one interface, this machine or a cluster."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from efficient_rl.sections import Component

if TYPE_CHECKING:
    from efficient_rl.launch.local import Handle
    from efficient_rl.launch.worker import Job


class Launcher(Protocol):
    """Starts jobs and says how they ended; `local.LocalLauncher` is one."""

    def launch(self, jobs: "Sequence[Job]") -> "list[Handle]": ...

    def poll(self, timeout: float = 0) -> "list[Handle]": ...

    def stop(self) -> "list[Handle]": ...


def build_launcher(settings: Mapping[str, Any]) -> Launcher:
    """The launcher that a configuration of the group names; ConfigError for settings out of range."""
    arguments = dict(settings)
    launcher: Launcher = Component("launcher", arguments.pop("_target_"), arguments).build()
    return launcher
