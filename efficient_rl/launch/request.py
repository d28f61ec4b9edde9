"""What a job asks of a Slurm cluster: the settings of conf/launcher/slurm.yaml, checked, and as sbatch reads them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from efficient_rl.launch.settings import Supervision, check, check_processes, is_number


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
    retries: int = 3
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
        for key in ("gpus_per_node", "retries"):
            check(type(getattr(self, key)) is int and getattr(self, key) >= 0, key, getattr(self, key), "must be 0 or more")
        size = self.max_array_size
        check(size is None or (type(size) is int and size >= 1), "max_array_size", size, "must be at least 1, or null")
        check(is_number(self.mem_gb) and self.mem_gb > 0, "mem_gb", self.mem_gb, "must be a number above 0")
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
            "setup": list(self.setup),
            "additional_parameters": {"requeue": True, **self.additional},
        }
