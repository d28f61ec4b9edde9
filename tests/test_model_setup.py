"""Which optimizations a training can have, and under which names they are asked for."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from trl import GRPOConfig

from efficient_rl.models import load_model
from efficient_rl.strategies.static import LastK
from efficient_rl.training.grpo import EfficientGRPOTrainer, Optimizations, Savings
from tests.conftest import tiny_run

ALL = Optimizations()
DEPENDING = ("trunk_cache_bytes", "skip_zero_variance", "length_buckets", "own_sampler", "shared_prefixes")


def usable(folder: Path, refills: bool = False, shards: bool = False, **settings: Any) -> Optimizations:
    settings = {"gradient_checkpointing": False} | settings
    args = GRPOConfig(output_dir=str(folder), use_cpu=True, bf16=False, **settings)
    return ALL.usable(load_model(tiny_run().model), args, refills, shards)


@pytest.mark.parametrize(
    ("settings", "off"),
    [
        ({"num_iterations": 2}, []),
        ({}, ["trunk_cache_bytes"]),  # one pass: nobody to share with
        ({"beta": 0.04}, ["skip_zero_variance"]),  # the KL term moves every row
        ({"num_iterations": 2, "entropy_coef": 0.01}, ["skip_zero_variance"]),
        ({"num_iterations": 2, "top_entropy_quantile": 0.5}, ["skip_zero_variance"]),
        ({"num_iterations": 2, "refills": True}, ["trunk_cache_bytes"]),
        ({"num_iterations": 2, "shards": True}, ["trunk_cache_bytes", "length_buckets", "shared_prefixes"]),
        ({"num_iterations": 2, "min_p": 0.1}, ["own_sampler"]),
        ({"num_iterations": 2, "gradient_checkpointing": True}, ["shared_prefixes"]),
    ],
)
def test_what_would_change_the_loss_is_off(tmp_path: Path, settings: dict[str, Any], off: list[str]) -> None:
    found = usable(tmp_path, **settings)
    assert [name for name in DEPENDING if not getattr(found, name)] == off


def test_the_old_name_of_optimizations_is_still_taken(tmp_path: Path) -> None:
    trainer = EfficientGRPOTrainer(
        load_model(tiny_run().model), lambda completions, **_: [0.0] * len(completions),
        GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[]),
        train_dataset=Dataset.from_list([{"prompt": "1+1="}]), strategy=LastK(1), savings=Savings(length_buckets=False),
    )  # fmt: skip
    assert not trainer.optimizations.length_buckets
    assert trainer.optimizations.lean_head
