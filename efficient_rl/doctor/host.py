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
    quota, limit = _control_group()
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


def _control_group() -> tuple[float | None, int | None]:
    """Cores and bytes that control groups (version 2) leave to this process: the least on its path."""
    try:
        line = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    except (FileNotFoundError, StopIteration):
        return None, None
    folder = Path("/sys/fs/cgroup") / line[3:].lstrip("/")
    quotas, limits = [], []
    for place in (folder, *folder.parents):
        if not place.is_relative_to("/sys/fs/cgroup"):
            break
        cpu, memory = _read(place / "cpu.max").split(), _read(place / "memory.max")
        if len(cpu) == 2 and cpu[0].isdigit():
            quotas.append(int(cpu[0]) / int(cpu[1]))
        if memory.isdigit():
            limits.append(int(memory) - int(_read(place / "memory.current") or 0))
    return min(quotas, default=None), min(limits, default=None)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def check_host(host: Host, workers: int) -> list[Finding]:
    """Whether `workers` runs at once have cores to run on, and files and shared memory enough."""
    findings = []
    cores = min(host.usable_cores, host.quota_cores or host.usable_cores)
    if cores < workers:
        what = f"{workers} runs at once on {cores:g} of {host.cores} cores"
        why = "a run with less than a core is many times slower; pools sized by all cores of the node fail to start"
        findings.append(
            Finding("warning", "host", what, why, f"launcher.workers={max(1, int(cores))}, or ask for more cpus")
        )
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
        ok("host", f"{cores:g} cores for {workers} runs at once, {host.memory_bytes / 2**30:.1f} GiB of memory")
    ]
