"""Finds the linear modules that shall get an adapter, and checks what adapters are given."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from efficient_rl.strategies.blocks import find_blocks
from efficient_rl.strategies.selection import Layers, resolve_layers

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def find_targets(
    model: "PreTrainedModel", target_modules: str | Sequence[str], layers: Layers | None = None
) -> "dict[str, nn.Module]":
    """The linear modules to adapt, by name. Raises ValueError for what selects none, with the names there are."""
    from torch import nn

    linear = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) or is_conv1d(m)}
    head = model.get_output_embeddings()
    if target_modules == "all-linear":
        chosen = {name for name, module in linear.items() if module is not head}
    elif isinstance(target_modules, str):
        chosen = {name for name in linear if name_matches(target_modules, name)}
    else:
        found = {ending: {name for name in linear if f".{name}".endswith(f".{ending}")} for ending in target_modules}
        if missing := [ending for ending, names in found.items() if not names]:
            raise ValueError(_no_target(list(target_modules), f"{missing[0]!r} names no linear module", linear))
        chosen = set().union(*found.values())
    if not chosen:
        raise ValueError(_no_target(target_modules, "names no linear module", linear))
    if layers is not None:
        blocks = find_blocks(model)
        allowed = {id(module) for number in resolve_layers(layers, len(blocks)) for module in blocks[number].modules()}
        chosen = {name for name in chosen if id(linear[name]) in allowed}
        if not chosen:
            raise ValueError(_no_target(target_modules, f"names no linear module within layers={layers!r}", linear))
    return {name: module for name, module in linear.items() if name in chosen}


def name_matches(pattern: str, name: str) -> bool:
    """Whether the regular expression fits the whole name; ValueError where it is none."""
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error as error:
        raise ValueError(
            f"lora.target_modules={pattern!r} is no regular expression ({error}); or use a list of names"
        ) from error


def _no_target(value: Any, reason: str, linear: "Mapping[str, nn.Module]") -> str:
    endings = dict.fromkeys(name.rpartition(".")[2] for name in linear)
    return f"lora.target_modules={value!r}: {reason}; use all-linear or a list of {', '.join(endings)}"


def is_conv1d(module: "nn.Module") -> bool:
    """Whether it is GPT-2's form of a linear module, whose weight has the shape (inputs, outputs)."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def stores_transposed(targets: "Mapping[str, nn.Module]") -> bool:
    """Whether the modules store (inputs, outputs) as Conv1D does, which PEFT wants to be told."""
    return any(is_conv1d(module) for module in targets.values())


def adapter_layers(model: "nn.Module") -> "list[tuple[str, Any]]":
    """The modules that PEFT has put in place of the adapted ones, with their names in the model."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]


def check_above_zero(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"{name}={value!r} must be above 0")


def check_share(name: str, value: Any) -> None:
    """Raise ValueError unless 0 <= value < 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{name}={value!r} must lie in 0 <= {name.rpartition('.')[2]} < 1")


def check_rank_fits(rank: int, targets: "Mapping[str, nn.Module]") -> None:
    """Raise ValueError where a module has fewer singular directions than `rank`."""
    bound, name = min((min(module.get_parameter("weight").shape), name) for name, module in targets.items())
    if rank > bound:
        raise ValueError(f"lora.rank={rank} exceeds the {bound} singular directions of {name}; use lora.rank<={bound}")
