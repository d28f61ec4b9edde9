"""Inside `merged` a model computes the same from its weights alone; afterwards nothing tells that it did."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model

from efficient_rl.strategies.adapter_targets import adapter_layers
from efficient_rl.training.merging import merged
from tests.test_adapters import IDS, TRAINABLE, applied, nano, strategy_of, trainable


def moved(*overrides: str) -> PeftModel:
    """Adapters that are no longer the identity."""
    model = applied(strategy_of(*overrides)).eval()
    for parameter in trainable(model).values():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model


@contextmanager
def unchanged(model: torch.nn.Module) -> Iterator[None]:
    """Every tensor is afterwards the same object, at the same place, with the same numbers and flags."""

    def look() -> dict[str, Any]:
        tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
        return {name: (id(t), t.data_ptr(), t.requires_grad, t.detach().clone()) for name, t in tensors}

    before = look()
    yield
    after = look()
    assert before.keys() == after.keys()
    assert all(after[name][:3] == before[name][:3] and torch.equal(after[name][3], before[name][3]) for name in before)
    for _, layer in adapter_layers(model):
        assert (layer.merged_adapters, getattr(layer, "_caches", {}), layer.disable_adapters) == ([], {}, False)


@pytest.mark.parametrize("name", TRAINABLE)
@torch.no_grad()
def test_merged_logits_are_the_adapters_logits(name: str) -> None:
    model = moved(f"strategy={name}")
    beside = model(IDS).logits
    with unchanged(model), merged(model):
        assert all(layer.merged for _, layer in adapter_layers(model))
        inside = model(IDS).logits
    torch.testing.assert_close(inside, beside, rtol=1e-5, atol=1e-5 * float(beside.abs().max()))
    assert torch.equal(model(IDS).logits, beside)


@pytest.mark.parametrize("name", ["lora", "dora", "ia3", "oft"])
def test_an_exception_inside_leaves_the_same_model_behind(name: str) -> None:
    model = moved(f"strategy={name}")
    with unchanged(model), pytest.raises(KeyError), merged(model):
        raise KeyError


@torch.no_grad()
def test_merging_inside_of_merging_merges_once() -> None:
    model = moved("strategy=lora")
    with unchanged(model), merged(model):
        once = model(IDS).logits
        with merged(model):
            assert torch.equal(model(IDS).logits, once)
        assert torch.equal(model(IDS).logits, once)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@torch.no_grad()
def test_a_head_that_shares_its_weight_merges_without_touching_the_embeddings() -> None:
    model = moved("strategy=lora", "lora.target_modules=[lm_head]")
    beside = model(IDS).logits
    with unchanged(model), merged(model):
        torch.testing.assert_close(model(IDS).logits, beside, rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_switched_off_adapters_stay_off() -> None:
    model, base = moved("strategy=lora"), nano()
    with model.disable_adapter(), merged(model):
        assert torch.equal(model(IDS).logits, base(IDS).logits)


@torch.no_grad()
def test_what_cannot_merge_works_as_before() -> None:
    base = nano()
    prompt = get_peft_model(nano(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    activated = get_peft_model(
        nano(),
        LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], alora_invocation_tokens=[5], init_lora_weights=False),
    )
    for model in (base, prompt, activated):
        before = model.eval()(input_ids=IDS).logits
        with unchanged(model), merged(model):
            assert torch.equal(model(input_ids=IDS).logits, before)


def test_gradients_reach_the_adapters_after_merging() -> None:
    model = moved("strategy=dora")
    with merged(model), torch.no_grad():
        model(IDS)
    model(IDS).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in trainable(model).values())
