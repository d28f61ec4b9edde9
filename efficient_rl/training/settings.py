"""Between our configuration and TRL: its arguments from ours, our metric names from its."""

from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from trl import GRPOConfig

from efficient_rl.config import RunConfig

NAMES = {
    "frac_reward_zero_std": "train/frac_zero_std",
    "completions/mean_length": "train/completion_tokens",
    "completions/max_length": "train/completion_tokens_max",
    "completions/clipped_ratio": "train/completion_clipped_ratio",
    "num_tokens": "train/tokens",
    "step_time": "time/step_seconds",
}
SAMPLERS: Mapping[str, Mapping[str, Any]] = {
    "own": {},
    "continuous_batching": {"use_transformers_continuous_batching": True},
    "vllm_colocate": {"use_vllm": True, "vllm_mode": "colocate"},
    "vllm_server": {"use_vllm": True, "vllm_mode": "server"},
}
DROPPED = (
    "completions/min",
    "completions/mean_term",
    "completions/max_term",
    "total_flos",
    "train_",
    "epoch",
    "clip_ratio/",
)


def grpo_arguments(config: RunConfig, folder: Path, checkpoint_steps: int) -> GRPOConfig:
    """TRL's configuration of a run; checkpoints fall on whole generation periods, where a resume is exact."""
    grpo = asdict(config.grpo)
    for name in ("train_problems", "trunk_cache_mib", "sampler"):
        grpo.pop(name)
    period = config.grpo.num_iterations
    return GRPOConfig(
        **grpo,
        output_dir=str(folder),
        seed=config.seed,
        data_seed=config.seed,
        reward_weights=[term.weight for term in config.reward],
        bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported() and config.model.dtype != "float32",
        use_cpu=not torch.cuda.is_available(),
        save_strategy="steps",
        save_steps=-(-checkpoint_steps // period) * period,
        save_total_limit=2,
        logging_steps=1,
        logging_strategy="steps",
        **SAMPLERS[config.grpo.sampler],
        report_to=[],
        disable_tqdm=True,
        skip_memory_metrics=True,
        ignore_data_skip=True,
        dataloader_pin_memory=False,
        log_completions=False,
        optim="adamw_torch",
    )


def rename_metrics(logs: Mapping[str, Any]) -> dict[str, float]:
    """TRL's log line under our names; what is not a finite number is left out."""
    renamed = {}
    for name, value in logs.items():
        if name.startswith(DROPPED) or not isinstance(value, int | float) or not isfinite(value):
            continue
        if name.startswith("rewards/"):
            name = f"train/reward_{name.removeprefix('rewards/').replace('/', '_').removesuffix('_mean')}"
        renamed[NAMES.get(name, name if "/" in name else f"train/{name}")] = float(value)
    return renamed
