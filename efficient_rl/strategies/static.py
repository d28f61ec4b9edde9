"""Strategies that choose once, by position, which parameters train."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from efficient_rl.errors import require, require_one_of, require_whole
from efficient_rl.strategies.blocks import check_names, find_blocks, train_only
from efficient_rl.strategies.extent import Extent, Shape, everything, whole_blocks
from efficient_rl.strategies.protocol import Strategy
from efficient_rl.strategies.selection import Layers as Selection
from efficient_rl.strategies.selection import check_layers, resolve_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PARTS = ("first", "second", "third", "last")


@dataclass(frozen=True)
class Full(Strategy):
    """Every parameter trains."""

    def extent(self, shape: Shape, seed: int, steps: int) -> Extent:
        return everything(shape)

    def apply(self, model: "PreTrainedModel") -> "PreTrainedModel":
        return model.requires_grad_(True)


@dataclass(frozen=True)
class _Consecutive(Strategy):
    k: int
    also_train: Sequence[str] = ()

    def __post_init__(self) -> None:
        require_whole("strategy.k", self.k, 1)
        object.__setattr__(self, "also_train", check_names("strategy.also_train", self.also_train, "[norm, lm_head]"))

    def check_blocks(self, blocks: int) -> None:
        """Raise ValueError where the model has fewer than k blocks."""
        bound = f"exceeds the model's {blocks} blocks; use k<={blocks} or strategy=full"
        require(self.k <= blocks, "strategy.k", self.k, bound)


@dataclass(frozen=True)
class FirstK(_Consecutive):
    """The first k blocks train; embeddings, norm and head only if in `also_train`."""

    def extent(self, shape: Shape, seed: int, steps: int) -> Extent:
        return whole_blocks(shape, range(self.k), self.also_train)

    def apply(self, model: "PreTrainedModel") -> "PreTrainedModel":
        blocks = find_blocks(model)
        self.check_blocks(len(blocks))
        return train_only(model, blocks[: self.k], self.also_train)


@dataclass(frozen=True)
class LastK(_Consecutive):
    """The last k blocks train; embeddings, norm and head only if in `also_train`."""

    def extent(self, shape: Shape, seed: int, steps: int) -> Extent:
        return whole_blocks(shape, range(shape.blocks)[-self.k :], self.also_train)

    def apply(self, model: "PreTrainedModel") -> "PreTrainedModel":
        blocks = find_blocks(model)
        self.check_blocks(len(blocks))
        return train_only(model, blocks[-self.k :], self.also_train)


@dataclass(frozen=True)
class Layers(Strategy):
    """Only the named transformer blocks train: numbers, slices and ratios as in `resolve_layers`.

    `last 25%` is what "What Would Elsa Do?" (arXiv:1911.03090) found to give about 90 % of full
    fine-tuning's quality. The backward pass goes down to the lowest of them, so the same number of
    blocks costs less near the end.
    """

    layers: Selection
    also_train: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", check_layers("strategy.layers", self.layers))
        object.__setattr__(self, "also_train", check_names("strategy.also_train", self.also_train, "[norm, lm_head]"))

    def check_blocks(self, blocks: int) -> None:
        """Raise ValueError where the model has not all of the layers."""
        resolve_layers(self.layers, blocks)

    def extent(self, shape: Shape, seed: int, steps: int) -> Extent:
        return whole_blocks(shape, resolve_layers(self.layers, shape.blocks), self.also_train)

    def apply(self, model: "PreTrainedModel") -> "PreTrainedModel":
        blocks = find_blocks(model)
        return train_only(model, [blocks[i] for i in resolve_layers(self.layers, len(blocks))], self.also_train)


@dataclass(frozen=True)
class Block(Strategy):
    """Surgical fine-tuning (arXiv:2210.11466): one contiguous group of transformer blocks trains.

    Part `first`, `second`, `third` or `last` is that quarter of the blocks (of 6: block 0, blocks
    1-2, block 3, blocks 4-5); or, with `part=null`, the `length` blocks from `start` on. The paper
    splits image classifiers into their stages and calls the classifier itself the last part; here
    embeddings and head stay frozen, unless in `also_train`. Which part is best depended there on
    what had shifted (input, features or output): try all four.
    """

    part: str | None = None
    start: int | None = None
    length: int = 1
    also_train: Sequence[str] = ()

    def __post_init__(self) -> None:
        if (self.part is None) == (self.start is None):
            raise ValueError(
                f"strategy.part={self.part!r} and strategy.start={self.start!r}: give one of them; "
                "strategy.part=null where strategy.start and strategy.length choose"
            )
        if self.part is not None:
            require_one_of("strategy.part", self.part, PARTS)
        if self.start is not None:
            require_whole("strategy.start", self.start, 0)
        require_whole("strategy.length", self.length, 1)
        object.__setattr__(self, "also_train", check_names("strategy.also_train", self.also_train, "[norm, lm_head]"))

    def check_blocks(self, blocks: int) -> None:
        """Raise ValueError where the model is too short for the group."""
        self._range(blocks)

    def extent(self, shape: Shape, seed: int, steps: int) -> Extent:
        return whole_blocks(shape, self._range(shape.blocks), self.also_train)

    def apply(self, model: "PreTrainedModel") -> "PreTrainedModel":
        blocks = find_blocks(model)
        return train_only(model, [blocks[i] for i in self._range(len(blocks))], self.also_train)

    def _range(self, blocks: int) -> range:
        if self.part is not None:
            quarter = PARTS.index(self.part)
            if blocks < len(PARTS):
                raise ValueError(
                    f"strategy.part={self.part} needs 4 blocks or more, the model has {blocks}; use strategy.start"
                )
            return range(quarter * blocks // 4, (quarter + 1) * blocks // 4)
        assert self.start is not None
        if self.start + self.length > blocks:
            raise ValueError(
                f"strategy.start={self.start} with strategy.length={self.length} exceeds the model's {blocks} blocks; "
                f"use start + length <= {blocks}"
            )
        return range(self.start, self.start + self.length)
