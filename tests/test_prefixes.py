"""Shared prompts: the same hidden states and gradients as whole rows, for fewer tokens, on many architectures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)  # fmt: skip
from trl import GRPOConfig

from efficient_rl.models import load_model
from efficient_rl.training.model_setup import Optimizations
from efficient_rl.training.prefixes import SharedPrefixes, moves_freely, plan_of
from efficient_rl.training.trunk import TrunkCache
from tests.conftest import tiny_run

GROUPS, SIZE, COLUMNS, WIDTH, COMMON = 3, 4, 20, 9, 6
SHAPE: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 64,
}  # fmt: skip
GROUPED = {**SHAPE, "intermediate_size": 48, "num_key_value_heads": 2}
CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "rotary": lambda: LlamaConfig(**GROUPED),
    "biases": lambda: Qwen2Config(**GROUPED),
    "sliding window": lambda: Gemma3TextConfig(**GROUPED, head_dim=8, sliding_window=8, layer_types=LAYER_TYPES),
    "learned positions": lambda: GPT2Config(
        vocab_size=64, n_embd=32, n_layer=3, n_head=4, n_positions=64, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    ),
    "positions from the mask": lambda: OPTConfig(**SHAPE, word_embed_proj_dim=32, ffn_dim=48, dropout=0.0),
    "ALiBi": lambda: BloomConfig(vocab_size=64, hidden_size=32, n_layer=3, n_head=4, hidden_dropout=0, attention_dropout=0),
    "experts": lambda: MixtralConfig(**GROUPED, num_local_experts=4),
}
LAYER_TYPES = ["sliding_attention", "sliding_attention", "full_attention"]


def model_of(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    return model


def batch(padding: tuple[int, ...] = (0,) * GROUPS) -> tuple[torch.Tensor, torch.Tensor]:
    """Three prompts that begin alike, each with four completions of different lengths."""
    random = torch.Generator().manual_seed(1)
    prompts = torch.randint(3, 60, (GROUPS, COLUMNS), generator=random)
    mask = torch.ones_like(prompts)
    for row, pads in enumerate(padding):
        mask[row, :pads] = 0
        prompts[row, :pads] = 0
        prompts[row, pads : pads + COMMON] = torch.arange(10, 10 + COMMON)
        prompts[row, pads + COMMON] = row + 3
    group = torch.arange(GROUPS).repeat_interleave(SIZE)
    completions = torch.randint(3, 60, (GROUPS * SIZE, WIDTH), generator=random)
    width = torch.randint(1, WIDTH + 1, (GROUPS * SIZE, 1), generator=random)
    own = (torch.arange(WIDTH) < width).long()
    return torch.cat((prompts[group], completions), 1), torch.cat((mask[group], own), 1)


def shared_of(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, rows: torch.Tensor) -> SharedPrefixes:
    plan = plan_of(ids[:, :COLUMNS], mask[:, :COLUMNS], rows, 1, moves_freely(model.config))
    assert plan is not None
    return SharedPrefixes(model, plan, TrunkCache(model, 0))


def needed(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The hidden states that predict the completions' tokens, others 0."""
    hidden: torch.Tensor = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return hidden[:, COLUMNS - 1 : -1] * mask[:, COLUMNS:, None]


def gradients(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """Of a weighted sum of the hidden states, all weights in a row."""
    model.zero_grad()
    (hidden * torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    trained = (weight for weight in model.parameters() if weight.grad is not None)
    return torch.cat([weight.grad.flatten() for weight in trained if weight.grad is not None])


@pytest.mark.parametrize("padding", [(0, 0, 0), (3, 3, 3), (0, 4, 2)])
@pytest.mark.parametrize("kind", CONFIGS)
def test_hidden_states_and_gradients_are_those_of_whole_rows(kind: str, padding: tuple[int, ...]) -> None:
    model = model_of(CONFIGS[kind]())
    ids, mask = batch(padding)
    rows = torch.arange(len(ids))
    plain = needed(model, ids, mask)
    expected = gradients(model, plain)
    with shared_of(model, ids, mask, rows).passing(rows):
        found = needed(model, ids, mask)
    assert torch.allclose(found, plain, rtol=1e-5, atol=1e-5)
    assert torch.allclose(gradients(model, found), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(("kind", "together"), [("rotary", COMMON), ("sliding window", 0), ("learned positions", 0)])
def test_padding_keeps_prompts_apart_only_where_the_model_sees_places(kind: str, together: int) -> None:
    config = CONFIGS[kind]()
    ids, mask = batch((0, 4, 2))
    plan = plan_of(ids[:, :COLUMNS], mask[:, :COLUMNS], torch.arange(len(ids)), 1, moves_freely(config))
    assert plan is not None
    assert plan.common == together


def test_adapters_and_some_rows_in_two_passes_share_one_prompt_pass() -> None:
    bare = model_of(CONFIGS["rotary"]())
    model: Any = get_peft_model(bare, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    ids, mask = batch()
    rows = torch.tensor([1, 2, 3, 7, 8, 10])
    shared = shared_of(model, ids, mask, rows)
    calls: list[int] = []
    bare.get_input_embeddings().register_forward_hook(lambda _, inputs, __: calls.append(inputs[0].numel()))
    found = []
    for part in (rows[:2], rows[2:]):
        with shared.passing(part):
            found.append(needed(bare, ids[part], mask[part]))
    assert calls == [COMMON, 3 * (COLUMNS - COMMON), 2 * (WIDTH - 1), 4 * (WIDTH - 1)]
    plain = needed(bare, ids[rows], mask[rows])
    assert torch.allclose(torch.cat(found), plain, rtol=1e-5, atol=1e-5)
    assert torch.allclose(gradients(model, torch.cat(found)), gradients(model, plain), rtol=1e-4, atol=1e-4)


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_a_plan_groups_equal_prompts_and_never_costs_more(data: st.DataObject) -> None:
    columns, rows, cost = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 12)), data.draw(st.integers(0, 20))
    ids = torch.tensor(
        data.draw(st.lists(st.lists(st.integers(0, 1), min_size=columns, max_size=columns), min_size=rows, max_size=rows))
    )
    kept = torch.tensor(sorted(data.draw(st.sets(st.integers(0, rows - 1), min_size=1))))
    plan = plan_of(ids, torch.ones_like(ids), kept, cost)
    prompts = {tuple(row) for row in ids[kept].tolist()}
    plain = len(kept) * columns
    if plan is None:
        assert len(kept) < 2 or len(prompts) * columns + cost >= plain or len(prompts) * columns >= plain
        return
    assert torch.equal(ids[plan.first_rows][plan.group[kept]], ids[kept])
    assert len(plan.first_rows) == len(prompts)
    assert len({tuple(row[: plan.common]) for row in prompts}) == 1
    own = plan.common + len(prompts) * (columns - plan.common)
    assert own + cost * (1 + (plan.common > 0)) < plain


@pytest.mark.parametrize(
    ("change", "shares"),
    [
        ({}, True),
        ({"gradient_checkpointing": True}, False),
        ({"fsdp": "full_shard"}, False),
    ],
)
def test_it_steps_aside_where_it_cannot(change: dict[str, Any], shares: bool, tmp_path: Path) -> None:
    model = load_model(tiny_run().model)
    arguments = GRPOConfig(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, **({"gradient_checkpointing": False} | change)
    )
    assert Optimizations().usable(model, arguments, refills=False, shards=False).shared_prefixes is shares
    model.config.attention_dropout = 0.1
    assert not Optimizations().usable(model, arguments, refills=False, shards=False).shared_prefixes
