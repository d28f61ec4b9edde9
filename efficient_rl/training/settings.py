"""Maps our configuration to TRL's arguments, and TRL's metric names to ours."""

from collections.abc import Mapping
from dataclasses import asdict
from math import gcd, isfinite
from pathlib import Path
from typing import Any

import torch
from trl import GRPOConfig

from efficient_rl.config.run_config import RunConfig
from efficient_rl.config.schema import GRPOSettings
from efficient_rl.errors import ConfigError
from efficient_rl.training.arithmetic import has_bfloat16
from efficient_rl.training.sampler import SamplingSettings

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


def grpo_arguments(
    config: RunConfig, folder: Path, checkpoint_steps: int, processes: int = 1, micro_batches: int = 1
) -> GRPOConfig:
    """TRL's configuration of a run; checkpoints fall between generation periods.

    The run's batch is the same whatever the number of processes that share it and of parts that
    each of them cuts it into.
    """
    grpo = asdict(config.grpo) | split_batch(config.grpo, processes, micro_batches)
    for name in ("train_problems", "trunk_cache_mib", "sampler"):
        grpo.pop(name)
    period = config.grpo.num_iterations
    return GRPOConfig(
        **grpo,
        output_dir=str(folder),
        seed=config.seed,
        data_seed=config.seed,
        reward_weights=[term.weight for term in config.reward],
        bf16=config.model.half_products(torch.cuda.is_available(), has_bfloat16()),
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


def sampling_settings(grpo: GRPOSettings) -> SamplingSettings:
    """How a run draws completions, in training and in evaluation."""
    return SamplingSettings(grpo.max_completion_length, grpo.temperature, grpo.top_p, grpo.top_k)


def split_batch(grpo: GRPOSettings, processes: int, micro_batches: int) -> dict[str, int]:
    """TRL's batch settings for one of several processes, with each pass cut into micro-batches.

    ConfigError where the batch cannot be split so, or the loss would be another one.
    """
    rows, passes = grpo.per_device_train_batch_size, grpo.gradient_accumulation_steps
    if processes == micro_batches == 1:
        return {}
    if grpo.loss_type == "bnpo":
        raise ConfigError(
            "grpo.loss_type=bnpo divides by the tokens of each pass, so that a batch cut into other parts is another loss; "
            "use one process and micro_batches=1, or grpo.loss_type=dapo, which divides by those of the whole batch"
        )
    by_rows = gcd(rows, processes)
    by_passes = processes // by_rows
    if passes % by_passes:
        possible = [number for number in range(1, rows * passes + 1) if passes % (number // gcd(rows, number)) == 0]
        near = max(number for number in possible if number < processes)
        raise ConfigError(
            f"a batch of grpo.per_device_train_batch_size={rows} x grpo.gradient_accumulation_steps={passes} completions "
            f"cannot be shared by {processes} processes; use {near}, or a batch that {processes} divides"
        )
    rows, passes = rows // by_rows, passes // by_passes
    if micro_batches < 1 or rows % micro_batches:
        near = max(number for number in range(1, rows + 1) if rows % number == 0 and number <= max(1, micro_batches))
        raise ConfigError(
            f"micro_batches={micro_batches} does not divide the {rows} completions of a pass in each process; use {near}"
        )
    return {"per_device_train_batch_size": rows // micro_batches, "gradient_accumulation_steps": passes * micro_batches}


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
