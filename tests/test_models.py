"""Models load from where they are, and what is missing is said clearly."""

import os
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from efficient_rl.config.schema import ModelConfig
from efficient_rl.errors import ConfigError
from efficient_rl.models import best_attention, load_model, load_tokenizer
from efficient_rl.prompts import Prompts
from efficient_rl.tasks.countdown import Countdown
from tests.conftest import execute_tiny, tiny_run

NANO = tiny_run().model
GGUF = os.environ.get("EFFICIENT_RL_GGUF", "")
PROBLEM = Countdown().problems("train", 1, 0)[0]


@pytest.fixture
def local_folder(tmp_path: Path) -> Path:
    """A Llama of another shape with nano's tokenizer: a model that the package has never seen."""
    torch.manual_seed(0)
    shape = LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, vocab_size=36,
        eos_token_id=1, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    folder = tmp_path / "llama"
    LlamaForCausalLM(shape).save_pretrained(folder)
    assert NANO.folder is not None
    AutoTokenizer.from_pretrained(NANO.folder).save_pretrained(folder)
    return folder


def test_a_local_folder_trains_like_any_model(tmp_path: Path, local_folder: Path) -> None:
    result, _ = execute_tiny(tmp_path / "runs", f"model.path={local_folder}", "strategy=last_k", "strategy.k=3")
    assert result.trainable_params == 3 * (4 * 32 * 32 + 3 * 32 * 64 + 2 * 32)


def test_the_blocks_of_a_local_folder_bound_k_before_anything_starts(local_folder: Path) -> None:
    with pytest.raises(ConfigError, match="exceeds the model's 3 blocks"):
        tiny_run(f"model.path={local_folder}", "strategy=last_k", "strategy.k=4")


@pytest.mark.skipif(not GGUF, reason="EFFICIENT_RL_GGUF names no GGUF file of a chat model; .ci/run fetches one")
@pytest.mark.slow
def test_a_real_pretrained_model_in_a_gguf_file_samples_and_saves(tmp_path: Path) -> None:
    from efficient_rl.strategies.static import LastK
    from efficient_rl.training.sampler import SamplingSettings, sample

    torch.set_num_threads(1)
    path = Path(GGUF)
    config = ModelConfig("smollm2", str(path.parent), "chat", "auto", "auto", gguf_file=path.name)
    tokenizer, model = load_tokenizer(config), load_model(config)
    prompts = Prompts(config, tiny_run().prompt, tokenizer)
    ids = prompts.encode(prompts.write(PROBLEM))
    settings = SamplingSettings(12, temperature=0)
    (completion,) = sample(model, [ids], settings, prompts.stop_ids(model), tokenizer.pad_token_id)
    assert len(tokenizer.decode(completion).split()) > 3
    LastK(2).apply(model)
    trained, total = (sum(p.numel() for p in model.parameters() if p.requires_grad or whole) for whole in (False, True))
    assert 0 < trained < total / 10
    model.save_pretrained(tmp_path)
    again = load_model(ModelConfig("again", str(tmp_path), "chat", "auto", "auto"))
    assert torch.equal(again(torch.tensor([ids])).logits, model(torch.tensor([ids])).logits)


@pytest.mark.skipif(not GGUF, reason="EFFICIENT_RL_GGUF names no GGUF file of a chat model; .ci/run fetches one")
@pytest.mark.slow
def test_a_real_pretrained_model_in_a_gguf_file_trains_on_few_shot_sums(tmp_path: Path) -> None:
    path = Path(GGUF)
    result, _ = execute_tiny(
        tmp_path, "model=smollm2_135m", f"model.path={path.parent}", f"model.gguf_file={path.name}", "model.prompt=plain",
        "prompt=few_shot", "task=arithmetic", "task.operators=[+]", "reward=accuracy", "strategy=last_k", "grpo.max_steps=1",
        "grpo.per_device_train_batch_size=8", "grpo.max_completion_length=6", "eval.problems=2", "eval.samples=1",
    )  # fmt: skip
    assert 0 < result.trainable_params < result.total_params / 4
    assert result.tokens > 8 * 60  # the prompts hold four solved sums


def test_a_hub_that_cannot_be_reached_ends_in_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"cannot load model\.path=nobody/nothing: .*download the model elsewhere"):
        load_tokenizer(ModelConfig("x", "nobody/nothing", "plain", "auto", "auto"))


def test_precision_and_attention_follow_the_hardware() -> None:
    model = load_model(ModelConfig("nano", NANO.path, "symbols", "auto", "auto"))
    assert model.dtype == torch.float32
    assert best_attention() in ("sdpa", "flash_attention_2")
    assert model.config._attn_implementation == best_attention()
    assert load_model(ModelConfig("nano", NANO.path, "symbols", "bfloat16", "eager")).dtype == torch.bfloat16


def test_parameters_are_counted_once_though_embeddings_are_tied() -> None:
    assert sum(p.numel() for p in load_model(NANO).parameters()) == 323_776
