"""LISA and BAdam: a few transformer blocks train at a time, others after each interval."""

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from efficient_rl.errors import require, require_one_of, require_whole
from efficient_rl.strategies.blocks import find_blocks, names_by_block, refuse_adapters, train_only
from efficient_rl.strategies.extent import Extent, Shape
from efficient_rl.strategies.protocol import Strategy
from efficient_rl.strategies.switching import Switching

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ORDERS = ("random", "descending", "ascending")


@dataclass(frozen=True)
class Lisa(Strategy):
    """LISA (arXiv:2403.17919): every `interval` steps other `active_layers` blocks train.

    Embeddings, final norm and head always train, so backward goes through every block: it saves
    memory, not time. The same blocks may be drawn twice in a row. The optimizer must own all
    parameters from the start, and lose the state of those that freeze; published implementations
    got both wrong.
    """

    active_layers: int = 2
    interval: int = 20

    def __post_init__(self) -> None:
        require_whole("strategy.active_layers", self.active_layers, 1)
        require_whole("strategy.interval", self.interval, 1)

    def check_blocks(self, blocks: int) -> None:
        """Raise ValueError where the model has fewer blocks than shall train."""
        bound = f"exceeds the model's {blocks} blocks; use at most {blocks}"
        require(self.active_layers <= blocks, "strategy.active_layers", self.active_layers, bound)

    def apply(self, model: "PreTrainedModel") -> "PreTrainedModel":
        refuse_adapters(model, "lisa")
        self.check_blocks(len(find_blocks(model)))
        return model.requires_grad_(True)

    def extent(self, shape: Shape, seed: int, steps: int) -> Extent:
        always = shape.parameters - shape.blocks * shape.block
        active = always + self.active_layers * shape.block
        return Extent(shape.parameters, active, share=self.active_layers / shape.blocks)

    def schedule(self, model: "PreTrainedModel", seed: int, steps: int) -> "LisaSchedule":
        return LisaSchedule(model, self.active_layers, self.interval, seed)


class LisaSchedule(Switching):
    """Draws blocks; stateless but for what is active."""

    def __init__(self, model: "PreTrainedModel", active_layers: int, interval: int, seed: int) -> None:
        super().__init__(model)
        self.blocks = names_by_block(model)
        self.always = set(self.parameters).difference(*self.blocks)
        self.active_layers, self.interval, self.seed = active_layers, interval, seed

    def layers(self, step: int) -> list[int]:
        """The numbers of the blocks that train in that step."""
        draw = random.Random(f"lisa {self.seed} {step // self.interval}")
        return sorted(draw.sample(range(len(self.blocks)), self.active_layers))

    def begin_step(self, step: int) -> None:
        self.switch(self.always.union(*(self.blocks[i] for i in self.layers(step))))


@dataclass(frozen=True)
class BAdam(Strategy):
    """BAdam (arXiv:2404.02827): one block trains at a time, the next after `interval` steps.

    A new random order is drawn for every round through all blocks; the published code goes
    descending unless told. Embeddings, final norm and head never train. In a run of fewer than
    blocks x interval steps some blocks never train.
    """

    interval: int = 10
    order: str = "random"

    def __post_init__(self) -> None:
        require_whole("strategy.interval", self.interval, 1)
        require_one_of("strategy.order", self.order, ORDERS)

    def apply(self, model: "PreTrainedModel") -> "PreTrainedModel":
        refuse_adapters(model, "badam")
        return train_only(model, find_blocks(model), ())

    def extent(self, shape: Shape, seed: int, steps: int) -> Extent:
        rounds = range(min(shape.blocks, -(-steps // self.interval)))
        visited = (block_of(number, shape.blocks, self.order, seed) for number in rounds)
        lowest = min(visited)
        return Extent(shape.blocks * shape.block, shape.block, lowest, 1 / (shape.blocks - lowest))

    def schedule(self, model: "PreTrainedModel", seed: int, steps: int) -> "BAdamSchedule":
        return BAdamSchedule(model, self.interval, self.order, seed)


class BAdamSchedule(Switching):
    """Goes round the blocks; stateless but for what is active."""

    def __init__(self, model: "PreTrainedModel", interval: int, order: str, seed: int) -> None:
        super().__init__(model)
        self.blocks = names_by_block(model)
        self.interval, self.order, self.seed = interval, order, seed

    def layer(self, step: int) -> int:
        """The number of the block that trains in that step."""
        return block_of(step // self.interval, len(self.blocks), self.order, self.seed)

    def begin_step(self, step: int) -> None:
        self.switch(self.blocks[self.layer(step)])


def block_of(interval: int, blocks: int, order: str, seed: int) -> int:
    """The block that BAdam trains in an interval, counted from 0."""
    round_number, position = divmod(interval, blocks)
    numbers = list(range(blocks))
    if order == "random":
        random.Random(f"badam {seed} {round_number}").shuffle(numbers)
    return numbers[~position] if order == "descending" else numbers[position]
