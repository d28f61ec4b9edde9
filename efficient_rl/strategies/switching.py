"""What schedules of dynamic strategies share: parameters by name, switched on and off."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from efficient_rl.strategies.protocol import Schedule

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


class Switching(Schedule):
    """A schedule over everything that `apply` left trainable; at first all of it is active.

    The constructor changes nothing about the model, so that an optimizer over all of it can be made
    before or after.
    """

    def __init__(self, model: "PreTrainedModel") -> None:
        self.parameters: dict[str, nn.Parameter] = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._active = frozenset(self.parameters)

    @property
    def active(self) -> Collection[str]:
        return self._active

    def switch(self, names: Collection[str]) -> None:
        """Make exactly these parameters active, with gradients for them alone."""
        self._active = frozenset(names)
        self.require_gradients(self._active)

    def require_gradients(self, names: Collection[str]) -> None:
        """Let exactly these parameters have gradients."""
        for name, parameter in self.parameters.items():
            if parameter.requires_grad != (name in names):
                parameter.requires_grad_(name in names)

    def on_devices(self, saved: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
        """Copies of saved tensors, each on the device of the parameter that it belongs to."""
        return {name: tensor.to(self.parameters[name].device, copy=True) for name, tensor in saved.items()}

    def see_gradients(self) -> None:
        """Nothing to learn from them."""

    def see_update(self) -> None:
        """Nothing to learn from it."""

    def learning_rate_factors(self) -> Mapping[str, float]:
        """All 1."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"active": sorted(self._active)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the saved parameters active again; ValueError where the model lacks some."""
        if unknown := set(state["active"]) - set(self.parameters):
            raise ValueError(
                f"the saved schedule names {len(unknown)} parameters that cannot train here, such as {min(unknown)}; "
                "resume with the model and the strategy of the checkpoint"
            )
        self.switch(state["active"])
