"""Fills a key-value cache with prompts; what they share is computed once."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from efficient_rl.training.decode_step import last_logits
from efficient_rl.training.prefixes import Plan, moves_freely, plan_of

PASS_COST_TOKENS = 64  # what each of two passes costs beside its tokens, in tokens

Prefilled = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def prefill(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], pad_id: int, cache: DynamicCache, shares: bool
) -> Prefilled:
    """Logits, mask and last position of every prompt, a row each; equal neighbours compute once.

    `shares`: what all prompts begin with is computed once too, where that saves tokens.
    """
    groups = [(list(ids), len(list(copies))) for ids, copies in groupby(prompts)]
    tokens = torch.full((len(groups), max(map(len, prompts))), pad_id)
    mask = torch.zeros_like(tokens)
    for row, (ids, _) in enumerate(groups):
        start = tokens.shape[1] - len(ids)
        tokens[row, start:] = torch.tensor(ids)
        mask[row, start:] = 1
    common = 0
    if shares and (plan := _plan(model, tokens, mask)) is not None:
        tokens, mask, common = plan.ids, plan.mask, plan.common
    tokens, mask = tokens.to(model.device), mask.to(model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    if common:
        last_logits(model, tokens[:1, :common], mask[:1, :common], positions[:1, :common], cache)
        cache.batch_select_indices(torch.zeros(len(tokens), dtype=torch.long, device=model.device))
    logits = last_logits(model, tokens[:, common:], mask, positions[:, common:], cache)
    copies = torch.tensor([count for _, count in groups], device=model.device)
    spread = torch.arange(len(groups), device=model.device).repeat_interleave(copies)
    cache.batch_select_indices(spread)
    return logits[spread], mask[spread], positions[spread, -1:]


def _plan(model: PreTrainedModel, tokens: torch.Tensor, mask: torch.Tensor) -> Plan | None:
    config: Any = model.config.get_text_config()
    if config._attn_implementation not in ("eager", "sdpa") or not moves_freely(config):
        return None
    return plan_of(tokens, mask, torch.arange(len(tokens)), PASS_COST_TOKENS, movable=True)
