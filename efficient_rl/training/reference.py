"""The model before training, for the KL term: copies of what can train, no second model."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from efficient_rl.training.sampler import evaluating
from efficient_rl.training.sharding import is_sharded, local

PROBE_TOKENS = 8


class OverlayReference:
    """Initial copies of the trainable tensors; `restored` puts them in place for a pass.

    Adapters that start as the identity (LoRA's B = 0) need no copies: the reference is the model
    without them. So it is with `new_adapter`, whatever it starts as: TRL's reference for an adapter
    that it made itself. Made before a checkpoint is loaded, since it keeps the weights that the
    model has now.
    """

    def __init__(self, model: nn.Module, new_adapter: bool = False) -> None:
        self._model = model
        self._adapted: PeftModel | None = None
        if isinstance(model, PeftModel) and (new_adapter or _starts_as_base(model)):
            self._adapted = model
        trainable = [p for p in model.parameters() if p.requires_grad] if self._adapted is None else []
        self._initial = [(parameter, local(parameter.detach()).clone()) for parameter in trainable]

    @property
    def bytes(self) -> int:
        """What the copies hold."""
        return sum(initial.nbytes for _, initial in self._initial)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """The model before training, inside; only for passes without gradients.

        Without dropout, as TRL's second model; a PEFT model keeps its mode, as in TRL.
        """
        mode = nullcontext() if isinstance(self._model, PeftModel) else evaluating(self._model)
        with ExitStack() as stack:
            for parameter, initial in self._initial:
                stack.enter_context(_holding(parameter, initial))
            stack.enter_context(mode)
            if self._adapted is not None:
                stack.enter_context(self._adapted.disable_adapter())
            yield


@contextmanager
def _holding(parameter: nn.Parameter, values: torch.Tensor) -> Iterator[None]:
    """The parameter with these values, inside."""
    part = local(parameter.detach())
    current = part.clone() if is_sharded(parameter) else parameter.data
    try:
        if is_sharded(parameter):
            part.copy_(values)  # FSDP sends what lies in this memory, wherever the parameter points
        else:
            parameter.data = values
        yield
    finally:
        if is_sharded(parameter):
            part.copy_(current)
        else:
            parameter.data = current


@torch.no_grad()
def _starts_as_base(model: PeftModel) -> bool:
    """Whether the untrained adapters are the identity: disabling them gives the reference."""
    inputs: dict[str, Any] = {"input_ids": torch.arange(PROBE_TOKENS, device=model.device)[None]}
    with evaluating(model):
        adapted = model(**inputs).logits
        with model.disable_adapter():
            base = model(**inputs).logits
    return torch.equal(adapted, base)
