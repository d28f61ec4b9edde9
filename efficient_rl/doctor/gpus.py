"""Checks that the GPUs can do what the run asks of them: data type, attention, memory in use."""

from collections.abc import Sequence

from efficient_rl.doctor.finding import Finding, ok
from efficient_rl.launch.gpus import Gpu

AMPERE = (8, 0)
OLDEST_CAPABILITIES = {"12": (5, 0), "13": (7, 5)}  # that CUDA compiles for, by its major version (NVIDIA's release notes)
BUSY_SHARE = 0.1


def check_gpus(gpus: Sequence[Gpu], dtype: str, attention: str, cuda: str | None, has_flash: bool) -> list[Finding]:
    """Whether a model's data type and attention run on every GPU, with torch's CUDA."""
    findings = _of_the_model(dtype, attention, bool(gpus), has_flash)
    oldest = OLDEST_CAPABILITIES.get((cuda or "").split(".")[0], (0, 0))
    for gpu in gpus:
        name = f"{gpu.name} (compute capability {gpu.capability[0]}.{gpu.capability[1]})"
        if gpu.capability < oldest:
            what = f"{name} is older than {oldest[0]}.{oldest[1]}, the least that CUDA {cuda} compiles for"
            why = "torch finds no kernel for it"
            findings.append(Finding("failure", "gpu", what, why, "install torch for an older CUDA"))
        if attention == "flash_attention_2" and gpu.capability < AMPERE:
            what = f"{name} cannot run flash_attention_2, which needs 8.0"
            why, remedy = "the first forward pass fails", "model.attn_implementation=sdpa"
            findings.append(Finding("failure", "gpu", what, why, remedy))
        if dtype == "bfloat16" and gpu.capability < AMPERE:
            what = f"{name} has no bfloat16, which needs 8.0"
            findings.append(Finding("failure", "gpu", what, "it is emulated, slowly, or fails", "model.dtype=float32"))
        if gpu.free_bytes < (1 - BUSY_SHARE) * gpu.total_bytes:
            what = f"{name} has {gpu.free_bytes / 2**30:.1f} of {gpu.total_bytes / 2**30:.1f} GiB free"
            findings.append(Finding("warning", "gpu", what, "another process uses it", "nvidia-smi shows which one"))
    if findings or not gpus:
        return findings or [ok("gpu", "no GPU here: training runs on the CPU")]
    return [ok("gpu", ", ".join(gpu.name for gpu in gpus))]


def _of_the_model(dtype: str, attention: str, has_gpu: bool, has_flash: bool) -> list[Finding]:
    """What fails on any GPU, or without one."""
    findings = []
    if attention == "flash_attention_2":
        why, remedy = "the model cannot be loaded", "model.attn_implementation=auto"
        if not has_flash:
            findings.append(Finding("failure", "gpu", "flash_attention_2 without the package flash-attn", why, remedy))
        elif not has_gpu:
            findings.append(Finding("failure", "gpu", "flash_attention_2 without a GPU", why, remedy))
        elif dtype == "float32":
            what = "flash_attention_2 with model.dtype=float32, which it does not compute in"
            findings.append(Finding("failure", "gpu", what, "the first forward pass fails", "model.dtype=auto"))
    if dtype == "float16":
        what, why = "model.dtype=float16 keeps weights in half precision", "GRPO's small updates vanish in it"
        findings.append(Finding("warning", "gpu", what, why, "model.dtype=auto"))
    return findings
