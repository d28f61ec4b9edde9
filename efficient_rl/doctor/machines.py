"""The machine of a run's processes, and the memory that each can have there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from efficient_rl.doctor.host import Host
from efficient_rl.launch.base import Launcher
from efficient_rl.launch.gpus import Gpu
from efficient_rl.launch.slurm.launcher import SlurmLauncher


@dataclass(frozen=True)
class Machine:
    """`available_bytes` are those of one process, None where they cannot be seen from here."""

    name: str
    available_bytes: int | None
    on_gpu: bool
    processes: int = 1
    sharded: bool = False
    half: bool = False  # multiplies in bfloat16

    def shared_by(self, processes: int) -> "Machine":
        """What each of several processes has of it."""
        if self.available_bytes is None:
            return self
        return replace(self, available_bytes=self.available_bytes // processes)


def machine_of(launcher: Launcher, at_once: int, gpus: Sequence[Gpu], host: Host) -> Machine:
    """What a launcher gives each process of `at_once` runs."""
    processes = getattr(launcher, "processes_per_run", 1)
    sharded = launcher.sharding == "fsdp"
    if isinstance(launcher, SlurmLauncher):
        if launcher.gpus_per_node:
            return Machine("a node's GPU", None, True, processes, sharded, half=True)
        half = False  # of a node nothing is known
        here = max(1, processes // launcher.nodes) * min(launcher.at_once, launcher.runs_per_job)
        name, size = f"launcher.mem_gb={launcher.mem_gb:g}", int(launcher.mem_gb * 2**30)
    elif gpus:
        least = min(gpus, key=lambda gpu: gpu.free_bytes)
        half = all(gpu.capability >= (8, 0) for gpu in gpus)
        whole = Machine(f"{least.name}, free,", least.free_bytes, True, processes, sharded, half)
        return whole.shared_by(-(-at_once * processes // len(gpus)))
    else:
        here = at_once * processes
        name, size, half = "this machine", host.memory_bytes, host.bfloat16
    if here > 1:
        name += f" for {here} processes"
    return Machine(name, size, False, processes, sharded, half).shared_by(here)
