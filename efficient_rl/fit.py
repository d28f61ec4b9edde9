"""Checks that model, tokenizer and prompts fit together, before anything is computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from efficient_rl.decoding import special_ids
from efficient_rl.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")  # as configurations call them


@dataclass(frozen=True)
class Bounds:
    """What a model can read: token ids below `rows`, and up to `positions` tokens (None: any)."""

    path: str
    rows: int
    positions: int | None

    @classmethod
    def of(cls, model: "PreTrainedModel", path: str) -> "Bounds":
        """The bounds of a model, by its embedding and its configuration."""
        return cls(path, len(model.get_input_embeddings().weight), positions(model.config.get_text_config()))


def positions(config: Any) -> int | None:
    """How many tokens the configuration says that a model reads; scaled positions count."""
    found = [getattr(config, name, None) for name in POSITIONS]
    stated = [number for number in found if isinstance(number, int) and number > 0]
    if not stated:
        return None
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    factor, original = scaling.get("factor"), scaling.get("original_max_position_embeddings")
    scaled = int(factor * (original or stated[0])) if isinstance(factor, int | float) else 0
    return max(stated[0], scaled)


def check_fit(
    bounds: Bounds,
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[int]],
    stop_ids: Sequence[int],
    completion: int,
) -> None:
    """ConfigError where a token, or a prompt with its completion, is beyond the bounds."""
    ends = [min(stop_ids), tokenizer.pad_token_id]  # one of those that stop is enough
    _check_tokens(bounds, tokenizer, max(chain(ends, *prompts)))
    _check_lengths(bounds, max(map(len, prompts)), completion)


def _check_tokens(bounds: Bounds, tokenizer: "PreTrainedTokenizerBase", highest: int) -> None:
    if highest < bounds.rows:
        return
    token = tokenizer.convert_ids_to_tokens(highest)
    raise ConfigError(
        f"token {highest} ({token!r}) of the tokenizer of {bounds.path} has no row in the model's embedding, "
        f"which has {bounds.rows} for {len(tokenizer)} tokens; use the tokenizer that belongs to the model, or resize the "
        "embedding"
    )


def _check_lengths(bounds: Bounds, longest: int, completion: int) -> None:
    if bounds.positions is None or longest + completion <= bounds.positions:
        return
    room = bounds.positions - longest
    remedy = f"use grpo.max_completion_length<={room}, " if room > 0 else "use "
    raise ConfigError(
        f"the longest prompt has {longest} tokens; with grpo.max_completion_length={completion} that is more than the "
        f"{bounds.positions} positions of {bounds.path}; {remedy}shorter prompts or another model"
    )


def complete_tokenizer(tokenizer: "PreTrainedTokenizerBase", path: str, stop_ids: Sequence[int], end_ids: set[int]) -> None:
    """Give the tokenizer the end and padding token that it lacks; ConfigError where there is none.

    The end is the model's, padding any token that stands for no text.
    """
    if not stop_ids:
        raise ConfigError(
            f"no token ends a completion of {path}: its tokenizer has no eos_token and its generation configuration no "
            "eos_token_id; set one of them, or give prompt.stop"
        )
    if tokenizer.eos_token_id is None and end_ids:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(min(end_ids))
    if tokenizer.pad_token_id is None:
        silent = {tokenizer.eos_token_id} - {None} or special_ids(tokenizer)
        if not silent:
            raise ConfigError(
                f"the tokenizer of {path} has no pad_token, and no other special token to pad with; set its pad_token"
            )
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(min(silent))
