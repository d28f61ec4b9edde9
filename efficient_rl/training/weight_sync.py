"""Sends vLLM only the weights that may have changed since the last time; TRL sends all."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from efficient_rl.training.merging import merged


class ChangedWeightsOnly:
    """Wraps TRL's `VLLMGeneration`: the first exchange sends all weights, later ones the updated.

    Adapters are merged by copies, so that the frozen weights keep every bit (TRL adds and subtracts
    them in place).
    """

    def __init__(self, generation: Any, model: nn.Module) -> None:
        self._generation, self._model = generation, model
        self._every_weight, self._exchange = generation._iter_named_params, generation.sync_weights
        self._updated: set[str] | None = None  # None: all, because the engine has what lies on the disk at best
        generation._iter_named_params, generation.sync_weights = self._changed, self._sync

    def note(self, active: Iterable[str]) -> None:
        """These parameters were updated."""
        if self._updated is not None:
            self._updated |= set(active)

    def _sync(self) -> None:
        self._generation._weight_metadata = None  # sent to a server first; it describes this exchange
        self._exchange()
        self._updated = set()

    def _changed(self) -> Iterator[tuple[str, torch.Tensor]]:
        with ExitStack() as stack:
            if isinstance(self._model, PeftModel):
                stack.enter_context(merged(self._model))
                for name in ("merge_adapter", "unmerge_adapter"):
                    stack.enter_context(patch.object(self._model, name, lambda *_, **__: None))
            wanted = None if self._updated is None else self._pointers(self._updated)
            for name, tensor in self._every_weight():
                if wanted is None or tensor.data_ptr() in wanted:
                    yield name, tensor

    def _pointers(self, names: set[str]) -> set[int]:
        """Where the named parameters change weights: in place, or where their adapter merges."""
        pointers = {p.data_ptr() for name, p in self._model.named_parameters() if name in names}
        for path, module in self._model.named_modules():
            if isinstance(module, BaseTunerLayer) and any(name.startswith(f"{path}.") for name in names):
                pointers |= {p.data_ptr() for p in module.get_base_layer().parameters(recurse=False)}
        return pointers
