"""Matrix products in bfloat16: what is kept in which type, and the same arithmetic wherever the model computes."""

import logging
import platform
import re
from collections import defaultdict
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from accelerate import Accelerator
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from efficient_rl.config.schema import ModelConfig
from efficient_rl.doctor.compute import check_compute
from efficient_rl.doctor.host import this_host
from efficient_rl.errors import ConfigError
from efficient_rl.models import load_model
from efficient_rl.run import Options, Stop, prepare
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.strategies.adapter_targets import is_linear
from efficient_rl.strategies.adapters import Lora
from efficient_rl.strategies.block_sampling import BAdam, Lisa
from efficient_rl.strategies.protocol import Strategy
from efficient_rl.strategies.static import Full, LastK
from efficient_rl.training.arithmetic import has_bfloat16
from efficient_rl.training.grpo import EfficientGRPOTrainer, Optimizations
from efficient_rl.training.sampler_gap import SAMPLED, SamplerGap
from tests.conftest import execute_tiny, tiny_run
from tests.test_run import resumed_equals_whole, weights
from tests.test_trainer import NANO, make

HALF = "model.compute=bfloat16"
LORA = Lora(rank=4, alpha=8)


def half(folder: Path, strategy: Strategy, keep: bool = True, model: PreTrainedModel | None = None) -> EfficientGRPOTrainer:
    settings = {"bf16": True, "max_steps": 3, "beta": 0.04}
    return make(folder, strategy, model, optimizations=Optimizations(half_frozen=keep), **settings)


def published() -> PreTrainedModel:
    """Nano as if it had been published in bfloat16, as most models are."""
    model = load_model(NANO)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    return model


@pytest.mark.parametrize(
    ("strategy", "frozen", "narrow"),
    [(Full(), 0, 0), (Lisa(), 0, 0), (BAdam(), 2, 1), (LastK(2), 50, 29), (LORA, 74, 43)],
    ids=["full", "lisa", "badam", "last_k", "lora"],
)
def test_only_matrices_that_can_never_train_are_kept_in_bfloat16(
    tmp_path: Path, strategy: Strategy, frozen: int, narrow: int
) -> None:
    trainer = half(tmp_path, strategy)
    trained = [p for p in trainer.parameters.names if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    rest = [p for p in trainer.parameters.names if not p.requires_grad]
    assert (len(rest), len([p for p in rest if p.dtype == torch.bfloat16])) == (frozen, narrow)
    assert {p.dim() for p in rest if p.dtype == torch.float32} <= {1}
    trainer.train()
    states = [value for state in trainer.optimizer.state.values() for value in state.values()]
    assert {value.dtype for value in states} == {torch.float32}


@pytest.mark.parametrize("strategy", [LORA, LastK(2)], ids=["lora", "last_k"])
def test_frozen_weights_in_bfloat16_change_no_bit_of_the_training(tmp_path: Path, strategy: Strategy) -> None:
    ends = []
    for keep in (False, True):
        trainer = half(tmp_path, strategy, keep, published())
        trainer.train()
        ends.append({name: p.detach().float() for p, name in trainer.parameters.names.items()})
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize(("compute", "wanted"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
@pytest.mark.parametrize("strategy", ["lora", "last_k"])
def test_sampling_evaluation_reference_and_training_compute_in_one_arithmetic(
    tmp_path: Path, compute: str, wanted: torch.dtype, strategy: str
) -> None:
    config = tiny_run(f"strategy={strategy}", f"model.compute={compute}", "grpo.beta=0.04", "grpo.num_iterations=2")
    with RunDirectory(tmp_path / config.config_hash).claim(config) as attempt:
        session = prepare(config, attempt, Options(), Stop())
        meter, seen = session.trainer.meter, defaultdict(set)
        for module in session.trainer.model.modules():
            if is_linear(module):
                module.register_forward_hook(
                    lambda _, __, output: seen[(meter._stack or ["evaluation"])[-1]].add(output.dtype)
                )
        session.evaluate(0)
        session.train()
    assert set(seen) == {"evaluation", "generation", "old_policy", "reference", "forward"}
    assert set.union(*seen.values()) == {wanted}


def test_attention_on_a_cpu_stays_in_float32_while_it_trains(tmp_path: Path) -> None:
    trainer, attended = half(tmp_path, LORA), []
    original = torch.nn.functional.scaled_dot_product_attention

    def attend(*states: torch.Tensor, **settings: Any) -> torch.Tensor:
        attended.append(original(*states, **settings))
        return attended[-1]

    with patch.object(torch.nn.functional, "scaled_dot_product_attention", attend):
        trainer.train()
    assert {found.dtype for found in attended} == {torch.float32}


def gaps(trainer: EfficientGRPOTrainer) -> list[float]:
    trainer.train()
    return [line["sampler_gap"] for line in trainer.state.log_history if "sampler_gap" in line]


@pytest.mark.parametrize("strategy", [LORA, Full()], ids=["lora", "full"])
def test_sampler_and_trainer_agree_up_to_rounding(tmp_path: Path, strategy: Strategy) -> None:
    whole = gaps(make(tmp_path, strategy, temperature=0.7, top_p=0.9))
    assert len(whole) == 2
    assert max(whole) < 1e-5
    assert max(gaps(half(tmp_path, strategy))) < 0.005


def test_the_gap_tells_a_sampler_that_computes_in_another_arithmetic(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = half(tmp_path, Full())
    trainer._gap = trainer._scorer._gap = SamplerGap(epsilon=0.02)

    def in_float32() -> AbstractContextManager[None]:
        return patch.object(trainer._bare, "forward", trainer._bare._original_forward)

    with patch.object(trainer, "sampling", in_float32), caplog.at_level(logging.WARNING):
        trainer.train()
    assert "apart in a token's log-probability on average, more than 0.001" in caplog.text


def test_a_gap_above_a_twentieth_of_the_clip_range_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    gap, accelerator = SamplerGap(epsilon=0.2), Accelerator(cpu=True)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    rows = torch.tensor([0, 1])

    def measured(off: float) -> list[float]:
        batch = gap.keep({SAMPLED: torch.zeros(2, 3), "completion_mask": mask}, of_vllm=False)
        gap.see(torch.tensor([[off, -off, 9.0], [off, 9.0, 9.0]]), rows, batch)
        return gap.take(accelerator)

    with caplog.at_level(logging.WARNING):
        assert measured(0.009) == [pytest.approx(0.009)]
        assert not caplog.records
        assert measured(0.011) == measured(0.011) == [pytest.approx(0.011)]
    assert len(caplog.records) == 1
    gap.see(torch.ones(2, 3), rows, {SAMPLED: torch.zeros(2, 3), "completion_mask": mask})  # a second update
    batch = {SAMPLED: torch.zeros(2, 3), "completion_mask": mask, "tool_mask": torch.tensor([[0, 1, 1], [1, 1, 1]])}
    gap.see(torch.tensor([[5.0, 0.0, 9.0], [0.0, 9.0, 9.0]]), rows, gap.keep(batch, of_vllm=False))
    assert gap.take(accelerator) == [0.0], "a tool's tokens are nobody's"
    assert gap.take(accelerator) == []  # the weights have changed since these tokens were drawn


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["lora", "last_k", "lisa"])
def test_a_run_in_bfloat16_that_was_stopped_and_resumed_ends_bit_identical(tmp_path: Path, strategy: str) -> None:
    resumed_equals_whole(tmp_path, f"strategy={strategy}", HALF)


def test_a_model_that_trained_in_bfloat16_is_saved_in_float32_and_says_the_same(tmp_path: Path) -> None:
    config = tiny_run("strategy=last_k", HALF, "grpo.learning_rate=1e-3")
    with RunDirectory(tmp_path / config.config_hash).claim(config) as attempt:
        session = prepare(config, attempt, Options(), Stop())
        session.train()
        session.save()
        ids = torch.arange(3, 11)[None]
        trained = session.trainer.model.eval()
        again = AutoModelForCausalLM.from_pretrained(attempt.model_draft)
        assert {p.dtype for p in again.parameters()} == {torch.float32}
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(again(ids).logits.float(), trained(ids).logits.float())
        assert any(p.dtype == torch.bfloat16 for p in trained.parameters())


def test_an_adapter_that_trained_in_bfloat16_loads_on_its_base(tmp_path: Path) -> None:
    result, record = execute_tiny(tmp_path, "strategy=lora", HALF, "grpo.learning_rate=1e-2")
    saved = weights(record.folder)
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    adapted = PeftModel.from_pretrained(load_model(NANO), record.folder / "model")
    loaded = {name.replace(".default", ""): tensor for name, tensor in adapted.state_dict().items()}
    assert all(torch.equal(loaded[name], tensor) for name, tensor in saved.items())
    assert result.sampler_gap is not None
    assert 0 < result.sampler_gap < 0.005


def test_compute_is_content_of_a_run_unless_it_is_the_default() -> None:
    plain, same, other = (tiny_run(*words).config_hash for words in ((), ("model.compute=float32",), (HALF,)))
    assert plain == same != other


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("compute", ["bfloat16", "auto"])
def test_half_weights_leave_nothing_to_choose(dtype: str, compute: str) -> None:
    line = f"model.compute={compute!r} needs float32 weights, and model.dtype={dtype} already computes in {dtype}"
    with pytest.raises(ConfigError, match=re.escape(line)):
        ModelConfig("nano", NANO.path, "symbols", dtype, "auto", compute=compute)


@pytest.mark.parametrize(
    ("dtype", "compute", "gpu", "gpu_without", "cpu", "cpu_without"),
    [
        ("auto", "float32", True, False, False, False),
        ("float32", "float32", False, False, False, False),
        ("bfloat16", "float32", True, False, False, False),
        ("auto", "auto", True, False, True, False),
        ("float32", "auto", True, False, True, False),
        ("auto", "bfloat16", True, True, True, True),
    ],
)
def test_where_products_run_in_bfloat16(
    dtype: str, compute: str, gpu: bool, gpu_without: bool, cpu: bool, cpu_without: bool
) -> None:
    model = ModelConfig("nano", NANO.path, "symbols", dtype, "auto", compute=compute)
    machines = ((True, True), (True, False), (False, True), (False, False))
    assert [model.half_products(*machine) for machine in machines] == [gpu, gpu_without, cpu, cpu_without]


@pytest.mark.skipif(platform.machine() != "x86_64" or torch.cuda.is_available(), reason="reads the flags of an x86 CPU")
def test_the_processor_is_asked() -> None:
    assert has_bfloat16() == this_host().bfloat16


@pytest.mark.parametrize(
    ("overrides", "here", "found"),
    [
        ([], True, []),
        (["model=smollm2_135m"], True, ["model=smollm2_135m computes in float32 on a processor with bfloat16"]),
        (["model=smollm2_135m"], False, []),
        (["model=smollm2_135m", "model.compute=auto"], True, []),
        (["model=smollm2_135m", "model.dtype=bfloat16"], True, []),
        ([HALF], False, ["model=nano computes in bfloat16, which this processor emulates"]),
    ],
)
def test_the_doctor_recommends_bfloat16_for_real_models_where_the_processor_has_it(
    overrides: list[str], here: bool, found: list[str]
) -> None:
    assert [finding.what for finding in check_compute(tiny_run(*overrides).model, here)] == found
