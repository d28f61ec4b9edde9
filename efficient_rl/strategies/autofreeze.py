"""AutoFreeze: the first blocks freeze one after the other, once their gradients hardly change any more."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from efficient_rl.strategies.blocks import check_number, check_whole, find_blocks, names_by_block, refuse_adapters
from efficient_rl.strategies.modules import tied_head
from efficient_rl.strategies.protocol import Strategy
from efficient_rl.strategies.switching import Switching

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

TINY = 1e-30


@dataclass(frozen=True)
class AutoFreeze(Strategy):
    """AutoFreeze (arXiv:2102.01386): after each of `intervals` equal parts of the run a longer prefix of blocks may freeze.

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
        check_number("strategy.percentile", self.percentile, 0 <= self.percentile <= 100, "from 0 to 100")
        check_whole("strategy.intervals", self.intervals, low=1)
        if not isinstance(self.freeze_tied, bool):
            raise ValueError(f"strategy.freeze_tied={self.freeze_tied!r} must be true or false")

    def apply(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """The same model with everything trainable."""
        refuse_adapters(model, "autofreeze")
        find_blocks(model)
        return model.requires_grad_(True)

    def schedule(self, model: "PreTrainedModel", seed: int, steps: int) -> "AutoFreezeSchedule":
        """The growing prefix; an interval is at least one step."""
        interval = max(1, steps // self.intervals)
        return AutoFreezeSchedule(model, self.percentile, interval, self.freeze_tied)


class AutoFreezeSchedule(Switching):
    """Sums gradients over an interval and decides at the start of the next."""

    def __init__(self, model: "PreTrainedModel", percentile: float, interval: int, freeze_tied: bool) -> None:
        super().__init__(model)
        self.blocks = names_by_block(model)
        self.embeddings = set() if tied_head(model) and not freeze_tied else _embeddings(model, self.blocks)
        self.percentile, self.interval = percentile, interval
        self.start = 0
        self.norms: list[float] = []
        self.sums: dict[str, torch.Tensor] = {}

    def begin_step(self, step: int) -> None:
        if step and step % self.interval == 0:
            self._decide()
        frozen = self.embeddings.union(*self.blocks[: self.start]) if self.start else set()
        self.switch(set(self.parameters) - frozen)

    def see_gradients(self) -> None:
        import torch

        seen = {name: self.parameters[name].grad for block in self.blocks[self.start :] for name in block}
        gradients = {name: gradient for name, gradient in seen.items() if gradient is not None}
        if known := [name for name in gradients if name in self.sums]:
            torch._foreach_add_([self.sums[name] for name in known], [gradients[name] for name in known])
        self.sums |= {name: gradient.clone() for name, gradient in gradients.items() if name not in self.sums}

    def _decide(self) -> None:
        import numpy as np
        import torch

        names = list(self.sums)
        totals = torch.stack(torch._foreach_norm([self.sums[name] for name in names], 1)).tolist() if names else []
        by_name = dict(zip(names, totals, strict=True))
        norms = [sum(by_name.get(name, 0.0) for name in block) for block in self.blocks]
        if self.norms:
            changes = [abs(before - now) / max(before, TINY) for before, now in zip(self.norms, norms, strict=True)]
            threshold = np.percentile(changes[self.start :], self.percentile)
            self.start += next((i for i, change in enumerate(changes[self.start :]) if change >= threshold), 0)
        self.norms, self.sums = norms, {}

    def state_dict(self) -> dict[str, Any]:
        """The prefix, the norms of the last interval and the sums of the present one."""
        sums = {name: total.clone() for name, total in self.sums.items()}
        return super().state_dict() | {"start": self.start, "norms": list(self.norms), "sums": sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.start, self.norms = state["start"], list(state["norms"])
        self.sums = {name: total.to(self.parameters[name].device, copy=True) for name, total in state["sums"].items()}


def _embeddings(model: "PreTrainedModel", blocks: list[list[str]]) -> set[str]:
    from torch import nn

    inside = {name for block in blocks for name in block}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    return {names[id(parameter)] for table in tables for parameter in table.parameters()} - inside
