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
from torch import nn
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast

from efficient_rl.training.merging import without_adapters
from efficient_rl.training.trunk import Part, TrunkCache

KeysValues = dict[int, tuple[torch.Tensor, torch.Tensor]]  # by layer: (rows, heads, columns, head)
PLAIN_TYPES = ("default", "linear", "llama3")  # rotations that do not depend on the longest sequence
PLAIN_ROTATION = {
    "rope_type", "rope_theta", "factor", "partial_rotary_factor", "low_freq_factor", "high_freq_factor",
    "original_max_position_embeddings",
}  # fmt: skip
SEES_PLACES = ("sliding_window", "attention_chunk_size", "attn_temperature_tuning")


@dataclass(frozen=True)
class Plan:
    """How the prompts of a batch are computed: what all begin with, then the rest of each once."""

    ids: torch.Tensor  # (batch, columns), with what all begin with in the first columns
    mask: torch.Tensor
    columns: torch.Tensor | None  # where these stand in the batch, (batch, columns); None: as they are
    common: int  # how many are the same in all rows that take part
    rows: torch.Tensor  # that take part, (rows,)
    group: torch.Tensor  # which prompt each row of the batch has; 0 for those that take no part
    first_rows: torch.Tensor  # one of each group, (groups,)

    @property
    def width(self) -> int:
        return self.ids.shape[1]

    def positions(self, rows: torch.Tensor, start: int, end: int) -> dict[str, torch.Tensor]:
        """The argument that says where columns stand, if padding is no longer before them."""
        if self.columns is None:
            return {}
        mask = self.mask[rows]
        completions = mask.new_ones(len(rows), max(0, end - self.width))
        counted = torch.cat((mask, completions), 1).cumsum(1) - 1
        return {"position_ids": counted.clamp(min=0)[:, start:end]}


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

    def __init__(self, model: nn.Module, plan: Plan, trunk: TrunkCache) -> None:
        self._backbone = _backbone(model)
        self._whole = self._backbone.forward
        self._plan, self._trunk = plan, trunk
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
        start, end = self._plan.width, ids.shape[1]
        group = self._plan.group[rows]
        hidden = last.new_zeros(len(rows), end, last.shape[-1])
        pieces = [hidden[:, : start - 1], last[group]]
        if end - 1 > start:
            cache = EarlierColumns(start, keys_values, group, keeps=False)
            seen = torch.cat((self._plan.mask[rows], mask[:, start:-1]), 1)
            pieces.append(self._compute(ids[:, start:-1], seen, cache, Part(rows, start, end - 1, rows), keywords))
        pieces.append(hidden[:, -1:])
        return BaseModelOutputWithPast(last_hidden_state=torch.cat(pieces, 1))

    def _compute_prompts(self, keywords: dict[str, Any]) -> tuple[KeysValues, torch.Tensor]:
        """Keys and values of all prompts, and the hidden states of their last column."""
        plan = self._plan
        group = plan.group[plan.rows]
        kept: KeysValues = {}
        copies: torch.Tensor | None = None
        if plan.common:
            cache = EarlierColumns(0, {}, None, keeps=True)
            part = Part(plan.first_rows[:1], 0, plan.common, plan.rows, torch.zeros_like(group), plan.columns)
            self._compute_prompt(part, cache, keywords)
            kept, copies = cache.kept, torch.zeros_like(plan.first_rows)
        cache = EarlierColumns(plan.common, kept, copies, keeps=True)
        part = Part(plan.first_rows, plan.common, plan.width, plan.rows, group, plan.columns)
        hidden = self._compute_prompt(part, cache, keywords)
        return cache.kept, hidden[:, -1:]

    def _compute_prompt(self, part: Part, cache: EarlierColumns, keywords: dict[str, Any]) -> torch.Tensor:
        ids, mask = self._plan.ids[part.rows], self._plan.mask[part.rows]
        return self._compute(ids[:, part.start : part.end], mask[:, : part.end], cache, part, keywords)

    def _compute(
        self, ids: torch.Tensor, mask: torch.Tensor, cache: EarlierColumns, part: Part, keywords: dict[str, Any]
    ) -> torch.Tensor:
        given = keywords | self._plan.positions(part.rows, part.start, part.end)
        given |= {"past_key_values": cache, "use_cache": True}
        with self._trunk.computing(part):
            hidden: torch.Tensor = self._whole(input_ids=ids, attention_mask=mask, **given).last_hidden_state
        return hidden


def plan_of(ids: torch.Tensor, mask: torch.Tensor, rows: torch.Tensor, pass_cost: int, movable: bool = False) -> Plan | None:
    """How to share the prompts `ids` of some rows; None where that costs more than it saves.

    `ids` and `mask` have shape (batch, columns), padded on the left. One more pass costs as much as
    `pass_cost` tokens. `movable`: the model sees distances only, so that padding may stand between
    what all begin with and the rest.
    """
    width = ids.shape[1]
    if width == 0 or len(rows) < 2:
        return None
    columns = None
    padding = width - mask.sum(1)
    if movable and int(padding[rows].max()) > int(padding[rows].min()):
        begins = padding[:, None] + torch.arange(width, device=ids.device)
        aligned = ids.gather(1, begins.clamp(max=width - 1))
        common = min(_common(aligned[rows]), int((width - padding[rows]).min()) - 1)
        if common > pass_cost / len(rows):
            columns = _padding_behind(padding, common, width)
            ids, mask = ids.gather(1, columns), mask.gather(1, columns)
    prompts, group_of_row = torch.unique(torch.cat((ids[rows], mask[rows]), 1), dim=0, return_inverse=True)
    groups = len(prompts)
    common = min(_common(prompts[:, :width]), _common(prompts[:, width:]), width - 1)
    if (groups - 1) * common <= pass_cost:
        common = 0
    if not pays(len(rows), groups, width, pass_cost, common):
        return None
    group = torch.zeros(len(ids), dtype=torch.long, device=ids.device)
    group[rows] = group_of_row
    order = torch.arange(len(rows), device=ids.device)
    first = torch.zeros(groups, dtype=torch.long, device=ids.device)
    first = first.scatter_reduce(0, group_of_row, order, "amin", include_self=False)
    return Plan(ids, mask, columns, common, rows, group, rows[first])


def pays(rows: int, groups: int, width: int, pass_cost: int, common: int = 0) -> bool:
    """Whether `groups` prompts of `width` tokens cost less once than in each of `rows`."""
    own = groups * width - (groups - 1) * common
    return own + pass_cost * (1 + (common > 0)) < rows * width


def _common(rows: torch.Tensor) -> int:
    """How many leading columns are the same in all rows."""
    same = (rows == rows[:1]).all(0)
    return int(same.int().cumprod(0).sum())


def _padding_behind(padding: torch.Tensor, common: int, width: int) -> torch.Tensor:
    """Columns in an order with each row's `padding` behind its first `common` tokens."""
    place = torch.arange(width, device=padding.device).expand(len(padding), width)
    padding = padding[:, None]
    begins = place < common
    pads = ~begins & (place < common + padding)
    return place + padding * begins - common * pads


def moves_freely(config: Any) -> bool:
    """Whether a model of this configuration sees the distances of tokens, and nothing else."""
    rotations = getattr(config, "rope_parameters", None) or {}
    by_layer = rotations.values() if all(isinstance(each, dict) for each in rotations.values()) else [rotations]
    plain = all(set(each) <= PLAIN_ROTATION and each.get("rope_type") in PLAIN_TYPES for each in by_layer)
    return bool(rotations) and plain and not any(getattr(config, name, None) for name in SEES_PLACES)


def _backbone(model: nn.Module) -> nn.Module:
    backbone: nn.Module = without_adapters(model).base_model
    return backbone
