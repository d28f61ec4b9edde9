"""Finds the transformer blocks of a causal language model, and freezes all but named parts."""

import re
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from efficient_rl.errors import require

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def find_blocks(model: "PreTrainedModel") -> "nn.ModuleList":
    """The list of blocks: the `ModuleList` as long as the configuration's `num_hidden_layers`.

    Raises ValueError where the model has no such list.
    """
    from torch import nn

    count = model.config.get_text_config().num_hidden_layers
    decoder = model.get_decoder()  # first, because a vision tower may have as many blocks
    inner = () if decoder is None else decoder.modules()
    for module in chain(inner, model.modules()):
        if isinstance(module, nn.ModuleList) and len(module) == count and count > 0:
            return module
    raise ValueError(f"{type(model).__name__} has no list of {count} transformer blocks; use strategy=full or strategy=lora")


def names_by_block(model: "PreTrainedModel") -> list[list[str]]:
    """The names of every block's parameters, from the first block to the last."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [list(map(names.__getitem__, block.parameters())) for block in find_blocks(model)]


def train_only(model: "PreTrainedModel", modules: "Iterable[nn.Module]", also_train: Iterable[str]) -> "PreTrainedModel":
    """Freeze the model, then let the given modules and every parameter named in `also_train` train.

    A name selects every parameter whose dotted path contains it as one or more whole parts (`norm`,
    `embed_tokens`). Raises ValueError for a name that selects nothing.
    """
    model.requires_grad_(False)
    for module in modules:
        module.requires_grad_(True)
    for name in also_train:
        chosen = matching(model, rf"(^|\.){re.escape(name)}(\.|$)")
        remedy = f"names no parameter; parts of this model: {', '.join(part_names(model))}"
        require(bool(chosen), "also_train", name, remedy)
        let_train(chosen)
    return model


def matching(model: "PreTrainedModel", pattern: str) -> "list[nn.Parameter]":
    """The parameters in whose dotted paths the regular expression finds something."""
    named = model.named_parameters(remove_duplicate=False)
    return [parameter for path, parameter in named if re.search(pattern, path)]


def let_train(parameters: "Iterable[nn.Parameter]") -> None:
    """Give all of them gradients."""
    for parameter in parameters:
        parameter.requires_grad_(True)


def is_matrix(parameter: Any) -> bool:
    """Whether it is a parameter of two dimensions, as those of linear modules are."""
    return getattr(parameter, "ndim", 0) == 2


def part_names(model: "PreTrainedModel") -> list[str]:
    """The last names of all modules that hold parameters, for messages."""
    paths = dict(model.named_parameters(remove_duplicate=False))
    return sorted({path.split(".")[-2] for path in paths if "." in path})


def refuse_adapters(model: "PreTrainedModel", strategy: str) -> None:
    """Raise ValueError for a model with PEFT's adapters, whose base must stay frozen."""
    if hasattr(model, "peft_config"):
        raise ValueError(
            f"strategy={strategy} works on a model's own weights, not on {type(model).__name__} with its adapters; "
            "give it the model without adapters, or use strategy=lora alone"
        )


def check_names(name: str, values: Any, example: str) -> tuple[str, ...]:
    """One string or many as a tuple. Raises ValueError for anything but strings."""
    names = [values] if isinstance(values, str) else values
    listed = isinstance(names, Sequence) and all(isinstance(item, str) and item for item in names)
    require(listed, name, values, f"must list names, such as {example}")
    return tuple(names)
