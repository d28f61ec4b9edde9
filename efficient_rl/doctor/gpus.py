"""Checks that the GPUs can do what the run asks of them: data type, attention, memory in use."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from efficient_rl.doctor.finding import Finding, ok

AMPERE = (8, 0)
QUERY = "name,compute_cap,memory.total,memory.free,driver_version"
BUSY_SHARE = 0.1


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi tells of it; memory in bytes."""

    name: str
    capability: tuple[int, int]
    total_bytes: int
    free_bytes: int
    driver: str


def visible() -> list[Gpu]:
    """The GPUs of this machine; none where there is no nvidia-smi."""
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    return parse_gpus(done.stdout) if done.returncode == 0 else []


def parse_gpus(text: str) -> list[Gpu]:
    """GPUs from nvidia-smi's lines of QUERY, memory in MiB."""
    gpus = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 5 and cells[2].isdigit():
            major, minor = (int(part) for part in cells[1].split("."))
            gpus.append(Gpu(cells[0], (major, minor), int(cells[2]) << 20, int(cells[3]) << 20, cells[4]))
    return gpus


def check_gpus(gpus: Sequence[Gpu], dtype: str, attention: str) -> list[Finding]:
    """Whether data type and attention of a model run on every GPU."""
    findings = []
    for gpu in gpus:
        name = f"{gpu.name} (compute capability {gpu.capability[0]}.{gpu.capability[1]})"
        if attention == "flash_attention_2" and gpu.capability < AMPERE:
            what = f"{name} cannot run flash_attention_2, which needs 8.0"
            findings.append(
                Finding("failure", "gpu", what, "the first forward pass fails", "model.attn_implementation=sdpa")
            )
        if dtype == "bfloat16" and gpu.capability < AMPERE:
            what = f"{name} has no bfloat16, which needs 8.0"
            findings.append(Finding("failure", "gpu", what, "it is emulated, slowly, or fails", "model.dtype=float32"))
        if gpu.free_bytes < (1 - BUSY_SHARE) * gpu.total_bytes:
            what = f"{name} has {gpu.free_bytes / 2**30:.1f} of {gpu.total_bytes / 2**30:.1f} GiB free"
            findings.append(Finding("warning", "gpu", what, "another process uses it", "nvidia-smi shows which one"))
    if dtype == "float16":
        findings.append(
            Finding("warning", "gpu", "model.dtype=float16 keeps weights in half precision",
                    "GRPO's small updates vanish in it", "model.dtype=auto")
        )  # fmt: skip
    if findings or not gpus:
        return findings or [ok("gpu", "no GPU here: training runs on the CPU")]
    return [ok("gpu", ", ".join(gpu.name for gpu in gpus))]
