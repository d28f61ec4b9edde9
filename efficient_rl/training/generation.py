"""Completions of any causal language model, by our sampler or by the model's own `generate`."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from functools import cache

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from efficient_rl.errors import ConfigError, first_line
from efficient_rl.training.sampler import (
    SamplingSettings,
    carries_state,
    choose,
    evaluating,
    has_trained_prompt,
    log_probabilities,
    own_generation,
    sample,
    until_stop,
)

logger = logging.getLogger(__name__)


def complete(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    stop_ids: Sequence[int],
    pad_id: int,
    uniform: torch.Tensor | None = None,
    logps: torch.Tensor | None = None,
) -> list[list[int]]:
    """What `sample` gives, by `generate` where our sampler cannot follow the model."""
    if (reason := _obstacle(model)) is None:
        return sample(model, prompts, settings, stop_ids, pad_id, uniform, logps)
    _note(type(model).__name__, reason)
    return generate(model, prompts, settings, stop_ids, pad_id, uniform, logps)


def _obstacle(model: PreTrainedModel) -> str | None:
    if carries_state(model):
        return "its layers carry a state"
    return "trained tokens stand before the prompt" if has_trained_prompt(model) else own_generation(model)


def check_generates(model: PreTrainedModel, stop_ids: Sequence[int], pad_id: int) -> None:
    """ConfigError where a model that our sampler cannot follow fails to write two tokens."""
    if _obstacle(model) is None:
        return
    try:
        generate(model, [[pad_id] * 3] * 2, SamplingSettings(2, temperature=0.0), stop_ids, pad_id)
    except Exception as error:
        raise ConfigError(
            f"{type(model).__name__} of {model.config.name_or_path} writes no completions with this version of "
            f"transformers: {type(error).__name__}: {first_line(error)}; use another model"
        ) from error


@cache
def _note(model: str, reason: str) -> None:
    logger.warning("completions of %s come from generate(): %s", model, reason)


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    stop_ids: Sequence[int],
    pad_id: int,
    uniform: torch.Tensor | None = None,
    logps: torch.Tensor | None = None,
) -> list[list[int]]:
    """What `sample` gives, by the model's own `generate`.

    Prompts of one length go together: padding on the left would become part of a recurrent state.
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    for row, ids in enumerate(prompts):
        by_length[len(ids)].append(row)
    found: list[list[int]] = [[]] * len(prompts)
    arguments = GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        do_sample=settings.temperature > 0,
        temperature=settings.temperature or 1.0,
        top_p=settings.top_p,
        top_k=settings.top_k,
        eos_token_id=list(stop_ids),
        pad_token_id=pad_id,
    )
    with evaluating(model):
        for length, rows in by_length.items():
            asked = torch.tensor([prompts[row] for row in rows], device=model.device)
            drawn = None if uniform is None else uniform[rows].to(model.device)
            written = model.generate(
                asked,
                attention_mask=torch.ones_like(asked),
                generation_config=arguments,
                logits_processor=LogitsProcessorList([_Drawn(settings, drawn, length, logps, rows)]),
            )
            for row, tokens in zip(rows, written[:, length:].tolist(), strict=True):
                found[row] = until_stop(tokens, stop_ids)
    return found


class _Drawn(LogitsProcessor):
    """Leaves of each row's logits only the token that `sample` would draw; notes its chance."""

    def __init__(
        self,
        settings: SamplingSettings,
        uniform: torch.Tensor | None,
        prompt: int,
        logps: torch.Tensor | None,
        rows: list[int],
    ) -> None:
        self._settings, self._uniform, self._prompt = settings, uniform, prompt
        self._logps, self._rows = logps, rows

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """The logits, shape (rows, vocabulary), of the next token after `input_ids`."""
        step = input_ids.shape[1] - self._prompt
        uniform = None if self._uniform is None else self._uniform[:, step]
        chosen = choose(scores.float(), self._settings, uniform)
        if self._logps is not None:
            self._logps[self._rows, step] = log_probabilities(scores.float(), chosen, self._settings)
        left = torch.full_like(scores, -torch.inf)
        return left.scatter(1, chosen[:, None], 0.0)  # type: ignore[return-value]
