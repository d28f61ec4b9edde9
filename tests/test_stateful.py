"""Models whose layers carry a state train and are evaluated like others, on what they say without padding."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from efficient_rl.doctor.__main__ import main
from efficient_rl.strategies.adapter_targets import find_targets
from efficient_rl.training.generation import complete, generate
from efficient_rl.training.sampler import SamplingSettings, carries_state, draws, sample
from tests.conftest import execute_tiny, slow_unless
from tests.odd_models import TAGS, byte_tokenizer, llama, random_model
from tests.stateful_models import MODELS

QUICK = ("qwen3_5", "mamba2", "lfm2", "recurrent_gemma")
PROMPTS = [[5, 6, 7], [9, 8, 7, 6, 5, 4, 3], [5, 6, 7], [11, 2], [3, 1, 4, 1, 5, 9, 2, 6]]
STEP = (
    "task=arithmetic", "reward=trl_think_format", "reward.think_format.path=tests.own_parts.letters",
    "reward.think_format.messages=false", "grpo.max_steps=1", "grpo.per_device_train_batch_size=8",
    "grpo.max_completion_length=6", "eval.problems=3", "eval.samples=1", "strategy.k=1",
)  # fmt: skip


def made(name: str, vocabulary: int = 40) -> PreTrainedModel:
    """A model with large random weights and biases, so that whatever enters its state shows."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(MODELS[name](vocab_size=vocabulary))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(3)
            else:
                weight.add_(torch.randn_like(weight) / 2)
    return model.eval()


@torch.no_grad()
def greedy(model: PreTrainedModel, prompt: list[int], tokens: int) -> list[int]:
    """Word by word without a cache."""
    ids = list(prompt)
    for _ in range(tokens):
        ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("name", slow_unless(QUICK, MODELS))
def test_greedy_completions_are_those_of_every_prompt_alone_without_a_cache(name: str) -> None:
    model = made(name)
    assert carries_state(model)
    found = complete(model, PROMPTS, SamplingSettings(8, temperature=0.0), [39], 0)
    for prompt, tokens in zip(PROMPTS, found, strict=True):
        wanted = greedy(model, prompt, 8)
        assert tokens == wanted[: len(tokens)]
        assert len(tokens) == 8 or tokens[-1] == 39


def test_generate_draws_what_our_sampler_draws() -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(llama(40)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)
    uniform = draws([3], len(PROMPTS), 8)
    for settings in (
        SamplingSettings(8), SamplingSettings(8, 0.7, 0.8, 0), SamplingSettings(8, 1.3, 1.0, 5), SamplingSettings(8, 0.0)
    ):  # fmt: skip
        wanted = sample(model, PROMPTS, settings, [39, 7], 0, uniform)
        assert generate(model, PROMPTS, settings, [39, 7], 0, uniform) == wanted
        halves = generate(model, PROMPTS[:2], settings, [39, 7], 0, uniform[:2])
        assert halves + generate(model, PROMPTS[2:], settings, [39, 7], 0, uniform[2:]) == wanted


def test_a_model_with_a_generation_of_its_own_is_evaluated_by_it(caplog: pytest.LogCaptureFixture) -> None:
    model = AutoModelForCausalLM.from_config(llama(40)).eval()
    model.generation_config = GenerationConfig(suppress_tokens=list(range(30)))
    found = complete(model, PROMPTS, SamplingSettings(4, temperature=0.0), [39], 0)
    assert min(token for tokens in found for token in tokens) >= 30
    assert "generation_config.suppress_tokens shapes what it draws" in caplog.text


@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys")  # PEFT's own, of experts that are not adapted
@pytest.mark.parametrize("strategy", ["full", "last_k", "lora"])
@pytest.mark.parametrize("name", slow_unless(("qwen3_5", "mamba2"), MODELS))
def test_a_step_is_done_under_every_kind_of_strategy(name: str, strategy: str, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(plain=TAGS)
    folder = random_model(tmp_path / "model", tokenizer, MODELS[name](vocab_size=len(tokenizer)))
    run = ("model=local", f"model.path={folder}", f"strategy={strategy}", *STEP)
    result, record = execute_tiny(tmp_path / "runs", *run[: None if strategy == "last_k" else -1])
    (step,) = [row["metrics"] for row in record.metrics() if "train/reward" in row["metrics"]]
    assert step["train/grad_norm"] > 0
    assert 0 < result.trainable_params <= result.total_params
    assert (result.trainable_params == result.total_params) == (strategy == "full")


@pytest.mark.parametrize("name", ["mamba", "mamba2", "falcon_h1"])
def test_adapters_leave_out_what_mamba_reads_past_them(name: str) -> None:
    model = made(name)
    assert find_targets(model, "all-linear")
    assert not any(target.endswith(("out_proj", "conv1d")) for target in find_targets(model, "all-linear"))
    with pytest.raises(
        ValueError, match=r"lora\.target_modules=\['out_proj'\]: 'out_proj' names no linear module; use all-"
    ):
        find_targets(model, ["out_proj"])


@pytest.mark.slow
def test_the_doctor_says_what_it_cannot_estimate_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = byte_tokenizer(plain=TAGS)
    folder = random_model(tmp_path / "model", tokenizer, MODELS["mamba"](vocab_size=len(tokenizer)))
    code = main(["--no-probe", "--json", "model=local", f"model.path={folder}", *STEP[:-1]])
    found = {finding["check"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert (code, found["memory"]["level"], found["reward"]["level"]) == (0, "warning", "ok")
    assert "could not be estimated" in found["memory"]["what"]
