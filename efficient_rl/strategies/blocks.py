"""Finds the transformer blocks of any causal language model through its structure, and freezes all but named parts."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def find_blocks(model: "PreTrainedModel") -> "nn.ModuleList":
    """The list of transformer blocks: the `ModuleList` as long as the configuration's `num_hidden_layers`.

    Raises ValueError where the model has no such list.
    """
    from torch import nn

    count = model.config.get_text_config().num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and count > 0:
            return module
    raise ValueError(f"{type(model).__name__} has no list of {count} transformer blocks; use strategy=full or strategy=lora")


def train_only(model: "PreTrainedModel", modules: "Iterable[nn.Module]", also_train: Iterable[str]) -> "PreTrainedModel":
    """Freeze the model, then let the given modules and every parameter named in `also_train` train.

    A name selects every parameter whose dotted path contains it as one or more whole parts (`norm`, `embed_tokens`).
    Raises ValueError for a name that selects nothing.
    """
    model.requires_grad_(False)
    for module in modules:
        module.requires_grad_(True)
    for name in also_train:
        chosen = [p for path, p in model.named_parameters(remove_duplicate=False) if f".{name}." in f".{path}."]
        if not chosen:
            parts = sorted({path.split(".")[-2] for path, _ in model.named_parameters() if "." in path})
            raise ValueError(f"also_train={name!r} names no parameter; parts of this model: {', '.join(parts)}")
        for parameter in chosen:
            parameter.requires_grad_(True)
    return model


def check_whole(name: str, value: Any, low: int) -> None:
    """Raise ValueError unless `value` is a whole number of at least `low`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"{name}={value!r} must be a whole number of at least {low}")
