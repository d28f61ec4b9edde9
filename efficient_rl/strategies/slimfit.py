"""SlimFit: in every step only the tensors train that were moving most when they last did."""

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from efficient_rl.errors import is_number, require
from efficient_rl.strategies.blocks import refuse_adapters
from efficient_rl.strategies.extent import Extent, Shape
from efficient_rl.strategies.modules import is_bias
from efficient_rl.strategies.protocol import Strategy
from efficient_rl.strategies.switching import Switching

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

UNSEEN = 1e10


@dataclass(frozen=True)
class SlimFit(Strategy):
    """SlimFit (arXiv:2305.18513): floor(F T) of the T tensors are frozen, F the `freezing_rate`.

    Those with the smallest distance d = mean |W before - W| / |W before| of their last update
    freeze; biases always train. A frozen tensor keeps its d and returns when those of others fall
    below it; random d of up to 1e10 at the start let every tensor train once. The mean leaves out
    weights that were 0, whose quotient is infinite; a tensor of zeros stays active. d is relative,
    so tensors of small weights are favoured. The paper's rates: 0.75 to 0.95.
    """

    freezing_rate: float = 0.9

    def __post_init__(self) -> None:
        bound = "must be a number of at least 0, below 1 (the paper uses 0.75 to 0.95)"
        inside = is_number(self.freezing_rate) and 0 <= self.freezing_rate < 1
        require(inside, "strategy.freezing_rate", self.freezing_rate, bound)

    def extent(self, shape: Shape, seed: int, steps: int) -> Extent:
        share = 1 - self.freezing_rate
        return Extent(shape.parameters, share * shape.parameters, share=share)

    def apply(self, model: "PreTrainedModel") -> "PreTrainedModel":
        refuse_adapters(model, "slimfit")
        return model.requires_grad_(True)

    def schedule(self, model: "PreTrainedModel", seed: int, steps: int) -> "SlimFitSchedule":
        return SlimFitSchedule(model, self.freezing_rate, seed)


class SlimFitSchedule(Switching):
    """Keeps every tensor's last distance; copies the active weights while the optimizer works."""

    def __init__(self, model: "PreTrainedModel", freezing_rate: float, seed: int) -> None:
        super().__init__(model)
        draw = random.Random(f"slimfit {seed}")
        self.distances = {name: UNSEEN * draw.random() for name in self.parameters if not is_bias(name)}
        self.frozen_count = math.floor(freezing_rate * len(self.distances) + 1e-9)
        self._before: dict[str, torch.Tensor] = {}

    def begin_step(self, step: int) -> None:
        by_distance = sorted(self.distances, key=self.distances.__getitem__)
        self.switch(set(self.parameters).difference(by_distance[: self.frozen_count]))

    def see_gradients(self) -> None:
        self._before = {}
        for name in self.distances:
            if name in self._active and self.parameters[name].grad is not None:
                self._before[name] = self.parameters[name].detach().clone()

    def see_update(self) -> None:
        before, self._before = self._before, {}
        if before:
            now = [self.parameters[name].detach() for name in before]
            self.distances |= zip(before, relative_distances(list(before.values()), now), strict=True)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"distances": dict(self.distances)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.distances = {name: state["distances"][name] for name in self.distances}


def relative_distances(before: "list[torch.Tensor]", now: "list[torch.Tensor]") -> list[float]:
    """Mean |before - now| / |before| over the numbers not 0, by pair; alters `before`."""
    import torch

    changes = torch._foreach_sub(now, before)
    counts = torch.stack([torch.count_nonzero(tensor) for tensor in before])
    for tensor in before:
        tensor.masked_fill_(tensor == 0, math.inf)
    torch._foreach_div_(changes, before)
    distances = torch.stack(torch._foreach_norm(changes, 1)).double() / counts
    return [float(value) for value in distances.masked_fill(counts == 0, math.inf).tolist()]
