"""AutoFreeze: the first blocks freeze in order, once their gradients hardly change."""

from collections import defaultdict
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from efficient_rl.errors import is_number, require, require_whole
from efficient_rl.strategies.blocks import find_blocks, names_by_block, refuse_adapters
from efficient_rl.strategies.extent import Extent, Shape, everything
from efficient_rl.strategies.modules import tied_head
from efficient_rl.strategies.protocol import Strategy
from efficient_rl.strategies.switching import Switching

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

TINY = 1e-30


@dataclass(frozen=True)
class AutoFreeze(Strategy):
    """AutoFreeze (arXiv:2102.01386): after each of `intervals` a longer prefix may freeze.

    With G_l the 1-norm of block l's gradients summed over the interval and eta_l = |G_l before -
    G_l| / G_l before, training now starts at the first block whose eta reaches the given percentile
    of those that still train. What froze stays frozen, the embeddings with it; final norm and head
    always train. One interval alone decides nothing. Where head and embeddings are one tensor it
    keeps training as head, and backward still goes through the frozen blocks to it:
    `freeze_tied=true` freezes it with the embeddings, which is what saves time on models with tied
    embeddings. The sum of the gradients takes one float per trained number, also in checkpoints.
    """

    percentile: float = 50
    intervals: int = 10
    freeze_tied: bool = False

    def __post_init__(self) -> None:
        inside = is_number(self.percentile) and 0 <= self.percentile <= 100
        require(inside, "strategy.percentile", self.percentile, "must be a number from 0 to 100")
        require_whole("strategy.intervals", self.intervals, 1)
        flag = isinstance(self.freeze_tied, bool)
        require(flag, "strategy.freeze_tied", self.freeze_tied, "must be true or false")

    def extent(self, shape: Shape, seed: int, steps: int) -> Extent:
        return everything(shape)

    def apply(self, model: "PreTrainedModel") -> "PreTrainedModel":
        refuse_adapters(model, "autofreeze")
        find_blocks(model)
        return model.requires_grad_(True)

    def schedule(self, model: "PreTrainedModel", seed: int, steps: int) -> "AutoFreezeSchedule":
        interval = max(1, steps // self.intervals)
        return AutoFreezeSchedule(model, self.percentile, interval, self.freeze_tied)


class AutoFreezeSchedule(Switching):
    """Sums gradients over an interval and decides at the start of the next."""

    def __init__(self, model: "PreTrainedModel", percentile: float, interval: int, freeze_tied: bool) -> None:
        super().__init__(model)
        self.blocks = names_by_block(model)
        self.embeddings: set[str] = set()
        if freeze_tied or not tied_head(model):
            self.embeddings = _embeddings(model, self.blocks)
        self.percentile, self.interval = percentile, interval
        self.start = 0
        self.norms: list[float] = []
        self.sums: dict[str, torch.Tensor] = {}

    def begin_step(self, step: int) -> None:
        if step and step % self.interval == 0:
            self._decide()
        frozen: set[str] = set()
        if self.start:
            frozen = self.embeddings.union(*self.blocks[: self.start])
        self.switch(self.parameters.keys() - frozen)

    def see_gradients(self) -> None:
        import torch

        totals, added = [], []
        for name in chain.from_iterable(self.blocks[self.start :]):
            gradient = self.parameters[name].grad
            if gradient is not None and name in self.sums:
                totals.append(self.sums[name])
                added.append(gradient)
            elif gradient is not None:
                self.sums[name] = gradient.clone()
        if totals:
            torch._foreach_add_(totals, added)

    def _decide(self) -> None:
        import numpy as np
        import torch

        by_name: dict[str, float] = defaultdict(float)
        if self.sums:
            totals = torch.stack(torch._foreach_norm(list(self.sums.values()), 1)).tolist()
            by_name.update(zip(self.sums, totals, strict=True))
        norms = [sum(map(by_name.__getitem__, block), 0.0) for block in self.blocks]
        if self.norms:
            changes = np.abs(np.subtract(self.norms, norms)) / np.maximum(self.norms, TINY)
            training = changes[self.start :]
            self.start += int(np.argmax(training >= np.percentile(training, self.percentile)))
        self.norms, self.sums = norms, {}

    def state_dict(self) -> dict[str, Any]:
        kept = {"start": self.start, "norms": list(self.norms), "sums": self.on_devices(self.sums)}
        return super().state_dict() | kept

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.start, self.norms = state["start"], list(state["norms"])
        self.sums = self.on_devices(state["sums"])


def _embeddings(model: "PreTrainedModel", blocks: list[list[str]]) -> set[str]:
    from torch import nn

    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in tables}
    return names.difference(*blocks)
