"""vLLM gets every weight once, and from then on only those that can have changed."""

from types import SimpleNamespace
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel
from trl.generation.vllm_generation import VLLMGeneration

from efficient_rl.models import load_model
from efficient_rl.strategies.static import LastK
from efficient_rl.training.weight_sync import ChangedWeightsOnly
from tests.conftest import tiny_run


class Engine(VLLMGeneration):  # type: ignore[misc]
    """TRL's own iteration over the weights, without an engine to send them to (it needs a GPU)."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._dist = SimpleNamespace(is_fsdp=False, gather_params=lambda parameters: _Nothing())
        self._weight_metadata: Any = "of an earlier exchange"
        self.received: list[dict[str, torch.Tensor]] = []

    def sync_weights(self) -> None:
        assert self._weight_metadata is None
        self.received.append({name: tensor.clone() for name, tensor in self._iter_named_params()})


class _Nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def nano() -> PreTrainedModel:
    return load_model(tiny_run().model)


def test_frozen_weights_are_sent_once() -> None:
    model = LastK(1).apply(nano())
    engine = Engine(model)
    changes = ChangedWeightsOnly(engine, model)
    engine.sync_weights()
    names = {n for n, p in model.named_parameters() if p.requires_grad}
    changes.note(names)
    with torch.no_grad():
        model.get_parameter("model.layers.5.mlp.up_proj.weight").add_(1)
    engine.sync_weights()
    engine.sync_weights()
    assert set(engine.received[0]) == {n for n, _ in model.named_parameters()}
    assert set(engine.received[1]) == names
    assert torch.equal(engine.received[1]["model.layers.5.mlp.up_proj.weight"], model.model.layers[5].mlp.up_proj.weight)
    assert engine.received[2] == {}


def test_everything_updated_since_the_last_exchange_is_sent() -> None:
    model = nano()
    engine = Engine(model)
    changes = ChangedWeightsOnly(engine, model)
    engine.sync_weights()
    changes.note({"model.norm.weight"})
    changes.note({"model.layers.0.mlp.up_proj.weight"})
    engine.sync_weights()
    assert set(engine.received[1]) == {"model.norm.weight", "model.layers.0.mlp.up_proj.weight"}


def test_adapters_are_sent_merged_and_the_base_keeps_every_bit() -> None:
    base = nano()
    before = {n: p.detach().clone() for n, p in base.named_parameters()}
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["up_proj"], layers_to_transform=[5], task_type="CAUSAL_LM")
    model = get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    engine = Engine(model)
    changes = ChangedWeightsOnly(engine, model)
    engine.sync_weights()
    changes.note({n for n, p in model.named_parameters() if p.requires_grad})
    engine.sync_weights()
    target = "model.layers.5.mlp.up_proj.weight"
    assert set(engine.received[0]) == set(before)
    assert set(engine.received[1]) == {target}
    layer = model.base_model.model.model.layers[5].mlp.up_proj
    expected = before[target] + 2 * layer.lora_B.default.weight @ layer.lora_A.default.weight
    torch.testing.assert_close(engine.received[1][target], expected)
    kept = {n.removeprefix("base_model.model.").replace(".base_layer", ""): p for n, p in model.named_parameters()}
    assert all(torch.equal(kept[name], before[name]) for name in before)
