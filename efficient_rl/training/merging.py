"""Merges adapters into the weights for generation, and restores the same weights after it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def without_adapters(model: Any) -> Any:
    """The model below adapters of PEFT; the model itself where it has none."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """The model with merged adapters: a pass costs as much as the base model's.

    On exit every parameter is the same object with the same storage as before. Does nothing for a
    model without adapters of PEFT, and leaves out layers that cannot be merged (quantized ones, for
    example): these keep their separate adapter. Only for passes without gradients.
    """
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not isinstance(model, PeftModel):
        yield
        return
    kept: list[_Kept] = []
    try:
        with torch.no_grad():
            for layer in _instances(model, BaseTunerLayer):
                if _can_merge(layer):
                    kept.append(_Kept(layer))
                    kept[-1].merge()
        yield
    finally:
        for one in kept:
            one.put_back()


class _Kept:
    """The original parameters and bookkeeping of one adapted layer."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._base: nn.Module = layer.get_base_layer()
        self._parameters = {name: p for name, p in self._base._parameters.items() if name in ("weight", "bias")}
        self._caches = dict(getattr(layer, "_caches", {}))

    def merge(self) -> None:
        """Merge into copies, which other modules do not see, even where they share the weight."""
        for name, parameter in self._parameters.items():
            if parameter is not None:
                self._base._parameters[name] = nn.Parameter(parameter.detach().clone(), requires_grad=False)
        try:
            self._layer.merge()
        except NotImplementedError:  # this tuner or variant has no merged form
            self.put_back()

    def put_back(self) -> None:
        self._base._parameters.update(self._parameters)
        self._layer.merged_adapters.clear()
        if hasattr(self._layer, "_caches"):
            self._layer._caches = self._caches


def _instances(module: nn.Module, kind: type) -> Iterator[Any]:
    """The outermost modules of that kind; skips their submodules, which take most time."""
    for child in module.children():
        if isinstance(child, kind):
            yield child
        else:
            yield from _instances(child, kind)


def _can_merge(layer: Any) -> bool:
    """Whether the layer is a plain one with its adapter switched on and beside it."""
    weight = getattr(layer.get_base_layer(), "weight", None)
    plain = type(weight) is nn.Parameter and weight.is_floating_point()
    return plain and not layer.merged and not layer.disable_adapters and bool(layer.active_adapters)
