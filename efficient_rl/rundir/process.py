"""Identifies the process that works on a run, and the Slurm job that it belongs to."""

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self

import psutil

from efficient_rl.errors import check_types

CLOCK_TOLERANCE_SECONDS = 2.0


@dataclass(frozen=True)
class SlurmJob:
    """A start of a Slurm job: `id` is `123` or `123_4`, `restart` counts the starts before it."""

    id: str
    restart: int
    node: str

    def __post_init__(self) -> None:
        check_types("job", self)

    def is_earlier_start_of(self, other: "SlurmJob | None") -> bool:
        """Whether Slurm has given this start of the job up and started it again as the other."""
        return other is not None and self.id == other.id and self.restart < other.restart


@dataclass(frozen=True)
class Owner:
    """A process that claimed something; pid and creation time identify it on `host`."""

    host: str
    pid: int
    created: float = 0.0
    job: SlurmJob | None = None
    started: float = 0.0

    def __post_init__(self) -> None:
        check_types("owner", self)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The owner that `to_json` wrote; None for anything else, such as what a release leaves."""
        try:
            plain = json.loads(text)
            job = plain.pop("job", None)
            return cls(**plain, job=None if job is None else SlurmJob(**job))
        except (ValueError, TypeError, AttributeError):
            return None

    def to_json(self) -> str:
        """The text that `parse` reads."""
        return json.dumps(asdict(self))

    @property
    def job_id(self) -> str | None:
        """The id of its Slurm job, None outside of one."""
        return self.job.id if self.job else None

    @property
    def node(self) -> str:
        """The Slurm node, or outside of a job the host."""
        return self.job.node if self.job else self.host

    @property
    def is_here(self) -> bool:
        """Whether the process is one of this machine, so that `is_alive` can tell."""
        return self.host == socket.gethostname()

    def is_alive(self) -> bool:
        """Whether the process still runs on this machine, and its pid is not another one's now."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < CLOCK_TOLERANCE_SECONDS
            return same and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, ValueError, OverflowError):
            return False


def this_process() -> Owner:
    """This process as the owner of what it claims now."""
    process, host = psutil.Process(), socket.gethostname()
    return Owner(host, process.pid, process.create_time(), cluster_job(), time.time())


def cluster_job(environment: Mapping[str, str] = os.environ) -> SlurmJob | None:
    """The Slurm job of this process, None outside of one."""
    job = environment.get("SLURM_JOB_ID")
    if not job:
        return None
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    return SlurmJob(
        f"{array}_{task}" if array and task else job,
        int(environment.get("SLURM_RESTART_COUNT", "0")),
        environment.get("SLURMD_NODENAME", socket.gethostname()),
    )
