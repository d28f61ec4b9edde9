"""Reads the GPUs of this machine from nvidia-smi, without loading torch."""

import os
import re
import subprocess
from collections.abc import Collection
from dataclasses import dataclass

QUERY = "index,uuid,name,compute_cap,memory.total,memory.free,driver_version"


@dataclass(frozen=True)
class Gpu:
    """One GPU; memory in bytes, `names` are its index and UUID."""

    names: tuple[str, str]
    name: str
    capability: tuple[int, int]
    total_bytes: int
    free_bytes: int
    driver: str

    def is_named(self, names: Collection[str]) -> bool:
        """Whether one of the names is its index, its UUID or the beginning of its UUID."""
        index, uuid = self.names
        return index in names or any(name.startswith("GPU-") and uuid.startswith(name) for name in names)


def visible_names() -> list[str]:
    """The entries of CUDA_VISIBLE_DEVICES; without it the indices of all GPUs."""
    names = _visible()
    return [row[0] for row in _rows(_nvidia_smi())] if names is None else names


def visible_gpus() -> list[Gpu]:
    """The GPUs that this process may use; none where there is no nvidia-smi."""
    names, gpus = _visible(), parse_gpus(_nvidia_smi())
    return gpus if names is None else [gpu for gpu in gpus if gpu.is_named(names)]


def parse_gpus(text: str) -> list[Gpu]:
    """GPUs from nvidia-smi's lines of QUERY, but not those without memory of their own."""
    gpus = []
    for index, uuid, name, capability, total, free, driver in _rows(text):
        if total.isdigit() and free.isdigit():
            major, minor = capability.split(".")
            sizes = int(total) << 20, int(free) << 20
            gpus.append(Gpu((index, uuid), name, (int(major), int(minor)), *sizes, driver))
    return gpus


def _visible() -> list[str] | None:
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return None
    return [name.strip() for name in listed.split(",") if name.strip()]


def _rows(text: str) -> list[list[str]]:
    rows = [re.split(r"\s*,\s*", line.strip()) for line in text.splitlines()]
    return [row for row in rows if len(row) == len(QUERY.split(","))]


def _nvidia_smi() -> str:
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
