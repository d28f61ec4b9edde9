"""What a strategy is: which parameters may ever train, and which of them train now."""

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Schedule(Protocol):
    """The changing part of a dynamic strategy; its state travels with the checkpoint."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Strategy(Protocol):
    """A way to train only part of a model. Works on any transformers model; nothing else in the package asks which it is."""

    def check_blocks(self, blocks: int) -> None:
        """Raise ValueError where the strategy cannot work on a model with that many blocks."""

    def apply(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """Mark or wrap the parameters that may ever train, and return the model to train."""

    def schedule(self, model: "PreTrainedModel") -> Schedule | None:
        """What decides, step by step, which of them train now; None where all of them always do."""
