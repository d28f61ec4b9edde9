"""Prompts that begin alike are computed once up to where they differ."""

from typing import Any

import pytest
import torch
import transformers
from transformers import DynamicCache

from efficient_rl.training import prefill as prefill_module
from efficient_rl.training.key_value_cache import growing_cache
from efficient_rl.training.prefill import prefill
from efficient_rl.training.sampler import SamplingSettings, draws, sample
from tests.test_decode_step import SHORT, SMALL, WHOLE, _made

COMMON = list(range(12, 40))
OWN = [[5], [9, 8, 7, 6], [4, 4], [20, 21, 22, 23, 24, 25]]
EVEN = [[5, 6, 7], [9, 8, 7], [4, 4, 5], [20, 21, 22]]


@pytest.fixture
def seen_tokens(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each pass of the prefill computes; a pass costs nothing."""
    seen: list[int] = []
    last_logits = prefill_module.last_logits

    def counting(model: Any, tokens: torch.Tensor, *arguments: Any) -> torch.Tensor:
        seen.append(tokens.numel())
        return last_logits(model, tokens, *arguments)

    monkeypatch.setattr(prefill_module, "last_logits", counting)
    monkeypatch.setattr(prefill_module, "PASS_COST_TOKENS", 0)
    return seen


def _prompts(own: list[list[int]]) -> list[list[int]]:
    return [COMMON + ids for ids in own for _ in range(2)]


@pytest.mark.parametrize("own", [OWN, EVEN], ids=["padded", "even"])
@pytest.mark.parametrize("name", [name for name in SHORT if name != "llama-bfloat16"] + ["llama-eager"])
def test_logits_and_completions_of_shared_beginnings_are_those_of_whole_prompts(
    name: str, own: list[list[int]], seen_tokens: list[int]
) -> None:
    model = (SHORT | WHOLE)[name]()
    prompts = [[min(token, model.config.vocab_size - 1) for token in ids] for ids in _prompts(own)]
    with torch.no_grad():
        found = {shares: prefill(model, prompts, 0, growing_cache(model.config), shares) for shares in (False, True)}
    width = len(COMMON) + max(map(len, own))
    assert seen_tokens == [len(own) * width, len(COMMON), len(own) * (width - len(COMMON))]
    assert torch.allclose(found[True][0], found[False][0], atol=1e-5)
    assert torch.equal(found[True][2], found[False][2])
    uniform = draws([2], len(prompts), 20)
    for temperature in (0.0, 1.0):
        written = [
            sample(model, prompts, SamplingSettings(20, temperature, shares_beginnings=shares), [3], 0, uniform)
            for shares in (True, False)
        ]
        assert written[0] == written[1]


def _tokens_of(model: Any, prompts: list[list[int]], seen: list[int]) -> int:
    seen.clear()
    with torch.no_grad():
        prefill(model, prompts, 0, DynamicCache(config=model.config), True)
    return sum(seen)


@pytest.mark.parametrize("name", ["mistral-window", "gemma3", "gpt2", "llama-dynamic"])
def test_models_that_see_more_than_distances_compute_whole_prompts(name: str, seen_tokens: list[int]) -> None:
    model = WHOLE[name]()
    assert _tokens_of(model, _prompts(EVEN), seen_tokens) == 4 * (len(COMMON) + 3)


def test_a_short_beginning_is_not_worth_a_pass(monkeypatch: pytest.MonkeyPatch, seen_tokens: list[int]) -> None:
    model = _made(transformers.LlamaConfig(**SMALL))
    assert _tokens_of(model, _prompts(OWN), seen_tokens) == len(COMMON) + 4 * 6
    monkeypatch.setattr(prefill_module, "PASS_COST_TOKENS", 3 * len(COMMON))
    assert _tokens_of(model, _prompts(OWN), seen_tokens) == 4 * (len(COMMON) + 6)
