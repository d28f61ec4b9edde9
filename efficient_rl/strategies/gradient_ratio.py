"""Auto-RGN: each tensor's learning rate follows the size of its gradient relative to its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from efficient_rl.strategies.measuring import Measuring, MeasuringSchedule

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class AutoRGN(Measuring):
    """Auto-RGN (arXiv:2210.11466): a tensor's rate is scaled by its gradient norm, |g| / |w|.

    The norm is averaged over the first `batches` steps of every `interval` (published: 5 batches of
    every epoch) and divided by the largest; the first interval uses the mean so far. Everything
    trains, so it costs what full training costs. A tensor of zeros has no ratio and keeps factor 1;
    one that has only just left zero can dwarf all others. With GRPO the ratios are noisy. The
    published code makes a new Adam every epoch; here its state is kept.
    """

    def schedule(self, model: "PreTrainedModel", seed: int, steps: int) -> "RGNSchedule":
        return RGNSchedule(model, self.interval, self.batches)


class RGNSchedule(MeasuringSchedule):
    """Relative gradient norms, summed over the measured steps, and the factors that follow."""

    def __init__(self, model: "PreTrainedModel", interval: int, batches: int) -> None:
        super().__init__(model, interval, batches)
        self.sums: dict[str, float] = {}
        self.factors: dict[str, float] = {}

    def measure(self, gradients: "dict[str, torch.Tensor]") -> bool:
        import torch

        above = torch._foreach_norm(list(gradients.values()))
        below = torch._foreach_norm([self.parameters[name].detach() for name in gradients])
        for name, gradient, weight in zip(gradients, *torch.stack([*above, *below]).view(2, -1).tolist(), strict=True):
            if weight > 0:
                self.sums[name] = self.sums.get(name, 0.0) + gradient / weight
        return True

    def decide(self) -> None:
        largest = max(self.sums.values(), default=0.0)
        if largest > 0:
            self.factors = {name: total / largest for name, total in self.sums.items()}

    def forget(self) -> None:
        super().forget()
        self.sums = {}

    def learning_rate_factors(self) -> Mapping[str, float]:
        """Each tensor's mean ratio over the largest one's."""
        return self.factors

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"sums": dict(self.sums), "factors": dict(self.factors)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.sums, self.factors = dict(state["sums"]), dict(state["factors"])
