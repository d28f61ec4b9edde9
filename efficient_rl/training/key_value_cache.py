"""A key-value cache that grows in blocks of columns instead of being copied for every token."""

from typing import Any

import torch
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

BLOCK = 16  # columns that it grows by


class BlockLayer(DynamicLayer):
    """Keys and values of one layer: the written columns of buffers that have room for more.

    Attention sees views with the columns of `DynamicLayer`, so that its sums have the same order.
    """

    def __init__(self) -> None:
        super().__init__()
        self._key_buffer = self._value_buffer = self._shown = torch.empty(0)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of all columns, (rows, heads, columns, head), those given last."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if not self._has_room(end):
            self._key_buffer = _with_room(self.keys, key_states, end)
            self._value_buffer = _with_room(self.values, value_states, end)
        self._key_buffer.narrow(2, start, end - start).copy_(key_states)
        self._value_buffer.narrow(2, start, end - start).copy_(value_states)
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows, or copies of them, with the room that they have."""
        end = self.get_seq_length()
        if end > 0 and self._has_room(end):
            self._key_buffer = self._key_buffer.index_select(0, indices)
            self._value_buffer = self._value_buffer.index_select(0, indices)
            self._show(end)
        else:
            super().batch_select_indices(indices)

    def _has_room(self, end: int) -> bool:
        """Whether the buffers hold what is shown, and `end` columns fit."""
        return self.keys is self._shown and end <= self._key_buffer.shape[-2]

    def _show(self, end: int) -> None:
        self.keys, self.values = self._key_buffer.narrow(2, 0, end), self._value_buffer.narrow(2, 0, end)
        self._shown = self.keys


def _with_room(written: torch.Tensor, states: torch.Tensor, columns: int) -> torch.Tensor:
    rows, heads, _, head = states.shape
    buffer = states.new_empty(rows, heads, -(-columns // BLOCK) * BLOCK, head)
    if written.numel():
        buffer[:, :, : written.shape[-2]] = written
    return buffer


def growing_cache(config: PretrainedConfig) -> DynamicCache:
    """An empty cache; layers that do not simply keep all columns are as transformers makes them."""
    cache = DynamicCache(config=config)
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[index] = BlockLayer()
    return cache
