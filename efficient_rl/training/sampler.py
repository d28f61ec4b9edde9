"""Samples completions with a key-value cache: one prefill a group, finished rows leave."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from peft import PeftModel, PeftModelForCausalLM
from torch import nn
from transformers import DynamicCache, GenerationMixin, PreTrainedModel

from efficient_rl.training.decode_step import step_of
from efficient_rl.training.key_value_cache import growing_cache
from efficient_rl.training.prefill import prefill

DROP_SHARE = 0.85  # finished rows leave the batch when at most this share of it is unfinished

GENERATIONS_A_STEP = 10_000  # no step has as many

GENERATION = ("generate", "_sample", "prepare_inputs_for_generation")  # what `sample` does in their place
GENERATE = (GenerationMixin.generate, PeftModelForCausalLM.generate)
SHAPING = (  # settings of a model's own that TRL's do not replace
    "suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "sequence_bias", "no_repeat_ngram_size", "min_length",
    "min_new_tokens", "forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty", "typical_p",
    "epsilon_cutoff", "eta_cutoff", "top_h", "guidance_scale", "watermarking_config", "stop_strings", "max_time",
)  # fmt: skip


@dataclass(frozen=True)
class SamplingSettings:
    """How tokens are drawn; temperature 0 is greedy, `top_k` 0 and `top_p` 1 are off.

    `shares_beginnings`: what all prompts begin with is computed once, equal up to rounding.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    shares_beginnings: bool = True


def has_trained_prompt(model: PreTrainedModel) -> bool:
    """Whether PEFT puts trained tokens before the prompt."""
    return bool(getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False))


def carries_state(model: PreTrainedModel) -> bool:
    """Whether layers carry a state from token to token (Mamba, LFM2, linear attention).

    It holds for all rows of a batch, so that finished ones cannot leave, and not every such model
    keeps padding out of it.
    """
    layers = DynamicCache(config=model.config).layers
    return getattr(model, "_is_stateful", False) or not all(hasattr(layer, "batch_select_indices") for layer in layers)


def can_sample(model: PreTrainedModel) -> bool:
    """Whether finished rows can leave the cache, and prompts are what they seem."""
    return not (carries_state(model) or has_trained_prompt(model))


def own_generation(model: PreTrainedModel) -> str | None:
    """What our sampler cannot follow in the model's own generation; None for most models."""
    parts: list[Any] = [model]
    if isinstance(model, PeftModel):
        parts += [model.base_model, model.get_base_model()]
    for part, name in product(parts, GENERATION):
        method = getattr(part, name)
        function = getattr(method, "__func__", method)
        standard = str(getattr(function, "__module__", "")).startswith(("transformers.", "peft."))
        if not standard or (name == "generate" and function not in GENERATE):
            return f"{type(part).__name__}.{name} is not that of transformers"
    shaped = [name for name in SHAPING if getattr(model.generation_config, name, None)]
    return f"generation_config.{shaped[0]} shapes what it draws" if shaped else None


def draws(seed: Sequence[int], rows: int, tokens: int, first_row: int = 0) -> torch.Tensor:
    """Uniform numbers in [0, 1), shape (rows, tokens): rows of the endless table that `seed` names.

    Several processes that each take their rows so draw what one alone would.
    """
    bits = np.random.PCG64(np.random.SeedSequence(list(seed)))
    bits.advance(first_row * tokens)  # a number in double precision takes one step of it
    return torch.from_numpy(np.random.Generator(bits).random((rows, tokens)))


class Draws:
    """The random numbers of training, from seed, step, generation, and process or row."""

    def __init__(self, seed: int, process: int = 0, processes: int = 1) -> None:
        self._seed, self._process, self._processes = seed, process, processes
        self._generation = 0

    def begin_step(self) -> None:
        """The next generation is the first of its step."""
        self._generation = 0

    def uniform(self, step: int, rows: int, tokens: int) -> torch.Tensor:
        """For the next generation's completions in this process, (rows, tokens); see `draws`."""
        seed = (self._seed, step, self._generation)
        self._generation += 1
        return draws(seed, rows, tokens, self._process * rows)

    def seed(self, step: int) -> int:
        """For all that this process draws beside completions until the next generation."""
        generation = step * GENERATIONS_A_STEP + self._generation
        return self._seed * 1_000_000_007 + generation * self._processes + self._process


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    stop_ids: Sequence[int],
    pad_id: int,
    uniform: torch.Tensor | None = None,
    logps: torch.Tensor | None = None,
) -> list[list[int]]:
    """One completion for every prompt (token ids), with its stop token; equals share a prefill.

    `uniform`, shape (prompts, max_new_tokens), decides every choice (see `draws`); none is needed
    at temperature 0. `logps`, of that shape, receives the drawn tokens', before top_p and top_k.
    """
    device = model.device
    stop = torch.tensor(list(stop_ids), device=device)
    uniform = uniform.to(device) if uniform is not None else None
    drawn = torch.full((len(prompts), settings.max_new_tokens), pad_id, device=device)
    rows = torch.arange(len(prompts), device=device)  # which prompt each row of the batch belongs to
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    with evaluating(model):
        cache = growing_cache(model.config)
        logits, mask, position = prefill(model, prompts, pad_id, cache, settings.shares_beginnings)
        decode = step_of(model, cache, mask, position, settings.max_new_tokens)
        for step in range(settings.max_new_tokens):
            chosen = choose(logits, settings, uniform[rows, step] if uniform is not None else None)
            drawn[rows[~done], step] = chosen[~done]
            if logps is not None:
                logps[rows[~done], step] = log_probabilities(logits, chosen, settings)[~done]
            done |= torch.isin(chosen, stop)
            active = int((~done).sum())
            if active == 0 or step + 1 == settings.max_new_tokens:
                break
            if active <= DROP_SHARE * len(done):
                # Finished rows cost a row until they leave; cache and tensors shrink together.
                keep = (~done).nonzero().squeeze(1)
                decode.keep(keep)
                rows, chosen, done = rows[keep], chosen[keep], done[keep]
            logits = decode.logits(chosen)
    return [until_stop(row, stop_ids) for row in drawn.tolist()]


def choose(logits: torch.Tensor, settings: SamplingSettings, uniform: torch.Tensor | None) -> torch.Tensor:
    """Tokens, (rows,), of logits (rows, vocabulary), by inverse sampling: `uniform`, (rows,)."""
    if settings.temperature == 0:
        return logits.argmax(-1)
    if uniform is None:
        raise ValueError(f"temperature={settings.temperature} needs random numbers; give `uniform`, or temperature 0")
    logits = logits / settings.temperature
    if 0 < settings.top_k < logits.size(-1):
        threshold = logits.topk(settings.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    if settings.top_p < 1:
        ordered, indices = logits.softmax(-1).sort(descending=True)
        outside = ordered.cumsum(-1) - ordered >= settings.top_p
        logits = logits.masked_fill(torch.zeros_like(outside).scatter(1, indices, outside), -torch.inf)
    # In double precision the sum is exact enough that a token without probability is never hit.
    reached = logits.softmax(-1, dtype=torch.float64).cumsum(-1)
    if not bool(reached[:, -1].isfinite().all()):
        raise RuntimeError("the model's logits are no longer numbers; lower grpo.learning_rate or use model.dtype=float32")
    return torch.searchsorted(reached, uniform[:, None] * reached[:, -1:], right=True).squeeze(1)


def log_probabilities(logits: torch.Tensor, chosen: torch.Tensor, settings: SamplingSettings) -> torch.Tensor:
    """Of the `chosen` tokens, (rows,), as trainers score them; of logits (rows, vocabulary)."""
    scaled = logits / (settings.temperature or 1.0)
    return scaled.gather(1, chosen[:, None]).squeeze(1) - scaled.logsumexp(-1)


def until_stop(row: list[int], stop_ids: Sequence[int]) -> list[int]:
    """The tokens up to the first that stops."""
    end = min(map(row.index, set(row) & set(stop_ids)), default=len(row) - 1)
    return row[: end + 1]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout and no gradient checkpointing inside."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
