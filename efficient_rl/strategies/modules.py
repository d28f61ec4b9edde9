"""Strategies that choose once, by kind of parameter, which of them train."""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from efficient_rl.errors import require
from efficient_rl.strategies.blocks import check_names, find_blocks, let_train, matching, part_names, train_only
from efficient_rl.strategies.extent import Extent, Shape
from efficient_rl.strategies.protocol import Strategy

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

PARTS = ("attention", "mlp", "norms", "biases", "head")
_ATTENTION = re.compile(r"attn|attention")
_MLP = re.compile(r"mlp|ffn?$|feed_?forward|moe|experts|^fc\d|^ff")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Modules(Strategy):
    """Parameters train whose names match an expression, such as `v_proj` or `layers.[0-3].mlp`."""

    patterns: Sequence[str]
    also_train: Sequence[str] = ()

    def __post_init__(self) -> None:
        patterns = check_names("strategy.patterns", self.patterns, "[v_proj, down_proj]")
        nothing = "selects nothing; list names such as [v_proj, down_proj]"
        require(bool(patterns), "strategy.patterns", list(patterns), nothing)
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"strategy.patterns: {pattern!r} is no regular expression ({error})") from error
        object.__setattr__(self, "patterns", patterns)
        object.__setattr__(self, "also_train", check_names("strategy.also_train", self.also_train, "[norm, lm_head]"))

    def apply(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """The same model with the chosen parameters trainable; ValueError without any."""
        train_only(model, (), self.also_train)
        for pattern in self.patterns:
            chosen = matching(model, pattern)
            if not chosen:
                parts = ", ".join(part_names(model))
                raise ValueError(f"strategy.patterns: {pattern!r} finds no parameter; parts of this model: {parts}")
            let_train(chosen)
        return model


@dataclass(frozen=True)
class Parts(Strategy):
    """Parameters of the named kinds train: attention, mlp, norms, biases, head.

    Biases alone are BitFit (arXiv:2106.10199), and include those of norms; Llama has none, Qwen2
    only those of q, k and v. The head is what the model's `get_output_embeddings` returns: where it
    is tied, the embeddings train with it, and backward then goes through every block.
    """

    parts: Sequence[str]
    also_train: Sequence[str] = ()

    def __post_init__(self) -> None:
        parts = check_names("strategy.parts", self.parts, "[attention, norms]")
        known = bool(parts) and set(parts) <= set(PARTS)
        require(known, "strategy.parts", list(parts), f"must name some of {', '.join(PARTS)}")
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "also_train", check_names("strategy.also_train", self.also_train, "[norm, lm_head]"))

    def extent(self, shape: Shape, seed: int, steps: int) -> Extent:
        sizes = {"attention": shape.matrices("attn"), "mlp": shape.matrices("mlp"), "norms": shape.vectors}
        size = sum(sizes.get(part, 0) for part in self.parts)
        share = size / shape.block
        lowest = 0 if set(self.parts) != {"head"} else shape.blocks
        names = [*self.also_train, *(["lm_head"] if "head" in self.parts else [])]
        return Extent(shape.blocks * size, shape.blocks * size, lowest, share).also(names, shape)

    def apply(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """The same model with those kinds trainable; ValueError for a kind that it lacks."""
        train_only(model, (), self.also_train)
        for part in self.parts:
            chosen = _find(model, part)
            if not chosen:
                raise ValueError(f"strategy.parts: {_why(model, part)}; parts of this model: {', '.join(part_names(model))}")
            let_train(chosen)
        return model


def is_bias(name: str) -> bool:
    """Whether a parameter of that name is a bias."""
    return re.fullmatch(r"(.*[._])?bias", name) is not None


def is_norm(module: "nn.Module") -> bool:
    """Whether a module is a normalisation layer, of whatever kind."""
    return "norm" in type(module).__name__.lower()


def block_matrices(model: "PreTrainedModel") -> "dict[str, nn.Parameter]":
    """The 2-D weights of attention and MLP in all blocks, by name."""
    inside = {*_parameters(_modules(model, "attention")), *_parameters(_modules(model, "mlp"))}
    return {name: p for name, p in model.named_parameters() if p in inside and p.ndim == 2}


def tied_head(model: "PreTrainedModel") -> bool:
    """Whether the output head and the input embeddings are one tensor."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def _find(model: "PreTrainedModel", part: str) -> "list[nn.Parameter]":
    if part == "biases":
        return [parameter for name, parameter in model.named_parameters() if is_bias(name)]
    if part == "norms":
        return _parameters(filter(is_norm, model.modules()))
    if part == "head":
        if tied_head(model):
            log.warning("head and embeddings of this model are one tensor: both train")
        return _parameters(filter(None, [model.get_output_embeddings()]))
    return _parameters(_modules(model, part))


def _parameters(modules: "Iterable[nn.Module]") -> "list[nn.Parameter]":
    return [parameter for module in modules for parameter in module.parameters()]


def _modules(model: "PreTrainedModel", part: str) -> "list[nn.Module]":
    wanted = {"attention": _ATTENTION, "mlp": _MLP}[part]
    children = chain.from_iterable(block.named_children() for block in find_blocks(model))
    return [module for name, module in children if wanted.search(name) and not is_norm(module)]


def _why(model: "PreTrainedModel", part: str) -> str:
    if part == "biases":
        return f"{type(model).__name__} has no biases, its layers were built without them; use [norms] or strategy=lora"
    return f"{type(model).__name__} has no {part} that could be found"
