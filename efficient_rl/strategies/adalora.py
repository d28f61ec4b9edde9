"""AdaLoRA: adapters in the form of an SVD, whose ranks shrink where they matter least."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from efficient_rl.errors import require, require_above_zero, require_share, require_whole
from efficient_rl.strategies.adapters import ADAPTER, LowRank
from efficient_rl.strategies.protocol import Schedule

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class AdaLora(LowRank):
    """AdaLoRA (arXiv:2303.10512): W + (alpha / r) P E Q, E diagonal; its least entries go.

    Starts with `initial_rank_factor` times `rank` (the mean at the end). The budget stays for the
    share `warmup` of the steps, falls by a cubic, and stays again for the share `final`.
    `orthogonality` weighs |P^T P - I| + |Q Q^T - I|, whose gradient the schedule adds. Rewards give
    small gradients, so a large weight lets that term rule P and Q.
    """

    initial_rank_factor: float = 1.5
    warmup: float = 0.1
    final: float = 0.3
    every: int = 1
    beta1: float = 0.85
    beta2: float = 0.85
    orthogonality: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("strategy.every", self.every, 1)
        for name in ("warmup", "final", "beta1", "beta2"):
            require_share(f"strategy.{name}", getattr(self, name))
        for name in ("beta1", "beta2"):
            require_above_zero(f"strategy.{name}", getattr(self, name))
        if not self.warmup + self.final < 1:
            raise ValueError(
                f"strategy.warmup={self.warmup} and strategy.final={self.final} leave no steps for the budget to fall in; "
                "their sum must be below 1"
            )
        factor = self.initial_rank_factor
        require(factor > 1, "strategy.initial_rank_factor", factor, "must be above 1, for ranks to fall")
        weight = self.orthogonality
        require(weight >= 0, "strategy.orthogonality", weight, "must not be negative")

    @property
    def initial_rank(self) -> int:
        """The rank of every adapter at the start."""
        return max(self.rank + 1, round(self.rank * self.initial_rank_factor))

    def config(self, targets: "Mapping[str, nn.Module]", **shared: Any) -> "PeftConfig":
        from peft import AdaLoraConfig

        return AdaLoraConfig(
            init_r=self.initial_rank,
            target_r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            deltaT=self.every,
            beta1=self.beta1,
            beta2=self.beta2,
            orth_reg_weight=self.orthogonality,
            total_step=1,  # until `schedule` knows better
            **shared,
        )

    def schedule(self, model: "PreTrainedModel", seed: int, steps: int) -> "BudgetSchedule":
        return BudgetSchedule(model, steps, int(self.warmup * steps), int(self.final * steps))


class BudgetSchedule(Schedule):
    """Drives PEFT's rank allocator; a step counts when done, so the last has the final budget.

    The ranks stay out of PEFT's configuration: what it saves keeps its shapes, with zeros where a
    rank is lost, and loads into a new model as it is.
    """

    def __init__(self, model: "PeftModel", steps: int, warmup: int, final: int) -> None:
        self._model = model.base_model
        self._allocator = model.base_model.rankallocator
        self._config = model.peft_config[ADAPTER]
        self._config.total_step, self._config.tinit, self._config.tfinal = steps, warmup, final
        self._names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        self._done = 0
        self._ranks: dict[str, list[bool]] = {}

    @property
    def active(self) -> Collection[str]:
        return self._names

    @property
    def total_rank(self) -> int | None:
        """How many singular values are left, None before any was dropped."""
        return sum(map(sum, self._ranks.values())) if self._ranks else None

    def begin_step(self, step: int) -> None:
        self._done = step + 1

    def see_gradients(self) -> None:
        """Add the gradient of the orthogonality penalty, which PEFT adds to another loss."""
        wanted = (f"lora_A.{ADAPTER}", f"lora_B.{ADAPTER}")
        factors = [(n, p) for n, p in self._model.named_parameters() if n.endswith(wanted)]
        for name, factor in factors:
            gradient = orthogonality_gradient(factor.detach(), rows="lora_A" in name)
            gradient = gradient * (self._config.orth_reg_weight / len(factors))
            factor.grad = gradient if factor.grad is None else factor.grad.add_(gradient)

    def see_update(self) -> None:
        """Note which singular values matter, and drop those beyond the budget."""
        last = self._config.total_step - self._config.tfinal
        if self._done > last:
            self._allocator.mask_using_rank_pattern(self._model, self._ranks)
            return
        self._allocator.update_ipt(self._model)
        budget, due = self._allocator.budget_schedule(self._done)
        if due or self._done == last:
            self._ranks = self._allocator.mask_to_budget(self._model, budget)
        if self._done == last:
            self._allocator.reset_ipt()

    def learning_rate_factors(self) -> Mapping[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {
            "ranks": self._ranks,
            "sensitivity": dict(self._allocator.exp_avg_ipt),
            "uncertainty": dict(self._allocator.exp_avg_unc),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._ranks = {name: list(ranks) for name, ranks in state["ranks"].items()}
        devices = {name: parameter.device for name, parameter in self._model.named_parameters()}
        for key, target in (("sensitivity", "exp_avg_ipt"), ("uncertainty", "exp_avg_unc")):
            setattr(self._allocator, target, {name: value.to(devices[name]) for name, value in state[key].items()})
        self._allocator.ipt = dict(self._allocator.exp_avg_ipt)  # PEFT only asks it for the names, then overwrites it


def orthogonality_gradient(factor: "Tensor", rows: bool) -> "Tensor":
    """The gradient of |M|: 2 M F / |M| with M = F F^T - I over rows, else 2 F M / |M|."""
    import torch

    gram = factor @ factor.T if rows else factor.T @ factor
    gap = gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    norm = gap.norm().clamp(min=torch.finfo(gap.dtype).tiny)
    gradient: torch.Tensor = 2 * (gap @ factor if rows else factor @ gap) / norm
    return gradient
