"""What a job asks of a Slurm cluster: the settings of conf/launcher/slurm.yaml, checked, and as sbatch reads them."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from efficient_rl.errors import ConfigError
from efficient_rl.launch.settings import Supervision, check, check_processes, is_number

SETUP_FAILED = "launcher.setup failed"
LEAST_MEMORY_GB, MOST_MEMORY_GB = 0.1, 1e6


@dataclass
class SlurmRequest(Supervision):
    """The settings of `SlurmLauncher`; conf/launcher/slurm.yaml says what each means."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    timeout_min: int = 240
    mem_gb: float = 16
    cpus_per_task: int = 4
    gpus_per_node: int = 1
    nodes: int = 1
    constraint: str | None = None
    exclude: str | None = None
    array_parallelism: int = 256
    max_array_size: int | None = None
    runs_per_job: int = 1
    runs_per_gpu: int = 1
    processes_per_run: int = 1
    sharding: str = "ddp"
    setup: list[str] = field(default_factory=list)
    python: str | None = None
    additional: Mapping[str, Any] = field(default_factory=dict)
    signal_seconds: int = 90
    oom_retry: bool = False
    detach: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("partition", "account", "qos", "constraint", "exclude", "python"):
            value = getattr(self, key)
            check(value is None or (isinstance(value, str) and bool(value)), key, value, "must be a text, or null")
        for key in ("timeout_min", "cpus_per_task", "nodes", "array_parallelism", "runs_per_job", "runs_per_gpu"):
            value = getattr(self, key)
            check(type(value) is int and value >= 1, key, value, "must be a whole number of at least 1")
        check_processes(self.processes_per_run, self.sharding)
        spread = self.processes_per_run % self.nodes == 0
        check(spread, "processes_per_run", self.processes_per_run, f"must be a multiple of launcher.nodes={self.nodes}")
        gpus = self.gpus_per_node
        check(type(gpus) is int and gpus >= 0, "gpus_per_node", gpus, "must be a whole number of at least 0")
        size = self.max_array_size
        check(size is None or (type(size) is int and size >= 1), "max_array_size", size, "must be at least 1, or null")
        memory = is_number(self.mem_gb) and LEAST_MEMORY_GB <= self.mem_gb <= MOST_MEMORY_GB
        check(memory, "mem_gb", self.mem_gb, f"must lie in {LEAST_MEMORY_GB:g} to {MOST_MEMORY_GB:.0f} GB of a node; "
              "0 would mean all of it to Slurm, which additional={mem: 0} asks for")  # fmt: skip
        room = 60 * self.timeout_min
        check(type(self.signal_seconds) is int and 1 <= self.signal_seconds < room, "signal_seconds", self.signal_seconds,
              f"must lie in 1 to {room - 1}, within the time limit")  # fmt: skip
        lines = isinstance(self.setup, list) and all(isinstance(line, str) for line in self.setup)
        check(lines, "setup", self.setup, "must be a list of shell lines")
        check(isinstance(self.additional, Mapping), "additional", self.additional, "must map sbatch options to values")
        for key in ("oom_retry", "detach"):
            check(isinstance(getattr(self, key), bool), key, getattr(self, key), "must be true or false")

    @property
    def at_once(self) -> int:
        """Runs that a job does at the same time."""
        if self.nodes > 1:
            return 1
        return (
            max(1, self.gpus_per_node * self.runs_per_gpu // self.processes_per_run)
            if self.gpus_per_node
            else self.runs_per_gpu
        )

    @property
    def gpus_per_run(self) -> float:
        """GPUs that one run occupies."""
        return self.gpus_per_node * self.nodes / min(self.at_once, self.runs_per_job)

    def sbatch_parameters(self, name: str) -> dict[str, Any]:
        """submitit's names for the request of one job."""
        named = ("partition", "account", "qos", "constraint", "exclude")
        given = {key: getattr(self, key) for key in named if getattr(self, key) is not None}
        return {
            **given,
            "job_name": name,
            "time": self.timeout_min,
            "mem": f"{round(self.mem_gb * 1024)}MB",
            "cpus_per_task": self.cpus_per_task,
            "nodes": self.nodes,
            "ntasks_per_node": 1,
            **({"gpus_per_node": self.gpus_per_node} if self.gpus_per_node else {}),
            "array_parallelism": self.array_parallelism,
            "signal_delay_s": self.signal_seconds,
            "setup": _guarded(self.setup),
            "additional_parameters": {"requeue": True, **self.additional},
        }

    def check_python(self, outputs: Path) -> None:
        """Raise ConfigError where `launcher.python` names a file of the nodes that is not there, or cannot be executed.

        Only of the file system of `outputs`, which the nodes share, can that be told from here.
        """
        try:
            path = Path(shlex.split(self.python or "")[0]).expanduser()
        except (IndexError, ValueError, RuntimeError):
            return
        if "/" not in str(path) or "$" in str(path) or _device(path) != _device(outputs):
            return
        if not path.is_file() or not os.access(path, os.X_OK):
            what = "cannot be executed" if path.is_file() else "does not exist"
            raise ConfigError(
                f"launcher.python={self.python!r}: {path} {what}; name a Python that the nodes can start, or null"
            )


def _guarded(setup: Sequence[str]) -> list[str]:
    """The lines of a job before Python starts; where one fails, the job ends and says which."""
    if not setup:
        return []
    told = f'echo "{SETUP_FAILED} with exit status $code, in the line: $setup_line" >&2'
    trap = f"trap 'code=$?; [ -z \"$setup_line\" ] || {{ {told}; exit 120; }}' EXIT"
    return [trap, *(f'setup_line={shlex.quote(line)}; eval "$setup_line" || exit' for line in setup), "setup_line="]


def _device(path: Path) -> int:
    """The file system of a path, which need not be there."""
    path = path.absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists()).stat().st_dev
