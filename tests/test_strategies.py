"""Exactly the promised tensors change in a few real steps; all others stay bit-identical."""

import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen2Config

from efficient_rl.models import load_model
from efficient_rl.strategies.adapters import Lora
from efficient_rl.strategies.blocks import find_blocks
from efficient_rl.strategies.static import FirstK, Full, LastK
from tests.conftest import execute_tiny, tiny_run

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "vocab_size": 50}
PROMISED = {
    "strategy=full": r".",
    "strategy=first_k strategy.k=1": r"layers\.0\.",
    "strategy=last_k strategy.k=2": r"layers\.[45]\.",
    "strategy=last_k strategy.k=1 strategy.also_train=[norm]": r"layers\.5\.|^model\.norm\.",
}


@pytest.mark.parametrize("overrides", PROMISED)
def test_exactly_the_promised_tensors_change(tmp_path: Path, overrides: str) -> None:
    before = load_model(tiny_run().model).state_dict()
    _, record = execute_tiny(tmp_path, *overrides.split(), "grpo.learning_rate=1e-3")
    after = AutoModelForCausalLM.from_pretrained(record.folder / "model").state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if re.search(PROMISED[overrides], name)}


def test_lora_leaves_the_base_as_it_was_and_trains_every_adapter(tmp_path: Path) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file

    base = load_model(tiny_run().model)
    _, record = execute_tiny(tmp_path, "strategy=lora", "lora.rank=2", "grpo.learning_rate=1e-3")
    adapters = load_file(record.folder / "model" / "adapter_model.safetensors")
    assert len(adapters) == 6 * 7 * 2
    assert all(bool(tensor.abs().sum() > 0) for name, tensor in adapters.items() if "lora_B" in name)
    wrapped = PeftModel.from_pretrained(load_model(tiny_run().model), record.folder / "model")
    with wrapped.disable_adapter():
        ids = torch.tensor([[10, 11, 12]])
        assert torch.equal(wrapped(ids).logits, base(ids).logits)


@pytest.mark.parametrize(
    "config",
    [
        Qwen2Config(**SMALL, num_key_value_heads=2),
        LlamaConfig(**SMALL),
        GPT2Config(n_embd=16, n_layer=4, n_head=2, vocab_size=50),
    ],
    ids=lambda config: config.model_type,
)
def test_blocks_are_found_in_every_architecture(config: object) -> None:
    model = AutoModelForCausalLM.from_config(config)
    blocks = find_blocks(model)
    assert len(blocks) == 4
    trained = {id(p) for p in FirstK(2).apply(model).parameters() if p.requires_grad}
    assert trained == {id(p) for block in blocks[:2] for p in block.parameters()}
    trained = {id(p) for p in LastK(3).apply(model).parameters() if p.requires_grad}
    assert trained == {id(p) for block in blocks[1:] for p in block.parameters()}
    assert all(p.requires_grad for p in Full().apply(model).parameters())


def test_parameter_counts_are_those_worked_out_by_hand() -> None:
    hidden, inner, rank = 64, 192, 8
    block = (
        4 * hidden * hidden + 3 * hidden + 3 * hidden * inner + 2 * hidden
    )  # attention with its q, k, v biases, MLP, norms
    model = load_model(tiny_run().model)
    count = lambda m: sum(p.numel() for p in m.parameters() if p.requires_grad)  # noqa: E731
    assert count(FirstK(2).apply(model)) == 2 * block
    assert count(Full().apply(model)) == 6 * block + 36 * hidden + hidden  # tied embeddings, final norm
    adapters = 4 * rank * (hidden + hidden) + 3 * rank * (hidden + inner)
    assert count(Lora(rank=rank, alpha=16).apply(model)) == 6 * adapters


def test_more_blocks_than_there_are_is_refused_with_the_bound() -> None:
    with pytest.raises(ValueError, match=r"strategy.k=7 exceeds the model's 6 blocks; use k<=6 or strategy=full"):
        LastK(7).apply(load_model(tiny_run().model))


def test_a_name_that_selects_nothing_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match=r"also_train='lm_hed' names no parameter; parts of this model: .*embed_tokens"):
        LastK(1, also_train=["lm_hed"]).apply(load_model(tiny_run().model))
