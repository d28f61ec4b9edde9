"""Spectrum: the matrices whose singular values have most signal over noise train."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from efficient_rl.errors import is_number, require
from efficient_rl.strategies.blocks import check_names, find_blocks, is_matrix, train_only
from efficient_rl.strategies.extent import Extent, Shape
from efficient_rl.strategies.protocol import Strategy

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Spectrum(Strategy):
    """Spectrum (arXiv:2406.06623): of each kind of matrix the `top_percent` of highest SNR train.

    The choice is made once, on the weights as loaded, and needs their singular values: seconds for
    0.5B parameters. Rounded to the nearest number of matrices, at least one of each kind. Norms,
    embeddings and head stay frozen unless in `also_train`.
    """

    top_percent: float = 50
    also_train: Sequence[str] = ()

    def __post_init__(self) -> None:
        inside = is_number(self.top_percent) and 0 < self.top_percent <= 100
        bound = "must be a number above 0 and at most 100"
        require(inside, "strategy.top_percent", self.top_percent, bound)
        object.__setattr__(
            self, "also_train", check_names("strategy.also_train", self.also_train, "[embed_tokens, lm_head]")
        )

    def extent(self, shape: Shape, seed: int, steps: int) -> Extent:
        share = self.top_percent / 100
        size = share * shape.blocks * shape.matrices()
        return Extent(size, size, share=share).also(self.also_train, shape)

    def apply(self, model: "PreTrainedModel") -> "PreTrainedModel":
        kinds: dict[str, list[nn.Module]] = {}
        for block in find_blocks(model):
            for name, module in block.named_modules():
                if is_matrix(getattr(module, "weight", None)):
                    kinds.setdefault(name, []).append(module)
        chosen: list[nn.Module] = []
        for modules in kinds.values():
            best_first = sorted(modules, key=lambda module: -signal_to_noise(module.get_parameter("weight")))
            chosen += best_first[: max(1, int(len(modules) * self.top_percent / 100 + 0.5))]
        return train_only(model, chosen, self.also_train)


def signal_to_noise(weight: "torch.Tensor") -> float:
    """Sum of the singular values above a threshold over that of the others, over the largest.

    The threshold is Marchenko and Pastur's edge s (1 + sqrt(b)), with b the shorter over the longer
    side and s the singular values' interquartile range / 1.349. Infinite where no value lies below
    it; 0 for a matrix of zeros.
    """
    import torch

    values = torch.linalg.svdvals(weight.detach().float())
    quartiles = torch.quantile(values, torch.tensor([0.25, 0.75], device=values.device))
    ratio = min(weight.shape) / max(weight.shape)
    threshold = (quartiles[1] - quartiles[0]) / 1.349 * (1 + ratio**0.5)
    signal, noise, largest = torch.stack(
        [values[values > threshold].sum(), values[values <= threshold].sum(), values[0]]
    ).tolist()
    if largest == 0:
        return 0.0
    return float(signal / noise / largest) if noise > 0 else float("inf")
