"""LoRA-XS: adapters of which only a small square matrix between two frozen ones trains."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from efficient_rl.errors import require
from efficient_rl.strategies.adapter_targets import adapter_layers, check_rank_fits, find_targets
from efficient_rl.strategies.adapters import ADAPTER, Lora, freeze_weights, save_as_lora

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class LoraXS(Lora):
    """LoRA-XS (arXiv:2405.17604): W + (alpha / rank) U S R V^T, where only R (r x r) trains.

    R is drawn with a standard deviation of `init_std`, so the start is only almost the base model
    (0 makes it exact). PEFT has no such method: this is its LoRA with A = R V^T, and `save` writes
    that as plain LoRA.
    """

    init_std: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.init_std >= 0, "strategy.init_std", self.init_std, "must not be negative")

    def apply(self, model: "PreTrainedModel") -> "PeftModel":
        import torch

        check_rank_fits(self.rank, find_targets(model, self.target_modules, self.layers))
        adapted = super().apply(model)
        for _, layer in adapter_layers(adapted):
            weight = layer.get_base_layer().weight.detach().float()
            left, values, right = torch.linalg.svd(weight.T if layer.fan_in_fan_out else weight, full_matrices=False)
            up = layer.lora_B[ADAPTER].weight
            up.data = (left[:, : self.rank] * values[: self.rank]).to(up.dtype).contiguous()
            _train_only_latent(layer.lora_A[ADAPTER], right[: self.rank].contiguous(), self.init_std)
            freeze_weights(layer, "lora_B")
        return adapted

    def save(self, model: "PreTrainedModel", folder: Path) -> None:
        """Write plain LoRA with A = R V^T."""
        layers = dict(adapter_layers(model))
        pairs = {name: (each.lora_A[ADAPTER].weight, each.lora_B[ADAPTER].weight) for name, each in layers.items()}
        save_as_lora(model, folder, pairs)


def _train_only_latent(linear: "nn.Linear", directions: "nn.Parameter", std: float) -> None:
    """Make the weight of `linear`, shape (r, inputs), R times the frozen `directions`."""
    import torch
    from torch.nn.utils import parametrize

    class Latent(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.R = torch.nn.Parameter(torch.randn(len(directions), len(directions)).to(directions) * std)

        def forward(self, frozen: torch.Tensor) -> torch.Tensor:
            return self.R @ frozen

    dtype = linear.weight.dtype
    del linear.weight
    linear.register_buffer("weight", directions.to(dtype))  # no parameter: PEFT would let it train with the rest of A
    parametrize.register_parametrization(linear, "weight", Latent().to(dtype))
