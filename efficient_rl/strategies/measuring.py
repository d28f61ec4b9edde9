"""What Auto-RGN and Auto-SNR share: the start of each interval decides about its rest."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from efficient_rl.errors import require, require_whole
from efficient_rl.strategies.blocks import refuse_adapters
from efficient_rl.strategies.extent import Extent, Shape, everything
from efficient_rl.strategies.protocol import Strategy
from efficient_rl.strategies.switching import Switching

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Measuring(Strategy):
    """Measures `batches` steps at the start of every `interval` steps; everything may train."""

    interval: int = 20
    batches: int = 5

    def __post_init__(self) -> None:
        require_whole("strategy.batches", self.batches, 1)
        enough = isinstance(self.interval, int) and self.interval >= self.batches
        bound = f"must be a whole number of at least strategy.batches={self.batches}"
        require(enough, "strategy.interval", self.interval, bound)

    def extent(self, shape: Shape, seed: int, steps: int) -> Extent:
        return everything(shape)

    def apply(self, model: "PreTrainedModel") -> "PreTrainedModel":
        refuse_adapters(model, "auto_rgn or auto_snr")
        return model.requires_grad_(True)


class MeasuringSchedule(Switching):
    """Measures in the first steps of every interval, and decides after them."""

    least = 1

    def __init__(self, model: "PreTrainedModel", interval: int, batches: int) -> None:
        super().__init__(model)
        self.interval, self.batches = interval, batches
        self.position = 0
        self.decided = False
        self.measured = 0

    def begin_step(self, step: int) -> None:
        self.position = step % self.interval
        if self.position == 0:
            self.forget()
        self.require_gradients(self.parameters if self.position < self.batches else self._active)

    def see_gradients(self) -> None:
        if self.position >= self.batches:
            return
        gradients = {name: p.grad for name, p in self.parameters.items() if p.grad is not None}
        if gradients:
            self.measured += self.measure(gradients)
        last = self.position == self.batches - 1
        if self.measured >= self.least and (last or not self.decided):
            self.decide()
        if last:
            self.decided = self.decided or self.measured >= self.least
            self.forget()

    def measure(self, gradients: "dict[str, torch.Tensor]") -> bool:
        """Take in one step's gradients; whether they count."""
        raise NotImplementedError

    def decide(self) -> None:
        """Draw the conclusion from what was measured."""
        raise NotImplementedError

    def forget(self) -> None:
        self.measured = 0

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"decided": self.decided, "measured": self.measured}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.decided, self.measured = state["decided"], state["measured"]
