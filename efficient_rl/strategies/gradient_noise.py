"""Auto-SNR: tensors whose gradients are mostly noise freeze."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from efficient_rl.errors import is_number, require, require_one_of
from efficient_rl.strategies.measuring import Measuring, MeasuringSchedule

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

VARIANCES = ("samples", "rows")


@dataclass(frozen=True)
class AutoSNR(Measuring):
    """Auto-SNR (arXiv:2210.11466): tensors whose gradients are mostly noise freeze.

    A tensor trains while the mean of g^2 / (variance + `epsilon`) reaches `threshold`.

    Measured over the first `batches` steps of every `interval`, for which all tensors have
    gradients again; a frozen one whose ratio has risen returns. If none reaches the threshold, the
    one that comes closest trains alone. `variance=samples` is the paper's definition: per number, g
    and the variance are mean and variance over the measured steps, one step's batch gradient being
    one sample; two floats a number are kept while it measures. `variance=rows` is how the published
    code reads it: for each step's gradient, the variance over tensor dimension 0, then averaged
    over the steps. With n rows and gradients well above the root of epsilon it is at least (n - 1)
    / n, so that a threshold of 0.95 hardly sees more than how small the gradients are. Steps
    without any gradient do not count.
    """

    threshold: float = 0.95
    variance: str = "samples"
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("threshold", "epsilon"):
            value = getattr(self, key)
            require(is_number(value) and value > 0, f"strategy.{key}", value, "must be a number above 0")
        require_one_of("strategy.variance", self.variance, VARIANCES)
        if self.variance == "samples" and self.batches < 2:
            raise ValueError(
                f"strategy.batches={self.batches} gives no variance over samples; use at least 2, or strategy.variance=rows"
            )

    def schedule(self, model: "PreTrainedModel", seed: int, steps: int) -> "SNRSchedule":
        kind = SampleSNRSchedule if self.variance == "samples" else RowSNRSchedule
        return kind(model, self.interval, self.batches, self.threshold, self.epsilon)


class SNRSchedule(MeasuringSchedule):
    """Keeps active what reaches the threshold."""

    def __init__(self, model: "PreTrainedModel", interval: int, batches: int, threshold: float, epsilon: float) -> None:
        super().__init__(model, interval, batches)
        self.threshold, self.epsilon = threshold, epsilon

    def ratios(self) -> dict[str, float]:
        """The ratio of signal to noise of every measured tensor."""
        raise NotImplementedError

    def decide(self) -> None:
        ratios = self.ratios()
        self._active = frozenset(name for name in self.parameters if ratios.get(name, 0.0) >= self.threshold)
        if not self._active:
            self._active = frozenset([max(ratios, key=ratios.__getitem__)])


class RowSNRSchedule(SNRSchedule):
    """The published code's reading: variance over dimension 0 of every gradient."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.sums: dict[str, float] = {}

    def measure(self, gradients: "dict[str, torch.Tensor]") -> bool:
        import torch

        values = []
        for gradient in gradients.values():
            variance = torch.zeros_like(gradient)
            if len(gradient) > 1:
                variance = gradient.var(dim=0, keepdim=True)
            values.append((gradient.square() / (variance + self.epsilon)).mean())
        ratios = torch.stack(values).tolist()
        for name, ratio in zip(gradients, ratios, strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + ratio
        return any(ratios)

    def ratios(self) -> dict[str, float]:
        return {name: total / self.measured for name, total in self.sums.items()}

    def forget(self) -> None:
        super().forget()
        self.sums = {}

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"sums": dict(self.sums)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.sums = dict(state["sums"])


class SampleSNRSchedule(SNRSchedule):
    """The paper's reading: variance over the steps, by Welford's algorithm."""

    least = 2

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.means: dict[str, torch.Tensor] = {}
        self.squares: dict[str, torch.Tensor] = {}

    def _zeros(self) -> "dict[str, torch.Tensor]":
        import torch

        return {name: torch.zeros_like(parameter) for name, parameter in self.parameters.items()}

    def measure(self, gradients: "dict[str, torch.Tensor]") -> bool:
        import torch

        if not any(torch.stack(torch._foreach_norm(list(gradients.values()))).tolist()):
            return False
        full = list((self._zeros() | gradients).values())
        if not self.means:
            self.means, self.squares = self._zeros(), self._zeros()
        means, squares = list(self.means.values()), list(self.squares.values())
        before = torch._foreach_sub(full, means)
        torch._foreach_add_(means, before, alpha=1 / (self.measured + 1))
        torch._foreach_addcmul_(squares, before, torch._foreach_sub(full, means))
        return True

    def ratios(self) -> dict[str, float]:
        import torch

        noise = torch._foreach_div(list(self.squares.values()), self.measured - 1)
        torch._foreach_add_(noise, self.epsilon)
        signal = torch._foreach_mul(list(self.means.values()), list(self.means.values()))
        torch._foreach_div_(signal, noise)
        return dict(zip(self.means, torch.stack([ratio.mean() for ratio in signal]).tolist(), strict=True))

    def forget(self) -> None:
        super().forget()
        self.means, self.squares = {}, {}

    def state_dict(self) -> dict[str, Any]:
        kept = {"means": self.on_devices(self.means), "squares": self.on_devices(self.squares)}
        return super().state_dict() | kept

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.means, self.squares = self.on_devices(state["means"]), self.on_devices(state["squares"])
