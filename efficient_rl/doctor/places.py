"""Where a run's processes work, and how much memory each of them can have there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from efficient_rl.doctor.host import Host
from efficient_rl.launch.base import Launcher
from efficient_rl.launch.gpus import Gpu
from efficient_rl.launch.slurm.launcher import SlurmLauncher


@dataclass(frozen=True)
class Place:
    """`available_bytes` are those of one process, None where they cannot be seen from here."""

    name: str
    available_bytes: int | None
    on_gpu: bool
    processes: int = 1
    sharded: bool = False
    half: bool = False  # computes in bfloat16 what the model's data type leaves open

    def shared_by(self, processes: int) -> "Place":
        """The place of one of several processes that work there."""
        return replace(self, available_bytes=None if self.available_bytes is None else self.available_bytes // processes)


def place_of(launcher: Launcher, at_once: int, gpus: Sequence[Gpu], host: Host) -> Place:
    """The place that a launcher gives each of `at_once` runs."""
    processes = getattr(launcher, "processes_per_run", 1)
    sharded = launcher.sharding == "fsdp"
    if isinstance(launcher, SlurmLauncher):
        if launcher.gpus_per_node:
            return Place("a node's GPU", None, True, processes, sharded, half=True)
        here = max(1, processes // launcher.nodes) * min(launcher.at_once, launcher.runs_per_job)
        name = f"launcher.mem_gb={launcher.mem_gb:g}" + (f" for {here} processes" if here > 1 else "")
        return Place(name, int(launcher.mem_gb * 2**30), False, processes, sharded).shared_by(here)
    if gpus:
        least = min(gpus, key=lambda gpu: gpu.free_bytes)
        half = all(gpu.capability >= (8, 0) for gpu in gpus)
        place = Place(f"{least.name}, free,", least.free_bytes, True, processes, sharded, half)
        return place.shared_by(-(-at_once * processes // len(gpus)))
    here = at_once * processes
    name = "this machine" + (f" for {here} processes" if here > 1 else "")
    return Place(name, host.memory_bytes, False, processes, sharded).shared_by(here)
