"""How much of a model trains, counted from its shape: for estimates before a model is loaded."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

Linear = tuple[str, int, int]  # the end of a module's name, its inputs and its outputs


@dataclass(frozen=True)
class Shape:
    """A decoder of the usual kind: equal blocks of attention and MLP between embeddings and head.

    `linear` are the linear modules of one block, `keys` the width of its keys, `vectors` the
    parameters of its norms and biases, `parameters` those of the whole model.
    """

    hidden: int
    inner: int
    blocks: int
    heads: int
    keys: int
    vocabulary: int
    tied: bool
    linear: tuple[Linear, ...]
    vectors: int
    parameters: int

    @property
    def block(self) -> int:
        """Parameters of one block."""
        return self.matrices() + self.vectors

    @property
    def embedding(self) -> int:
        """Parameters of the embeddings; as many as the head has."""
        return self.vocabulary * self.hidden

    def matrices(self, mark: str = "") -> int:
        """Parameters of those linear modules of a block whose names contain the mark."""
        return sum(inputs * outputs for name, inputs, outputs in self.linear if mark in name)


@dataclass(frozen=True)
class Extent:
    """What trains: `trained` parameters may ever, `active` do in a step, as `share` of each block.

    The backward pass ends below block `lowest`. `moments` are the numbers that the optimizer keeps
    of each active parameter, `added` those of adapters, which come on top of the model.
    """

    trained: float
    active: float
    lowest: int = 0
    share: float = 1.0  # of the matrices of the blocks that backward reaches
    moments: float = 2.0
    added: float = 0.0

    def also(self, names: Iterable[str], shape: Shape) -> "Extent":
        """The same with parts that train by name: embeddings and head count, norms do not."""
        found = self
        for name in names:
            if "embed" in name or "wte" in name or "head" in name:
                is_head = "head" in name and not shape.tied
                lowest = found.lowest if is_head else 0
                size = shape.embedding
                found = replace(found, trained=found.trained + size, active=found.active + size, lowest=lowest)
        return found


def everything(shape: Shape, moments: float = 2.0) -> Extent:
    """All parameters train in every step."""
    return Extent(shape.parameters, shape.parameters, moments=moments)


def whole_blocks(shape: Shape, numbers: Iterable[int], also_train: Iterable[str]) -> Extent:
    """The blocks of these numbers train."""
    chosen = sorted(numbers)
    size = len(chosen) * shape.block
    lowest = chosen[0] if chosen else shape.blocks
    share = len(chosen) / max(1, shape.blocks - lowest)
    return Extent(size, size, lowest, share).also(also_train, shape)
