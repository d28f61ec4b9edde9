"""Finds the transformer blocks of any causal language model through its structure, and freezes all but named parts."""

from collections.abc import Iterable, Sequence
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
    decoder = model.get_decoder()  # first, because a vision tower may have as many blocks
    roots = [model] if decoder is None else [decoder, model]
    for module in (module for root in roots for module in root.modules()):
        if isinstance(module, nn.ModuleList) and len(module) == count and count > 0:
            return module
    raise ValueError(f"{type(model).__name__} has no list of {count} transformer blocks; use strategy=full or strategy=lora")


def names_by_block(model: "PreTrainedModel") -> list[list[str]]:
    """The names of every block's parameters, from the first block to the last."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [[names[id(parameter)] for parameter in block.parameters()] for block in find_blocks(model)]


def train_only(model: "PreTrainedModel", modules: "Iterable[nn.Module]", also_train: Iterable[str]) -> "PreTrainedModel":
    """Freeze the model, then let the given modules and every parameter named in `also_train` train.

    A name selects every parameter whose dotted path contains it as one or more whole parts (`norm`,
    `embed_tokens`). Raises ValueError for a name that selects nothing.
    """
    model.requires_grad_(False)
    for module in modules:
        module.requires_grad_(True)
    for name in also_train:
        chosen = [p for path, p in model.named_parameters(remove_duplicate=False) if f".{name}." in f".{path}."]
        if not chosen:
            raise ValueError(f"also_train={name!r} names no parameter; parts of this model: {', '.join(part_names(model))}")
        for parameter in chosen:
            parameter.requires_grad_(True)
    return model


def is_matrix(parameter: Any) -> bool:
    """Whether it is a parameter of two dimensions, as those of linear modules are."""
    return getattr(parameter, "ndim", 0) == 2


def part_names(model: "PreTrainedModel") -> list[str]:
    """The last names of all modules that hold parameters, for messages."""
    return sorted({path.split(".")[-2] for path, _ in model.named_parameters(remove_duplicate=False) if "." in path})


def refuse_adapters(model: "PreTrainedModel", strategy: str) -> None:
    """Raise ValueError for a model with PEFT's adapters, whose frozen weights this strategy would train or freeze."""
    if hasattr(model, "peft_config"):
        raise ValueError(
            f"strategy={strategy} works on a model's own weights, not on {type(model).__name__} with its adapters; "
            "give it the model without adapters, or use strategy=lora alone"
        )


def check_whole(name: str, value: Any, low: int) -> None:
    """Raise ValueError unless `value` is a whole number of at least `low`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"{name}={value!r} must be a whole number of at least {low}")


def check_number(name: str, value: Any, holds: bool, bound: str) -> None:
    """Raise ValueError unless `value` is a number for which the bound holds."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not holds:
        raise ValueError(f"{name}={value!r} must be a number {bound}")


def check_names(name: str, values: Any, example: str) -> tuple[str, ...]:
    """One string or many as a tuple. Raises ValueError for anything but strings."""
    names = (values,) if isinstance(values, str) else values
    if not isinstance(names, Sequence) or not all(isinstance(item, str) and item for item in names):
        raise ValueError(f"{name}={values!r} must list names, such as {example}")
    return tuple(names)
