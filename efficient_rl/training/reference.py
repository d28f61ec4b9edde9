"""The model before training, for the KL term, without a second model: only what can train is kept as it was."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from efficient_rl.training.sampler import evaluating

PROBE_TOKENS = 8


class OverlayReference:
    """Initial copies of the trainable tensors; while `restored`, the model computes as it did before training.

    Adapters that start as the identity (LoRA's B = 0) need no copies: the reference is the model without them. Made before
    a checkpoint is loaded, since it keeps the weights that the model has now.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._adapted = model if isinstance(model, PeftModel) and _starts_as_base(model) else None
        trainable = [p for p in model.parameters() if p.requires_grad] if self._adapted is None else []
        self._initial = [(parameter, parameter.detach().clone()) for parameter in trainable]

    @property
    def bytes(self) -> int:
        """What the copies hold."""
        return sum(initial.nbytes for _, initial in self._initial)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """The model before training, inside; only for passes without gradients.

        Without dropout, as TRL's second model; a PEFT model keeps its mode, as in TRL.
        """
        current = [parameter.data for parameter, _ in self._initial]
        mode = nullcontext() if isinstance(self._model, PeftModel) else evaluating(self._model)
        try:
            for parameter, initial in self._initial:
                parameter.data = initial
            with mode, self._adapted.disable_adapter() if self._adapted is not None else nullcontext():
                yield
        finally:
            for (parameter, _), data in zip(self._initial, current, strict=True):
                parameter.data = data


@torch.no_grad()
def _starts_as_base(model: PeftModel) -> bool:
    """Whether the untrained adapters change nothing, so that switching them off gives the model before training."""
    inputs: dict[str, Any] = {"input_ids": torch.arange(PROBE_TOKENS, device=model.device)[None]}
    with evaluating(model):
        adapted = model(**inputs).logits
        with model.disable_adapter():
            base = model(**inputs).logits
    return torch.equal(adapted, base)
