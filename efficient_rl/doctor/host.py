"""Checks what the operating system lets a run have: cores, control groups, shared memory, open files."""

import os
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from efficient_rl.doctor.finding import Finding, ok

FEWEST_FILES = 1024
LEAST_SHM_BYTES = 1 << 30
UNBOUNDED = 1 << 60  # how version 1 of control groups writes that there is no bound


@dataclass(frozen=True)
class Host:
    """What this process may use. `quota_cores` and `limit_bytes` are those of its control group, None without a bound."""

    cores: int
    usable_cores: int
    quota_cores: float | None
    available_bytes: int
    limit_bytes: int | None
    shm_bytes: int
    open_files: int

    @property
    def memory_bytes(self) -> int:
        """What a new process can get."""
        return min(self.available_bytes, self.limit_bytes or self.available_bytes)


def this_host() -> Host:
    """What this process may use here."""
    quota, limit = control_group(_read(Path("/proc/self/cgroup")), Path("/sys/fs/cgroup"))
    shm = Path("/dev/shm")
    return Host(
        cores=os.cpu_count() or 1,
        usable_cores=len(os.sched_getaffinity(0)),
        quota_cores=quota,
        available_bytes=psutil.virtual_memory().available,
        limit_bytes=limit,
        shm_bytes=shutil.disk_usage(shm).total if shm.is_dir() else 0,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def control_group(membership: str, root: Path) -> tuple[float | None, int | None]:
    """Cores and bytes that control groups leave to a process: the least on its path below `root`.

    `membership` is the text of /proc/self/cgroup. Slurm confines jobs by version 1 (a tree for each
    resource) or 2 (one).
    """
    quotas, limits = [], []
    for line in membership.splitlines():
        _, kinds, path = line.split(":", 2)
        for tree in [root] if not kinds else [root / kind for kind in kinds.split(",")]:
            folder = tree / path.lstrip("/")
            for place in (folder, *folder.parents):
                if not place.is_relative_to(tree):
                    break
                quotas += _quota(place)
                limits += _limit(place)
    return min(quotas, default=None), min(limits, default=None)


def _quota(place: Path) -> list[float]:
    """Cores by a control group's own bound, if it has one."""
    either = _read(place / "cpu.max") or f"{_read(place / 'cpu.cfs_quota_us')} {_read(place / 'cpu.cfs_period_us')}"
    numbers = either.split()
    return [int(numbers[0]) / int(numbers[1])] if len(numbers) == 2 and numbers[0].isdigit() else []


def _limit(place: Path) -> list[int]:
    """Bytes that a control group's own bound leaves, if it has one."""
    for bound, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        text = _read(place / bound)
        if text.isdigit() and int(text) < UNBOUNDED:
            return [int(text) - int(_read(place / used) or 0)]
    return []


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def check_host(host: Host, runs: int, processes: int = 1) -> list[Finding]:
    """Whether `runs` at once, of so many `processes` each, have cores to run on, and files and shared memory enough."""
    findings = []
    cores = min(host.usable_cores, host.quota_cores or host.usable_cores)
    if cores < runs * processes:
        each = f" of {processes} processes" if processes > 1 else ""
        what = f"{runs} run{'s' if runs > 1 else ''} at once{each} on {cores:g} of {host.cores} cores"
        why = "a run with less than a core is many times slower; pools sized by all cores of the node fail to start"
        fewer = max(1, int(cores) // processes)
        remedy = f"launcher.workers={fewer}" if fewer < runs else f"launcher.processes_per_run={max(1, int(cores))}"
        findings.append(Finding("warning", "host", what, why, f"{remedy}, or ask for more cpus"))
    if host.open_files < FEWEST_FILES:
        what = f"only {host.open_files} open files a process"
        findings.append(Finding("warning", "host", what, "libraries and checkpoints run into it", "ulimit -n 4096"))
    if host.shm_bytes < LEAST_SHM_BYTES:
        what = f"/dev/shm holds {host.shm_bytes / 2**20:.0f} MiB"
        why = "NCCL, vLLM and data loaders exchange through it and die with a bus error"
        findings.append(
            Finding("warning", "host", what, why, "mount -o remount,size=8g /dev/shm; in a container --shm-size=8g")
        )
    return findings or [
        ok("host", f"{cores:g} cores for {runs * processes} processes, {host.memory_bytes / 2**30:.1f} GiB of memory")
    ]
