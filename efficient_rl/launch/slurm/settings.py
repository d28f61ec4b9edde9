"""Checks conf/launcher/slurm.yaml and translates it into submitit's parameters."""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from efficient_rl.errors import ConfigError, check_types, require
from efficient_rl.launch.base import check_processes

SETUP_FAILED = "launcher.setup failed"
LEAST_MEMORY_GB, MOST_MEMORY_GB = 0.1, 1e6
NAMED = ("partition", "account", "qos", "constraint", "exclude")
SHORT = dict(zip("ApqtNncCxJaoeMW", (  # sbatch's letters, of what we set
    *("account", "partition", "qos", "time", "nodes", "ntasks", "cpus-per-task", "constraint", "exclude", "job-name"),
    *("array", "output", "error", "clusters", "wait"),
), strict=True))  # fmt: skip
KEYS = {  # options of sbatch that are keys of ours
    **{key: key for key in ("account", "partition", "qos", "nodes", "constraint", "exclude")},
    **{"time": "timeout_min", "cpus-per-task": "cpus_per_task", "gpus-per-node": "gpus_per_node"},
    **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu"), "mem_gb"),
    **dict.fromkeys(("ntasks", "ntasks-per-node", "tasks-per-node"), "processes_per_run"),
    **{"array": "array_parallelism", "signal": "signal_seconds"},
}
OURS = (  # options of sbatch by which jobs are found and resumed
    *("job-name", "output", "error", "open-mode", "export", "export-file", "requeue", "no-requeue", "parsable"),
    *("wrap", "test-only", "wait", "clusters"),
)
COUNTS = ("timeout_min", "cpus_per_task", "nodes", "array_parallelism", "runs_per_job", "runs_per_gpu")


@dataclass
class SlurmRequest:
    """The settings of `SlurmLauncher`; conf/launcher/slurm.yaml says what each means."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    timeout_min: int = 240
    mem_gb: float = 16.0
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
    additional: dict[str, Any] = field(default_factory=dict)
    signal_seconds: int = 90
    oom_retry: bool = False
    detach: bool = False

    def __post_init__(self) -> None:
        for key in NAMED:
            if isinstance(value := getattr(self, key), list):
                text = ",".join(map(str, value))
                self._require(False, key, f"must be one text, as in 'launcher.{key}=\"{text}\"'")
        check_types("launcher", self)
        for key in (*NAMED, "python"):
            self._require(getattr(self, key) != "", key, "must be a text, or null")
        for key in COUNTS:
            self._require(getattr(self, key) >= 1, key, "must be at least 1")
        self._require(self.gpus_per_node >= 0, "gpus_per_node", "must be at least 0")
        size = self.max_array_size
        self._require(size is None or size >= 1, "max_array_size", "must be at least 1, or null")
        check_processes(self.processes_per_run, self.sharding)
        spread = self.processes_per_run % self.nodes == 0
        self._require(spread, "processes_per_run", f"must be a multiple of launcher.nodes={self.nodes}")
        memory = LEAST_MEMORY_GB <= self.mem_gb <= MOST_MEMORY_GB
        bound = f"must lie in {LEAST_MEMORY_GB:g} to {MOST_MEMORY_GB:.0f} GB of a node"
        self._require(memory, "mem_gb", f"{bound}; for all of it (0 to Slurm) use additional={{mem: 0}}")
        most = 60 * self.timeout_min - 1
        within = 1 <= self.signal_seconds <= most
        self._require(within, "signal_seconds", f"must lie in 1 to {most}, within the time limit")
        lines = all(isinstance(line, str) for line in self.setup)
        self._require(lines, "setup", "must be a list of shell lines")
        for option, value in self.additional.items():
            _check_additional(option, value)

    def _require(self, condition: bool, key: str, bound: str) -> None:
        require(condition, f"launcher.{key}", getattr(self, key), bound)

    @property
    def at_once(self) -> int:
        """Runs that a job does at the same time."""
        if self.nodes > 1:
            return 1
        if not self.gpus_per_node:
            return self.runs_per_gpu
        return max(1, self.gpus_per_node * self.runs_per_gpu // self.processes_per_run)

    @property
    def gpus_per_run(self) -> float:
        return self.gpus_per_node * self.nodes / min(self.at_once, self.runs_per_job)

    def sbatch_parameters(self, name: str, bad_nodes: Sequence[str] = ()) -> dict[str, Any]:
        """submitit's names for the request of one job, which avoids the bad nodes."""
        given = {key: getattr(self, key) for key in NAMED if getattr(self, key) is not None}
        if bad_nodes:
            given["exclude"] = ",".join(filter(None, [self.exclude, *bad_nodes]))
        if self.gpus_per_node:
            given["gpus_per_node"] = self.gpus_per_node
        return {
            **given,
            "job_name": name,
            "time": self.timeout_min,
            "mem": f"{round(self.mem_gb * 1024)}MB",
            "cpus_per_task": self.cpus_per_task,
            "nodes": self.nodes,
            "ntasks_per_node": 1,
            "array_parallelism": self.array_parallelism,
            "signal_delay_s": self.signal_seconds,
            "setup": _guarded(self.setup),
            "srun_args": ["--export=ALL", f"--cpus-per-task={self.cpus_per_task}"],
            "additional_parameters": {"requeue": True, **self.additional},
        }

    def check_python(self, outputs: Path) -> None:
        """Raise ConfigError if `launcher.python` names a missing or non-executable file.

        Only a file on the shared file system of `outputs` can be checked from here.
        """
        try:
            path = Path(shlex.split(self.python or "")[0]).expanduser()
        except (IndexError, ValueError, RuntimeError):
            return
        if "/" not in str(path) or "$" in str(path) or _device(path) != _device(outputs):
            return
        if not path.is_file() or not os.access(path, os.X_OK):
            what = "cannot be executed" if path.is_file() else "does not exist"
            remedy = "name a Python that the nodes can start, or null"
            raise ConfigError(f"launcher.python={self.python!r}: {path} {what}; {remedy}")


def _check_additional(option: Any, value: Any) -> None:
    """Raise ConfigError for an option of sbatch that we set ourselves, or that would be none."""
    key = f"launcher.additional.{option}"
    spelled = re.fullmatch(r"[A-Za-z][\w-]*", str(option)) is not None
    require(spelled, key, value, "is no option of sbatch; write its name without dashes in front")
    name = SHORT.get(str(option), str(option).replace("_", "-"))
    bound = f"is set by launcher.{KEYS.get(name)}; use that"
    whole_node = name == "mem" and str(value) == "0"
    require(name not in KEYS or whole_node, key, value, bound)
    require(name not in OURS, key, value, "is set by the launcher, which finds and resumes its jobs by it; leave it out")
    text = isinstance(value, str | int | float) and value is not False and str(value).isprintable()
    require(text, key, value, "must be a text on one line, a number, or true for an option without a value")


def _guarded(setup: Sequence[str]) -> list[str]:
    """The shell lines before Python starts; the job ends at the first that fails."""
    if not setup:
        return []
    message = f'echo "{SETUP_FAILED} with exit status $code, in the line: $setup_line" >&2'
    lines = [f"trap 'code=$?; [ -z \"$setup_line\" ] || {{ {message}; exit 120; }}' EXIT"]
    for line in setup:
        lines.append(f'setup_line={shlex.quote(line)}; eval "$setup_line" || exit')
    return [*lines, "setup_line="]


def _device(path: Path) -> int:
    """The file system of a path, which need not exist."""
    path = path.absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists()).stat().st_dev
