"""Finds the linear modules that get an adapter."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from efficient_rl.errors import require
from efficient_rl.strategies.blocks import find_blocks
from efficient_rl.strategies.selection import Layers, resolve_layers

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

MAMBA = ("mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h")  # as PEFT names them
READ_BY_KERNELS = ("out_proj", "conv1d")  # whose weights these models read past an adapter; PEFT refuses them


def find_targets(
    model: "PreTrainedModel", target_modules: str | Sequence[str], layers: Layers | None = None
) -> "dict[str, nn.Module]":
    """The linear modules to adapt, by name; ValueError lists the names where none is selected.

    Those of Mamba models that take no adapter count as none.
    """
    from torch import nn

    linear = _adaptable(model)

    def refusal(reason: str) -> ValueError:
        endings = dict.fromkeys(name.rpartition(".")[2] for name in linear)
        remedy = f"use all-linear or a list of {', '.join(endings)}"
        return ValueError(f"lora.target_modules={target_modules!r}: {reason}; {remedy}")

    chosen: set[str] = set()
    if target_modules == "all-linear":
        head = model.get_output_embeddings()
        chosen.update(name for name, module in linear.items() if module is not head)
    elif isinstance(target_modules, str):
        chosen.update(filter(partial(name_matches, target_modules), linear))
    else:
        target_modules = list(target_modules)
        for ending in target_modules:
            named = {name for name in linear if f".{name}".endswith(f".{ending}")}
            if not named:
                raise refusal(f"{ending!r} names no linear module")
            chosen |= named
    if not chosen:
        raise refusal("names no linear module")
    if layers is not None:
        blocks, inside = find_blocks(model), set[nn.Module]()
        for number in resolve_layers(layers, len(blocks)):
            inside.update(blocks[number].modules())
        chosen = {name for name in chosen if linear[name] in inside}
        if not chosen:
            raise refusal(f"names no linear module within layers={layers!r}")
    return {name: module for name, module in linear.items() if name in chosen}


def _adaptable(model: "PreTrainedModel") -> "dict[str, nn.Module]":
    """The linear modules that work with an adapter."""
    passed = READ_BY_KERNELS if model.config.model_type in MAMBA else ()
    found = {}
    for name, module in model.named_modules():
        if is_linear(module) and name.rpartition(".")[2] not in passed:
            found[name] = module
    return found


def is_target(ending: str, target_modules: str | Sequence[str]) -> bool:
    """Whether a module of a block is adapted, by the end of its name; a pattern may mean any."""
    if isinstance(target_modules, str):
        return True
    return any(f".{ending}".endswith(f".{name}") for name in target_modules)


def name_matches(pattern: str, name: str) -> bool:
    """Whether the regular expression fits the whole name; ValueError where it is none."""
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error as error:
        raise ValueError(
            f"lora.target_modules={pattern!r} is no regular expression ({error}); or use a list of names"
        ) from error


def is_linear(module: "nn.Module") -> bool:
    """Whether it computes a linear map, which a model's own kind of `Linear` may not (routers)."""
    from torch import nn

    own = type(module).__module__.startswith("transformers.models.")
    return is_conv1d(module) or (isinstance(module, nn.Linear) and not own)


def is_conv1d(module: "nn.Module") -> bool:
    """Whether it is GPT-2's linear module, with a weight of shape (inputs, outputs)."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def adapter_layers(model: "nn.Module") -> "list[tuple[str, Any]]":
    """The modules that PEFT has put in place of the adapted ones, with their names in the model."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]


def check_rank_fits(rank: int, targets: "Mapping[str, nn.Module]") -> None:
    """Raise ValueError where a module has fewer singular directions than `rank`."""
    bound, name = min((min(module.get_parameter("weight").shape), name) for name, module in targets.items())
    excess = f"exceeds the {bound} singular directions of {name}; use lora.rank<={bound}"
    require(rank <= bound, "lora.rank", rank, excess)
