"""What a strategy is: which parameters may train, which do now, and with what optimizer."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from efficient_rl.strategies.extent import Extent, Shape

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class AdamSettings:
    """What a run says about its optimizer; Adam's names."""

    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def arguments(self) -> dict[str, Any]:
        """The same under the names of torch's optimizers."""
        values = (self.learning_rate, self.betas, self.epsilon, self.weight_decay)
        return dict(zip(("lr", "betas", "eps", "weight_decay"), values, strict=True))


class Schedule(Protocol):
    """The changing part of a dynamic strategy: which parameters each step updates.

    A step is one update of the optimizer. The order within it: `begin_step`, generation, forward
    and backward passes, `see_gradients`, clipping, the optimizer, `see_update`. Whoever trains
    drops the gradient of what is not in `active` after `see_gradients`, and its optimizer state.
    All names are those of `model.named_parameters()`.
    """

    @property
    def active(self) -> Collection[str]:
        """The parameters that this step updates."""

    def begin_step(self, step: int) -> None:
        """Choose for the step, counted from 0, and set `requires_grad` accordingly."""

    def see_gradients(self) -> None:
        """The gradients of the step are complete, and not yet clipped."""

    def see_update(self) -> None:
        """The optimizer has updated the weights; their gradients are still there."""

    def learning_rate_factors(self) -> Mapping[str, float]:
        """Factors on the learning rate, by parameter; 1 for those that it does not name."""

    def state_dict(self) -> dict[str, Any]:
        """All that an exact resume needs: tensors, numbers, strings, lists and dictionaries."""

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Strategy(Protocol):
    """A way to train only part of any transformers model.

    Inherit from it to get what most of them share: fits every model, nothing changes during
    training, AdamW.
    """

    def check_blocks(self, blocks: int) -> None:
        """Raise ValueError where the strategy cannot work on a model with that many blocks."""

    def extent(self, shape: Shape, seed: int, steps: int) -> Extent | None:
        """How much trains on a model of this shape; None where that takes the model itself."""
        return None

    def apply(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """Mark or wrap the parameters that may ever train, and return the model to train."""
        ...

    def schedule(self, model: "PreTrainedModel", seed: int, steps: int) -> Schedule | None:
        """The schedule of trained parameters over `steps`; None where all always train."""
        return None

    def optimizer(self, model: "PreTrainedModel", settings: AdamSettings) -> "Optimizer | None":
        """The method's own optimizer over all that may ever train; None for AdamW."""
        return None

    def save(self, model: "PreTrainedModel", folder: Path) -> None:
        """Write the trained model or its adapter, for the Auto classes of transformers or PEFT."""
        model.save_pretrained(folder)


def has_own(strategy: Strategy | None, method: str) -> bool:
    """Whether a strategy has a form of its own of `schedule`, `optimizer` or `save`."""
    return getattr(type(strategy), method, None) not in (None, getattr(Strategy, method))
