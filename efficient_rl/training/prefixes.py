"""Computes the prompts that the rows of a batch share once, with gradients through keys and values.

The completions of a group have one prompt, and prompts often begin alike. A tree of column ranges
(what all rows share, then what a group shares, then the completions) goes through the model's
backbone range by range; each range reads the keys and values of those before it. Prefix Grouper
(arXiv:2506.05433) shares the prompt of a group; the tree and its use behind a frozen trunk are
ours.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from peft import PeftModel
from torch import nn
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast

from efficient_rl.training.trunk import Part, TrunkCache

KeysValues = dict[int, tuple[torch.Tensor, torch.Tensor]]  # by layer: (rows, heads, columns, head)


@dataclass(frozen=True)
class Plan:
    """Which prompt each row has, and how many leading columns are the same in all of them."""

    group: torch.Tensor  # of each row of the batch, (batch,); of rows that take no part, 0
    first_rows: torch.Tensor  # a row of each group, (groups,)
    rows: torch.Tensor  # those that take part, (rows,)
    common: int
    columns: int


class EarlierColumns(DynamicCache):
    """The keys and values of earlier columns, put before those of a pass."""

    def __init__(self, length: int, earlier: KeysValues, rows: torch.Tensor | None, keeps: bool) -> None:
        super().__init__()
        self._length, self._keeps = length, keeps
        self._earlier, self._rows = earlier, rows
        self.kept: KeysValues = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of all columns so far, (rows, heads, columns, head)."""
        keys, values = key_states, value_states
        if layer_idx in self._earlier:
            before = self._earlier[layer_idx]
            if self._rows is not None:
                before = (before[0].index_select(0, self._rows), before[1].index_select(0, self._rows))
            keys, values = torch.cat((before[0], keys), 2), torch.cat((before[1], values), 2)
        if self._keeps:
            self.kept[layer_idx] = (keys, values)
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Earlier columns: the same in every layer, also where a trunk leaves one out."""
        return self._length

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Columns of keys, and the first of them."""
        return self._length + query_length, 0


class SharedPrefixes:
    """Passes over rows of a batch whose prompts go through the model once."""

    def __init__(self, model: nn.Module, plan: Plan, ids: torch.Tensor, mask: torch.Tensor, trunk: TrunkCache) -> None:
        self._backbone = _backbone(model)
        self._whole = self._backbone.forward
        self._plan, self._ids, self._mask, self._trunk = plan, ids, mask, trunk
        self._prompts: tuple[KeysValues, torch.Tensor] | None = None

    @contextmanager
    def passing(self, rows: torch.Tensor) -> Iterator[None]:
        """Inside, a pass over some rows starts from their prompts."""

        def forward(input_ids: torch.Tensor, attention_mask: torch.Tensor, **keywords: Any) -> BaseModelOutputWithPast:
            return self._after_prompts(rows, input_ids, attention_mask, keywords)

        with patch.object(self._backbone, "forward", forward):
            yield

    def _after_prompts(
        self, rows: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, keywords: dict[str, Any]
    ) -> BaseModelOutputWithPast:
        """Hidden states of all columns, (rows, columns, hidden); 0 where no completion needs them.

        The last column predicts nothing, the prompt's last one the first completion token.
        """
        if self._prompts is None:
            self._prompts = self._compute_prompts(keywords)
        keys_values, last = self._prompts
        columns, end = self._plan.columns, ids.shape[1]
        group = self._plan.group[rows]
        hidden = last.new_zeros(len(rows), end, last.shape[-1])
        pieces = [hidden[:, : columns - 1], last[group]]
        if end - 1 > columns:
            cache = EarlierColumns(columns, keys_values, group, keeps=False)
            part = Part(rows, columns, end - 1, rows, None)
            pieces.append(self._compute(ids[:, columns:-1], mask[:, :-1], cache, part, keywords))
        pieces.append(hidden[:, -1:])
        return BaseModelOutputWithPast(last_hidden_state=torch.cat(pieces, 1))

    def _compute_prompts(self, keywords: dict[str, Any]) -> tuple[KeysValues, torch.Tensor]:
        """Keys and values of all prompts, and the hidden states of their last column."""
        plan = self._plan
        rows, group = plan.rows, plan.group[plan.rows]
        kept: KeysValues = {}
        copies: torch.Tensor | None = None
        if plan.common:
            first, none = plan.first_rows[:1], torch.zeros_like(group)
            cache = EarlierColumns(0, {}, None, keeps=True)
            part = Part(first, 0, plan.common, rows, none)
            self._compute(self._ids[first, : plan.common], self._mask[first, : plan.common], cache, part, keywords)
            kept, copies = cache.kept, torch.zeros_like(plan.first_rows)
        every = plan.first_rows
        cache = EarlierColumns(plan.common, kept, copies, keeps=True)
        part = Part(every, plan.common, plan.columns, rows, group)
        own = self._ids[every, plan.common : plan.columns]
        hidden = self._compute(own, self._mask[every, : plan.columns], cache, part, keywords)
        return cache.kept, hidden[:, -1:]

    def _compute(
        self, ids: torch.Tensor, mask: torch.Tensor, cache: EarlierColumns, part: Part, keywords: dict[str, Any]
    ) -> torch.Tensor:
        given = keywords | {"past_key_values": cache, "use_cache": True}
        with self._trunk.computing(part):
            hidden: torch.Tensor = self._whole(input_ids=ids, attention_mask=mask, **given).last_hidden_state
        return hidden


def plan_of(ids: torch.Tensor, mask: torch.Tensor, rows: torch.Tensor, columns: int, pass_cost: int) -> Plan | None:
    """How to share the first `columns` of some rows; None where that costs more than it saves.

    One more pass costs as much as `pass_cost` tokens.
    """
    if columns == 0 or len(rows) < 2:
        return None
    seen = torch.cat((ids[rows, :columns], mask[rows, :columns]), 1)
    unique, group_of_row = torch.unique(seen, dim=0, return_inverse=True)
    groups = len(unique)
    shared = groups * columns + pass_cost
    differs = (unique != unique[:1]).any(0)
    differs = differs[:columns] | differs[columns:]
    common = int(differs.int().argmax()) if groups > 1 else 0
    if pass_cost + common >= groups * common:
        common = 0
    shared -= (groups - 1) * common - pass_cost * (common > 0)
    if shared >= len(rows) * columns:
        return None
    group = torch.zeros(len(ids), dtype=torch.long, device=ids.device)
    group[rows] = group_of_row
    first = torch.full((groups,), len(rows), device=ids.device)
    order = torch.arange(len(rows), device=ids.device)
    first = first.scatter_reduce(0, group_of_row, order, "amin")
    return Plan(group, rows[first], rows, common, columns)


def _backbone(model: nn.Module) -> nn.Module:
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    backbone: nn.Module = base.base_model
    return backbone
