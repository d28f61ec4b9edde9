"""Checks what the operating system gives a run: cores, control groups, files, shared memory."""

import os
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from efficient_rl.doctor.finding import Finding, ok
from efficient_rl.launch.cgroups import limits

FEWEST_FILES = 1024
LEAST_SHM_BYTES = 1 << 30
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # of x86 and of ARM


@dataclass(frozen=True)
class Host:
    """Resources of this process; `quota_cores` and `limit_bytes` are its cgroup's, or None."""

    cores: int
    usable_cores: int
    quota_cores: float | None
    available_bytes: int
    limit_bytes: int | None
    shm_bytes: int
    open_files: int
    bfloat16: bool = False  # the processor multiplies in it

    @property
    def memory_bytes(self) -> int:
        """What a new process can get."""
        return min(self.available_bytes, self.limit_bytes or self.available_bytes)


def this_host() -> Host:
    """What this process may use here."""
    quota, limit = limits()
    shm = Path("/dev/shm")
    return Host(
        cores=os.cpu_count() or 1,
        usable_cores=len(os.sched_getaffinity(0)),
        quota_cores=quota,
        available_bytes=psutil.virtual_memory().available,
        limit_bytes=limit,
        shm_bytes=shutil.disk_usage(shm).total if shm.is_dir() else 0,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        bfloat16=_multiplies_in_bfloat16(),
    )


def _multiplies_in_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return not BFLOAT16_FLAGS.isdisjoint(flags)


def check_host(host: Host, runs: int, processes: int = 1) -> list[Finding]:
    """Whether `runs` at once, of `processes` each, have cores, files and shared memory enough."""
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
