"""Blocks of the cache and the short step change no bit of what transformers computes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from peft import LNTuningConfig, LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from efficient_rl.models import load_model
from efficient_rl.training import sampler
from efficient_rl.training.decode_step import DecodeStep, LlamaStep, has_form_of_llama, step_of
from efficient_rl.training.key_value_cache import BLOCK, BlockLayer, growing_cache
from efficient_rl.training.sampler import SamplingSettings, draws, sample
from tests.conftest import tiny_run
from tests.stateful_models import COMMON

WORDS = 50
SMALL = COMMON | {"vocab_size": WORDS, "num_hidden_layers": 2}
ONE_WIDE = SMALL | {"num_key_value_heads": 4, "head_dim": 12, "attention_bias": True}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": WORDS, "n_positions": 128}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
STOP = [3, 7, 11]
COPIES = 6
pytestmark = pytest.mark.filterwarnings("ignore:Unsupported layer type")  # PEFT's, of norms


def _made(config: Any, **settings: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))  # no norm of ones
    return model.eval()


def _llama(**settings: Any) -> PreTrainedModel:
    return _made(transformers.LlamaConfig(**SMALL), **settings)


SHORT: dict[str, Callable[[], Any]] = {  # models that take the short step
    "nano": lambda: load_model(tiny_run().model),
    "llama": _llama,
    "llama-wide": lambda: _made(transformers.LlamaConfig(**ONE_WIDE)),
    "llama3": lambda: _made(
        transformers.LlamaConfig(**SMALL, rope_parameters=LLAMA3 | {"original_max_position_embeddings": 16})
    ),
    "llama-bfloat16": lambda: _llama(dtype=torch.bfloat16),
    "llama-lora": lambda: get_peft_model(_llama(), LoraConfig(init_lora_weights=False, target_modules="all-linear")),
    "mistral": lambda: _made(transformers.MistralConfig(**SMALL, sliding_window=None)),
    "qwen2": lambda: _made(transformers.Qwen2Config(**SMALL)),
    "qwen3": lambda: _made(transformers.Qwen3Config(**SMALL, head_dim=8)),
}
WHOLE: dict[str, Callable[[], Any]] = {  # models that keep transformers' forward
    "llama-eager": lambda: _llama(attn_implementation="eager"),
    "llama-norms": lambda: get_peft_model(_llama(), LNTuningConfig(target_modules=["input_layernorm"])),
    "llama-dynamic": lambda: _made(
        transformers.LlamaConfig(**SMALL, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
    ),
    "mistral-window": lambda: _made(transformers.MistralConfig(**SMALL, sliding_window=6)),
    "gemma2": lambda: _made(transformers.Gemma2Config(**SMALL, head_dim=8, sliding_window=6)),
    "gemma3": lambda: _made(transformers.Gemma3TextConfig(**SMALL, head_dim=8, sliding_window=6)),
    "gpt2": lambda: _made(transformers.GPT2Config(**GPT2)),
    "bloom": lambda: _made(transformers.BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=WORDS)),
    "neox": lambda: _made(
        transformers.GPTNeoXConfig(**{k: v for k, v in SMALL.items() if k != "num_key_value_heads"}, rotary_pct=0.5)
    ),
}
DRAWN = SamplingSettings(40, temperature=1.2, top_k=30, top_p=0.95)


def _prompts(lengths: list[int]) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(12, 30, (length,), generator=generator).tolist() for length in lengths]
    return [ids for ids in prompts for _ in range(COPIES)]


def _recorded(
    monkeypatch: pytest.MonkeyPatch, model: Any, lengths: list[int], settings: SamplingSettings
) -> tuple[list[list[int]], list[torch.Tensor]]:
    """Completions, and the logits that each token was chosen from."""
    seen: list[torch.Tensor] = []
    choose = sampler.choose

    def recording(logits: torch.Tensor, *arguments: Any) -> torch.Tensor:
        seen.append(logits)
        return choose(logits, *arguments)

    prompts = _prompts(lengths)
    with monkeypatch.context() as patch:
        patch.setattr(sampler, "choose", recording)
        uniform = draws([5], len(prompts), settings.max_new_tokens)
        return sample(model, prompts, settings, STOP if settings is DRAWN else [], 0, uniform), seen


@pytest.mark.parametrize("settings", [DRAWN, SamplingSettings(40, temperature=0.0)], ids=["drawn", "greedy"])
@pytest.mark.parametrize("name", [*SHORT, *WHOLE])
def test_every_logit_and_token_is_that_of_transformers_own_forward_and_cache(
    name: str, settings: SamplingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = (SHORT | WHOLE)[name]()
    for lengths in ([4, 9, 1, 6], [5, 5, 5, 5]):  # with padding and without
        ours, our_logits = _recorded(monkeypatch, model, lengths, settings)
        with monkeypatch.context() as patch:
            patch.setattr(sampler, "growing_cache", lambda config: DynamicCache(config=config))
            patch.setattr(sampler, "step_of", DecodeStep)
            theirs, their_logits = _recorded(monkeypatch, model, lengths, settings)
        assert ours == theirs
        assert len(our_logits) == len(their_logits) > 16
        assert all(map(torch.equal, our_logits, their_logits))
        if settings is DRAWN:
            assert len({len(completion) for completion in ours}) > 3  # rows left on the way


@pytest.mark.parametrize("name", [name for name in [*SHORT, *WHOLE] if name != "llama-bfloat16"])
def test_greedy_completions_are_those_of_generate(name: str) -> None:
    model = (SHORT | WHOLE)[name]()
    prompts = _prompts([4, 9, 1, 6])[::COPIES]
    ours = sample(model, prompts, SamplingSettings(40, temperature=0.0), STOP, 0)
    for ids, completion in zip(prompts, ours, strict=True):
        asked = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        theirs = model.generate(**asked, max_new_tokens=40, do_sample=False, eos_token_id=STOP, pad_token_id=0)
        assert completion == theirs[0, len(ids) :].tolist()


@pytest.mark.parametrize("name", [*SHORT, *WHOLE])
def test_only_models_whose_parts_are_known_take_the_short_step(name: str) -> None:
    model = (SHORT | WHOLE)[name]()
    taken = step_of(model, growing_cache(model.config), torch.ones(2, 3), torch.zeros(2, 1, dtype=torch.long), 4)
    assert type(taken) is (LlamaStep if name in SHORT else DecodeStep)


def test_a_model_that_something_listens_to_keeps_its_own_forward() -> None:
    model = _llama()
    heard = []
    handle = model.model.layers[1].register_forward_hook(lambda *_: heard.append(1))
    assert not has_form_of_llama(model)
    sample(model, [[12, 13]], SamplingSettings(3, temperature=0.0), [], 0)
    assert len(heard) == 3
    handle.remove()
    assert has_form_of_llama(model)
    model.model.norm = torch.nn.LayerNorm(32)
    assert not has_form_of_llama(model)


def test_a_norm_of_heads_that_something_listens_to_and_blocks_left_out_keep_the_models_own_forward() -> None:
    model = SHORT["qwen3"]()
    handle = model.model.layers[1].self_attn.q_norm.register_forward_hook(lambda *_: None)
    assert not has_form_of_llama(model)
    handle.remove()
    assert has_form_of_llama(model)
    model.config.num_hidden_layers = 1
    assert not has_form_of_llama(model)
    assert len(sample(model, _prompts([3, 5]), SamplingSettings(4, temperature=0.0), STOP, 0)) == 2 * COPIES


def test_blocks_hold_what_a_dynamic_layer_holds() -> None:
    ours, theirs = BlockLayer(), transformers.cache_utils.DynamicLayer()
    torch.manual_seed(0)
    changes: list[Callable[[Any], None]] = [
        lambda layer: layer.batch_select_indices(torch.tensor([0, 2, 2])),
        lambda layer: layer.crop(-3),
        lambda layer: layer.reorder_cache(torch.tensor([2, 0, 1])),
        lambda layer: layer.batch_repeat_interleave(2),
        lambda layer: layer.batch_select_indices(torch.tensor([5])),
    ]
    for change in changes:
        for width in (7, 1, 1, BLOCK, 1):
            rows = 3 if theirs.keys is None else len(theirs.keys)
            keys, values = torch.randn(rows, 2, width, 4), torch.randn(rows, 2, width, 4)
            for mine, other in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
                assert torch.equal(mine, other)
        change(ours)
        change(theirs)
        assert torch.equal(ours.keys, theirs.keys)
        assert torch.equal(ours.values, theirs.values)
        assert ours.get_seq_length() == theirs.get_seq_length()
    ours.reset()
    assert ours.get_seq_length() == 0
    assert torch.equal(ours.update(keys, values)[0], keys)


def test_a_new_token_copies_the_cache_once_a_block() -> None:
    layer = BlockLayer()
    states = torch.zeros(2, 1, 1, 4)
    buffers = []
    for _ in range(3 * BLOCK):
        layer.update(states, states)
        buffers.append(layer.keys)  # kept, so that no address comes back
    assert len({each.data_ptr() for each in buffers}) == 3
