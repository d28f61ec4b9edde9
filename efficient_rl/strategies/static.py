"""Strategies that choose once, by position, which parameters train."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from efficient_rl.strategies.blocks import check_whole, find_blocks, train_only

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Full:
    """Every parameter trains."""

    def check_blocks(self, blocks: int) -> None:
        """Fits every model."""

    def apply(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """The same model with every parameter trainable."""
        return model.requires_grad_(True)

    def schedule(self, model: "PreTrainedModel") -> None:
        """Nothing changes during training."""


@dataclass(frozen=True)
class _Consecutive:
    k: int
    also_train: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_whole("strategy.k", self.k, low=1)
        names = (self.also_train,) if isinstance(self.also_train, str) else tuple(self.also_train)
        if not all(isinstance(name, str) for name in names):
            raise ValueError(f"strategy.also_train={list(names)} must list names of parts, such as [norm, lm_head]")
        object.__setattr__(self, "also_train", names)

    def check_blocks(self, blocks: int) -> None:
        """Raise ValueError where the model has fewer than k blocks."""
        if self.k > blocks:
            raise ValueError(f"strategy.k={self.k} exceeds the model's {blocks} blocks; use k<={blocks} or strategy=full")

    def schedule(self, model: "PreTrainedModel") -> None:
        """Nothing changes during training."""


@dataclass(frozen=True)
class FirstK(_Consecutive):
    """Only the first k transformer blocks train; embeddings, final norm and head stay frozen unless in `also_train`."""

    def apply(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """The same model with the first k blocks trainable."""
        blocks = find_blocks(model)
        self.check_blocks(len(blocks))
        return train_only(model, blocks[: self.k], self.also_train)


@dataclass(frozen=True)
class LastK(_Consecutive):
    """Only the last k transformer blocks train; embeddings, final norm and head stay frozen unless in `also_train`."""

    def apply(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """The same model with the last k blocks trainable."""
        blocks = find_blocks(model)
        self.check_blocks(len(blocks))
        return train_only(model, blocks[-self.k :], self.also_train)
