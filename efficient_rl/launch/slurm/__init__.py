"""Runs as Slurm job arrays."""

from efficient_rl.launch.slurm.launcher import SlurmLauncher

__all__ = ["SlurmLauncher"]
