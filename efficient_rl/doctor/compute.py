"""Checks that the processor is used for what it can do: matrix products in bfloat16."""

from efficient_rl.config.schema import ModelConfig
from efficient_rl.doctor.finding import Finding

WORTHWHILE = 20_000_000  # parameters; in smaller models the casts cost more than the products save


def check_compute(model: ModelConfig, has_bfloat16: bool) -> list[Finding]:
    """What a model on a CPU computes in, against what that CPU has."""
    if model.compute == "bfloat16" and not has_bfloat16:
        what = f"model={model.name} computes in bfloat16, which this processor emulates"
        return [Finding("warning", "compute", what, "it is slower than float32", "model.compute=auto")]
    whole = model.compute == "float32" and model.dtype in ("auto", "float32")
    if whole and has_bfloat16 and (model.parameters or 0) >= WORTHWHILE:
        what = f"model={model.name} computes in float32 on a processor with bfloat16"
        why = "after generation a step takes about two thirds of the time in it, and frozen weights half the memory"
        return [Finding("warning", "compute", what, why, "model.compute=auto")]
    return []
