"""Training less costs less: what is frozen takes no part in passes, memory or exchanges; what cannot work is refused."""

import logging
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedModel
from trl import GRPOConfig

from efficient_rl.models import load_model, load_tokenizer
from efficient_rl.strategies.adapters import Lora
from efficient_rl.strategies.blocks import find_blocks, names_by_block
from efficient_rl.strategies.protocol import Strategy
from efficient_rl.strategies.static import FirstK, Full, LastK
from efficient_rl.strategies.switching import Switching
from efficient_rl.training import grpo, scoring
from efficient_rl.training.grpo import EfficientGRPOTrainer, Optimizations
from efficient_rl.training.memory import leaves, tensor_bytes
from efficient_rl.training.reference import OverlayReference
from efficient_rl.training.trunk import HIDDEN, TrunkCache, frozen_depth
from tests.conftest import tiny_run

NANO = tiny_run().model


def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [len(ids) / 10 + index % 3 for index, ids in enumerate(completion_ids)]


def make(folder: Path, strategy: Strategy, model: PreTrainedModel | None = None, **settings: Any) -> EfficientGRPOTrainer:
    optimizations = settings.pop("optimizations", None)
    reward_function = settings.pop("reward", reward)
    data = settings.pop("train_dataset", Dataset.from_list([{"prompt": f"{number}+1="} for number in range(1, 9)]))
    base: dict[str, Any] = {
        "output_dir": str(folder), "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 8,
        "max_steps": 2, "learning_rate": 1e-3, "logging_steps": 1, "report_to": [], "disable_tqdm": True, "bf16": False,
        "use_cpu": True, "save_strategy": "no", "gradient_checkpointing": False,
    }  # fmt: skip
    return EfficientGRPOTrainer(
        load_model(NANO) if model is None else model,
        reward_function,
        GRPOConfig(**(base | settings)),
        train_dataset=data,
        processing_class=load_tokenizer(NANO),
        strategy=strategy,
        optimizations=optimizations,
    )


def count_forwards(model: PreTrainedModel) -> Counter[int]:
    """How often each block computes; a block whose forward is replaced does not."""
    counts: Counter[int] = Counter()
    for index, block in enumerate(find_blocks(model)):
        block.input_layernorm.register_forward_hook(lambda *_, i=index: counts.update([i]))
    return counts


# Gradient checkpointing


def test_with_checkpointing_the_backward_pass_recomputes_only_trained_blocks(tmp_path: Path) -> None:
    trainer = make(tmp_path, LastK(2), gradient_checkpointing=True, max_steps=1)
    trainer._generate_single_turn = lambda ids, *_, **__: ([[5, 6, 7]] * len(ids), None)  # type: ignore[method-assign]
    counts = count_forwards(trainer.model)
    trainer.train()
    assert [counts[index] for index in range(6)] == [1, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("strategy", [LastK(2), Lora(rank=2, alpha=4)], ids=["last_k", "lora"])
def test_checkpointing_leaves_no_hook_behind(tmp_path: Path, strategy: Strategy) -> None:
    trainer = make(tmp_path, strategy, gradient_checkpointing=True, beta=0.04)
    embedding = trainer.model.get_input_embeddings()
    trainer.train()
    assert len(embedding._forward_hooks) == len(embedding._forward_pre_hooks) == 0


def gradients(trainer: EfficientGRPOTrainer) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    original = trainer.parameters.before_update

    def keep(optimizer: torch.optim.Optimizer) -> None:
        found.update({n: p.grad.clone() for p, n in trainer.parameters.names.items() if p.grad is not None})
        original(optimizer)

    trainer.parameters.before_update = keep  # type: ignore[method-assign]
    trainer.train()
    return found


@pytest.mark.parametrize("strategy", [LastK(1), FirstK(1), Full(), Lora(rank=2, alpha=4)], ids=lambda s: type(s).__name__)
def test_gradients_with_and_without_checkpointing_are_the_same(tmp_path: Path, strategy: Strategy) -> None:
    torch.manual_seed(0)
    plain = gradients(make(tmp_path, strategy, max_steps=1))
    torch.manual_seed(0)
    checkpointed = gradients(make(tmp_path, strategy, max_steps=1, gradient_checkpointing=True))
    assert plain.keys() == checkpointed.keys() != set()
    for name in plain:
        torch.testing.assert_close(checkpointed[name], plain[name], rtol=1e-5, atol=1e-7)


# Reference


def test_the_reference_holds_only_what_can_train(tmp_path: Path) -> None:
    trainer = make(tmp_path, LastK(2), beta=0.04)
    assert trainer.reference_bytes == 4 * trainer.parameters.trainable_count < 4 * 323_776 / 2
    assert make(tmp_path, Lora(rank=2, alpha=4), beta=0.04).reference_bytes == 0
    assert make(tmp_path, LastK(2), beta=0.0).reference_bytes == 0


def test_a_restored_reference_computes_as_before_training_and_gives_the_policy_back() -> None:
    model = LastK(2).apply(load_model(NANO))
    ids = torch.tensor([[10, 11, 12]])
    before = model(ids).logits
    reference = OverlayReference(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    trained = model(ids).logits
    with reference.restored(), torch.no_grad():
        assert torch.equal(model(ids).logits, before)
    assert torch.equal(model(ids).logits, trained)
    assert not torch.equal(trained, before)


def test_the_policy_comes_back_when_the_reference_pass_fails() -> None:
    model = LastK(1).apply(load_model(NANO))
    reference = OverlayReference(model)
    weight = find_blocks(model)[5].mlp.up_proj.weight
    with torch.no_grad():
        weight.add_(1)
    changed = weight.detach().clone()
    with pytest.raises(KeyError), reference.restored():
        raise KeyError("out of memory, say")
    assert torch.equal(weight, changed)


def test_sharded_training_keeps_trls_own_reference_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        trainer = make(tmp_path, LastK(2), beta=0.04, sync_ref_model=True)
    assert isinstance(trainer.ref_model, torch.nn.Module)
    assert "sync_ref_model needs a second whole model" in caplog.text


# Frozen trunk


def test_frozen_blocks_compute_once_for_all_passes_and_updates(tmp_path: Path) -> None:
    trainer = make(tmp_path, LastK(2), beta=0.04, num_iterations=3, max_steps=3)
    trainer._generate_single_turn = lambda ids, *_, **__: ([[5, 6, 7]] * len(ids), None)  # type: ignore[method-assign]
    counts = count_forwards(trainer.model)
    trainer.train()
    assert [counts[index] for index in range(6)] == [1, 1, 1, 1, 5, 5]  # old, reference, three updates
    counts.clear()
    trainer = make(
        tmp_path, LastK(2), beta=0.04, num_iterations=3, max_steps=3, optimizations=Optimizations(trunk_cache_bytes=0)
    )
    trainer._generate_single_turn = lambda ids, *_, **__: ([[5, 6, 7]] * len(ids), None)  # type: ignore[method-assign]
    counts = count_forwards(trainer.model)
    trainer.train()
    assert [counts[index] for index in range(6)] == [5] * 6


def test_a_trunk_that_would_not_fit_says_what_it_needs_and_steps_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make(tmp_path, LastK(2), beta=0.04, optimizations=Optimizations(trunk_cache_bytes=10_000))
    counts = count_forwards(trainer.model)
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert counts[0] == counts[5]
    assert len([r for r in caplog.records if "the trunk cache would need" in r.message]) == 1


def test_the_trunk_of_a_prompt_is_kept_once_and_not_once_a_completion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "PASS_COST_TOKENS", 4)
    prompt, rows, size, completion = "1+2+3+4+5+6+7+8+9=", 16, 4, 3
    data = Dataset.from_list([{"prompt": prompt.replace("9", str(last))} for last in range(10, 18)])
    kept, losses = {}, {}
    for shares in (True, False):
        optimizations = Optimizations(shared_prefixes=shares)
        settings = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "max_steps": 3}
        trainer = make(
            tmp_path, LastK(2), beta=0.04, num_iterations=2, train_dataset=data, optimizations=optimizations, **settings
        )
        trainer._generate_single_turn = lambda ids, *_, **__: ([[5 + row % 4, 6, 7] for row in range(len(ids))], None)  # type: ignore[method-assign]
        trainer.train()
        batches: Any = trainer._buffered_inputs
        width = batches[0]["prompt_ids"].shape[1]
        kept[shares] = tensor_bytes(leaves(batch[HIDDEN] for batch in batches)) // (4 * trainer.model.config.hidden_size)
        losses[shares] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert kept[False] == rows * (width + completion)
    assert kept[True] <= rows // size * width + rows * (completion - 1)
    assert losses[True] == pytest.approx(losses[False], abs=1e-6)
    assert any(abs(loss) > 1e-5 for loss in losses[True])


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2, vocab_size=50),
        GPT2Config(n_embd=16, n_layer=4, n_head=2, vocab_size=50, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0),
    ],
    ids=lambda config: config.model_type,
)
def test_the_trunk_is_exact_on_other_architectures(config: object) -> None:
    model = LastK(1).apply(AutoModelForCausalLM.from_config(config))
    assert frozen_depth(model, {n for n, p in model.named_parameters() if p.requires_grad}) == 3
    trunk = TrunkCache(model, 1 << 20)
    trunk.begin(3, 4)
    ids = torch.randint(0, 50, (4, 6))
    whole = model(ids).logits
    for rows in (torch.tensor([0, 2]), torch.tensor([1, 3])):
        with trunk.passing(rows, 6, 6, 3):
            model(ids[rows])
    with trunk.passing(torch.tensor([3, 1]), 6, 6, 3):
        served = model(torch.zeros_like(ids[[3, 1]])).logits  # the tokens no longer matter: only blocks behind the trunk run
    torch.testing.assert_close(served, whole[[3, 1]], rtol=1e-6, atol=1e-6)
    assert "forward" not in find_blocks(model)[0].__dict__


def test_dropout_keeps_the_trunk_from_being_shared() -> None:
    model = LastK(1).apply(AutoModelForCausalLM.from_config(GPT2Config(n_embd=16, n_layer=4, n_head=2, vocab_size=50)))
    trunk = TrunkCache(model, 1 << 20)
    trunk.begin(3, 2)
    with trunk.passing(torch.tensor([0, 1]), 4, 4, 3):
        model(torch.randint(0, 50, (2, 4)))
    assert trunk.take() == {}


def test_trained_embeddings_or_an_early_block_leave_no_frozen_trunk() -> None:
    model = load_model(NANO)
    assert frozen_depth(model, {"model.layers.4.mlp.up_proj.weight", "model.norm.weight"}) == 4
    assert frozen_depth(model, {"model.norm.weight"}) == 6
    assert frozen_depth(model, {"model.embed_tokens.weight", "model.layers.4.mlp.up_proj.weight"}) == 0
    assert frozen_depth(model, {"lm_head.weight"}) == 0  # tied: it is the embedding too
    shared = model.model.layers[1].mlp.up_proj.weight
    model.model.layers[5].mlp.up_proj.weight = shared
    assert frozen_depth(model, {"model.layers.1.mlp.up_proj.weight"}) == 1


# Groups without variance


def test_a_batch_in_which_nobody_is_better_computes_no_pass(tmp_path: Path) -> None:
    trainer = make(tmp_path, LastK(2), reward=lambda completion_ids, **_: [1.0] * len(completion_ids), max_steps=1)
    trainer._generate_single_turn = lambda ids, *_, **__: ([[5, 6, 7]] * len(ids), None)  # type: ignore[method-assign]
    counts = count_forwards(trainer.model)
    trainer.train()
    assert sum(counts.values()) == 0
    assert trainer.state.log_history[0]["loss"] == 0


def test_adam_moves_on_without_a_gradient_as_it_does_in_trl(tmp_path: Path) -> None:
    def sometimes(completion_ids: list[list[int]], trainer_state: Any, **_: Any) -> list[float]:
        return [float(index % 2) if trainer_state.global_step < 2 else 1.0 for index in range(len(completion_ids))]

    def trained(skip: bool) -> list[torch.Tensor]:
        optimizations = Optimizations(skip_zero_variance=skip)
        trainer = make(tmp_path, LastK(1), reward=sometimes, max_steps=4, optimizations=optimizations)
        random = Random(0)
        trainer._generate_single_turn = lambda ids, *_, **__: (  # type: ignore[method-assign]
            [[random.randrange(3, 30) for _ in range(4)] for _ in ids],
            None,
        )
        trainer.train()
        return [p.detach().clone() for p in find_blocks(trainer.model)[5].parameters()]

    for ours, trls in zip(trained(True), trained(False), strict=True):
        torch.testing.assert_close(ours, trls, rtol=1e-5, atol=1e-7)


# Memory


def test_bytes_are_exact_on_a_cpu(tmp_path: Path) -> None:
    trainer = make(tmp_path, LastK(2), beta=0.04, max_steps=2)
    trainer.train()
    found = trainer.meter.take_bytes()
    trained = 107_136
    state_steps = 2 * 12 * 4  # AdamW's step counters: one float32 for each of 12 tensors a block
    assert found["parameters"] >= 4 * 323_776
    assert found["parameters"] - 4 * 323_776 < 4 * 64  # rotary frequencies
    assert found["gradients"] == found["reference"] == 4 * trained
    assert found["optimizer_state"] == 8 * trained + state_steps
    assert found["activations"] > 0
    base = found["parameters"] + found["reference"]
    assert found["generation_peak"] > base
    assert found["forward_peak"] >= base + found["optimizer_state"] + found["activations"]
    assert found["optimizer_peak"] >= base + found["gradients"] + found["optimizer_state"]
    assert {"reference_peak", "backward_peak"} <= set(found)


def test_fewer_trained_blocks_save_fewer_activations(tmp_path: Path) -> None:
    saved = []
    for strategy in (LastK(1), LastK(3), Full()):
        trainer = make(tmp_path, strategy, max_steps=1)
        trainer._generate_single_turn = lambda ids, *_, **__: ([[5, 6, 7]] * len(ids), None)  # type: ignore[method-assign]
        trainer.train()
        saved.append(trainer.meter.take_bytes()["activations"])
    block = (saved[1] - saved[0]) / 2
    assert saved[0] < saved[1] < saved[2]
    assert saved[2] - saved[1] == pytest.approx(3 * block, rel=0.1)


# Refusals


class Frozen(Strategy):
    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        return model.requires_grad_(False)


def test_a_strategy_that_trains_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing is left to train: every parameter is frozen"):
        make(tmp_path, Frozen())


def test_weights_that_do_not_move_are_refused(tmp_path: Path) -> None:
    model = load_model(NANO).to(torch.bfloat16)
    with pytest.raises(
        RuntimeError, match=r"had a gradient in 3 steps and none of them moved.*1e-09 is lost in torch.bfloat16"
    ):
        make(tmp_path, LastK(1), model, learning_rate=1e-9, max_steps=6, warmup_steps=1).train()


def test_a_strategy_beside_a_peft_configuration_is_refused(tmp_path: Path) -> None:
    from peft import LoraConfig

    with pytest.raises(ValueError, match="strategy= and peft_config= both say what trains"):
        EfficientGRPOTrainer(
            load_model(NANO), reward, GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False), strategy=LastK(1),
            peft_config=LoraConfig(),
        )  # fmt: skip


def test_continuous_batching_on_a_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"continuous batching on a CPU.*grpo.sampler=own"):
        make(tmp_path, LastK(1), use_transformers_continuous_batching=True)


def test_it_takes_what_trls_trainer_takes_a_model_by_its_path_too(tmp_path: Path) -> None:
    trainer = EfficientGRPOTrainer(
        str(NANO.folder), reward, GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[]),
        train_dataset=Dataset.from_list([{"prompt": "1+1="}]), strategy=LastK(1),
    )  # fmt: skip
    assert trainer.parameters.trainable_count == 53_568


@pytest.mark.parametrize("setting", [{"repetition_penalty": 1.3}, {"min_p": 0.1}, {"generation_kwargs": {"num_beams": 1}}])
def test_sampling_that_only_transformers_can_do_is_left_to_it(tmp_path: Path, setting: dict[str, Any]) -> None:
    trainer = make(tmp_path, LastK(1), max_steps=1, **setting)
    calls: list[Any] = []
    original = trainer.model.generate
    trainer.model.generate = lambda *a, **k: calls.append(k) or original(*a, **k)  # type: ignore[func-returns-value]
    trainer.train()
    assert len(calls) == 1


def test_our_sampler_draws_the_completions_and_each_generation_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[list[int]]] = []
    original = grpo.complete

    def noted(*arguments: Any) -> list[list[int]]:
        drawn.append(original(*arguments))
        return drawn[-1]

    monkeypatch.setattr(grpo, "complete", noted)
    settings = {"steps_per_generation": 1, "gradient_accumulation_steps": 2, "max_steps": 2}
    same_prompt = Dataset.from_list([{"prompt": "1+1="}] * 8)
    make(tmp_path, LastK(1), train_dataset=same_prompt, **settings).train()
    assert len(drawn) == 4
    assert len({str(completions) for completions in drawn}) == 4


def test_a_trunk_under_which_a_schedule_trained_is_never_served_again(tmp_path: Path) -> None:
    def losses(trunk: int) -> list[float]:
        optimizations = Optimizations(trunk_cache_bytes=trunk)
        strategy = Turning(blocks=(3, 0, 4))
        trainer = make(
            tmp_path,
            strategy,
            num_iterations=3,
            max_steps=3,
            learning_rate=1e-2,
            optimizations=optimizations,
            warmup_steps=0,
        )
        random = Random(0)
        trainer._generate_single_turn = lambda ids, *_, **__: (  # type: ignore[method-assign]
            [[random.randrange(3, 30) for _ in range(4)] for _ in ids],
            None,
        )
        trainer.train()
        return [line["loss"] for line in trainer.state.log_history if "loss" in line]

    assert losses(1 << 20) == pytest.approx(losses(0), rel=1e-4, abs=1e-5)


class Turning(Strategy):
    """Trains one given block in each step."""

    def __init__(self, blocks: tuple[int, ...]) -> None:
        self.blocks = blocks

    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        model.requires_grad_(False)
        find_blocks(model).requires_grad_(True)
        return model

    def schedule(self, model: PreTrainedModel, seed: int, steps: int) -> "Turns":
        return Turns(model, self.blocks)


class Turns(Switching):
    def __init__(self, model: PreTrainedModel, blocks: tuple[int, ...]) -> None:
        super().__init__(model)
        self.blocks, self.by_block = blocks, names_by_block(model)

    def begin_step(self, step: int) -> None:
        self.switch(self.by_block[self.blocks[step]])


def test_a_model_that_is_not_built_of_blocks_trains_whole(tmp_path: Path) -> None:
    model = load_model(NANO)
    model.config.num_hidden_layers = 7  # as if its blocks were somewhere that nobody looks
    trainer = make(tmp_path, Full(), model, max_steps=1, num_iterations=2)
    assert trainer.parameters.trainable_count == 323_776


def test_the_callers_configuration_stays_as_it_is(tmp_path: Path) -> None:
    args = GRPOConfig(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[], beta=0.04, model_init_kwargs={"dtype": "bfloat16"}
    )
    data = Dataset.from_list([{"prompt": "1+1="}])
    for _ in range(2):
        trainer = EfficientGRPOTrainer(str(NANO.folder), reward, args, train_dataset=data, strategy=LastK(1))
        assert trainer.model.dtype == torch.bfloat16
    assert (args.beta, args.model_init_kwargs) == (0.04, {"dtype": "bfloat16"})


def test_a_reward_that_fails_leaves_nothing_being_measured(tmp_path: Path) -> None:
    def fails(**_: Any) -> list[float]:
        raise KeyError("gold")

    trainer = make(tmp_path, LastK(1), reward=fails)
    with pytest.raises(KeyError):
        trainer.train()
    assert not trainer.meter.measuring
    assert not torch._C._autograd._profiler_enabled()
