"""Ours equals stock TRL: fed the same completions, loss, KL and gradient norm agree, with every saving on and off."""

import functools
import itertools
import tempfile
from dataclasses import fields
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel
from trl import GRPOConfig, GRPOTrainer

from efficient_rl.models import load_model, load_tokenizer
from efficient_rl.strategies.adapters import Lora
from efficient_rl.strategies.blocks import find_blocks
from efficient_rl.strategies.protocol import Strategy
from efficient_rl.strategies.static import FirstK, Full, LastK
from efficient_rl.training import scoring
from efficient_rl.training.grpo import EfficientGRPOTrainer, Optimizations
from efficient_rl.training.prefixes import SharedPrefixes
from tests.conftest import slow_unless, tiny_run

STEPS = 10
STRATEGIES: dict[str, Strategy] = {
    "full": Full(), "first_k": FirstK(2), "last_k": LastK(2), "lora": Lora(rank=4, alpha=8, target_modules="all-linear")
}  # fmt: skip
NONE = Optimizations(
    respect_freezing=False, overlay_reference=False, trunk_cache_bytes=0, skip_zero_variance=False, own_sampler=False,
    lean_head=False, length_buckets=False, shared_prefixes=False,
)  # fmt: skip


@pytest.fixture(autouse=True)
def many_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches too are cut into buckets of similar length."""
    monkeypatch.setattr(scoring, "PASS_COST_TOKENS", 4)


class Scripted:
    """Completions that follow from the step alone: random tokens, some groups all alike."""

    state: Any

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        random = Random(self.state.global_step)
        torch.manual_seed(self.state.global_step)  # the order in which TRL then shuffles the rows
        ids = [[random.randrange(3, 30) for _ in range(random.randrange(4, 12))] for _ in prompt_ids]
        ids[4:8] = [ids[4]] * 4  # a group without variance
        return ids, None


class Stock(Scripted, GRPOTrainer):
    pass


class Ours(Scripted, EfficientGRPOTrainer):
    pass


def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [sum(token % 5 == 0 for token in ids) / len(ids) for ids in completion_ids]


def arguments(folder: Path, **settings: Any) -> GRPOConfig:
    return GRPOConfig(
        output_dir=str(folder), per_device_train_batch_size=16, num_generations=4, max_completion_length=12, max_steps=STEPS,
        learning_rate=1e-4, logging_steps=1, report_to=[], disable_tqdm=True, bf16=False, use_cpu=True, save_strategy="no",
        **({"gradient_checkpointing": False} | settings),
    )  # fmt: skip


def prompts(beginning: str) -> Dataset:
    return Dataset.from_list([{"prompt": f"{beginning}{number}+{number}="} for number in range(1, 17)])


def stock_model(name: str) -> PreTrainedModel:
    torch.manual_seed(42)
    model = load_model(tiny_run().model)
    if name == "lora":
        torch.manual_seed(42)
        config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
        return get_peft_model(model, config)
    if name != "full":
        model.requires_grad_(False)
        blocks = find_blocks(model)
        for block in blocks[:2] if name == "first_k" else blocks[-2:]:
            block.requires_grad_(True)
    return model


def history(trainer: GRPOTrainer) -> list[dict[str, float]]:
    trainer.train()
    return [line for line in trainer.state.log_history if "loss" in line]


@functools.cache
def run_stock(name: str, beginning: str = "", **settings: Any) -> list[dict[str, float]]:
    """Stock TRL's history, once for every test that compares with these settings."""
    tokenizer = load_tokenizer(tiny_run().model)
    with tempfile.TemporaryDirectory() as folder:
        args = arguments(Path(folder), **settings)
        return history(Stock(stock_model(name), reward, args, train_dataset=prompts(beginning), processing_class=tokenizer))


def run_ours(
    name: str, folder: Path, optimizations: Optimizations | None = None, beginning: str = "", **settings: Any
) -> list[dict[str, float]]:
    tokenizer = load_tokenizer(tiny_run().model)
    trainer = Ours(
        load_model(tiny_run().model), reward, arguments(folder, **settings), train_dataset=prompts(beginning),
        processing_class=tokenizer, strategy=STRATEGIES[name], optimizations=optimizations,
    )  # fmt: skip
    return history(trainer)


def assert_equal(ours: list[dict[str, float]], stock: list[dict[str, float]], kl: bool, tolerance: float = 1e-5) -> None:
    assert len(ours) == len(stock) == STEPS
    for mine, theirs in zip(ours, stock, strict=True):
        for key in ("loss", "grad_norm", *(("kl",) if kl else ())):
            assert mine[key] == pytest.approx(theirs[key], rel=tolerance, abs=tolerance), (key, mine, theirs)
    assert min(line["grad_norm"] for line in stock) > 1e-3
    assert not kl or stock[-1]["kl"] > 1e-4


CASES = list(itertools.product(STRATEGIES, (0.0, 0.04), (1, 3)))
FAST_CASES = (("full", 0.04, 3), ("last_k", 0.04, 3), ("lora", 0.0, 3))
FAST_SAVINGS = ("trunk_cache_bytes", "skip_zero_variance", "shared_prefixes")
LOSSES = ("grpo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo")


@pytest.mark.parametrize(
    ("name", "beta", "iterations"),
    [pytest.param(*case, marks=() if case in FAST_CASES else pytest.mark.slow) for case in CASES],
)
def test_loss_kl_and_gradient_norm_equal_stock_trl(name: str, beta: float, iterations: int, tmp_path: Path) -> None:
    settings = {"beta": beta, "num_iterations": iterations}
    stock = run_stock(name, **settings)
    assert_equal(run_ours(name, tmp_path, **settings), stock, kl=beta > 0)


@pytest.mark.parametrize("name", slow_unless(("full", "lora"), STRATEGIES))
def test_without_any_saving_the_numbers_are_those_too(name: str, tmp_path: Path) -> None:
    settings = {"beta": 0.04, "num_iterations": 3}
    assert_equal(run_ours(name, tmp_path, NONE, **settings), run_stock(name, **settings), kl=True)


@pytest.mark.parametrize("saving", slow_unless(FAST_SAVINGS, [field.name for field in fields(Optimizations)]))
def test_every_saving_alone_leaves_the_numbers_as_they_are(saving: str, tmp_path: Path) -> None:
    alone = Optimizations(
        **{
            field.name: getattr(Optimizations() if field.name == saving else NONE, field.name)
            for field in fields(Optimizations)
        }
    )
    settings = {"beta": 0.0 if saving == "skip_zero_variance" else 0.04, "num_iterations": 3, "gradient_checkpointing": True}
    stock = run_stock("last_k", **settings)
    assert_equal(run_ours("last_k", tmp_path, alone, **settings), stock, kl=settings["beta"] > 0)


@pytest.mark.parametrize(("name", "passes"), [("last_k", 1), pytest.param("lora", 2, marks=pytest.mark.slow)])
def test_prompts_that_begin_alike_leave_the_numbers_as_they_are(
    name: str, passes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set[int]()
    compute = SharedPrefixes._compute_prompts

    def counted(shared: SharedPrefixes, keywords: dict[str, Any]) -> Any:
        seen.add(shared._plan.common)
        return compute(shared, keywords)

    monkeypatch.setattr(SharedPrefixes, "_compute_prompts", counted)
    settings = {"beginning": "1+2=3 4+5=9 ", "beta": 0.04, "num_iterations": 3, "gradient_accumulation_steps": passes}
    # Adam's first updates follow the sign of gradients that rounding can turn.
    assert_equal(run_ours(name, tmp_path, **settings), run_stock(name, **settings), kl=True, tolerance=1e-4)
    assert max(seen) >= len("1+2=3 4+5=9 ")


@pytest.mark.parametrize("loss_type", slow_unless(("grpo", "cispo"), LOSSES))
def test_skipped_groups_leave_every_loss_as_it_is(loss_type: str, tmp_path: Path) -> None:
    settings = {"loss_type": loss_type, "num_iterations": 3, "gradient_accumulation_steps": 2}
    stock = run_stock("last_k", **settings)
    assert_equal(run_ours("last_k", tmp_path, **settings), stock, kl=False)
