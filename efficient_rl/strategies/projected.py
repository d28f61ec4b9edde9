"""GaLore and APOLLO: full training with the optimizer's moments in a low-rank space."""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from efficient_rl.errors import is_number, require, require_one_of, require_whole
from efficient_rl.strategies.blocks import refuse_adapters
from efficient_rl.strategies.extent import Extent, Shape, everything
from efficient_rl.strategies.modules import block_matrices
from efficient_rl.strategies.protocol import AdamSettings, Strategy

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

SCALINGS = ("channel", "tensor")


@dataclass(frozen=True, kw_only=True)
class _Projected(Strategy):
    rank: int | float
    gap: int
    scale: float

    def __post_init__(self) -> None:
        if isinstance(self.rank, float):
            bound = "must be a number above 0 and below 1 (a share of each matrix's shorter side), or a whole number"
            require(0 < self.rank < 1, "strategy.rank", self.rank, bound)
        else:
            require_whole("strategy.rank", self.rank, 1)
        require_whole("strategy.gap", self.gap, 1)
        positive = is_number(self.scale) and self.scale > 0
        require(positive, "strategy.scale", self.scale, "must be a number above 0")

    def apply(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """The same model, all trainable; ValueError where the rank exceeds a matrix."""
        refuse_adapters(model, "galore or apollo")
        self._by_rank(model)
        return model.requires_grad_(True)

    def extent(self, shape: Shape, seed: int, steps: int) -> Extent:
        kept = 2.0 * (shape.parameters - shape.blocks * shape.matrices())
        for _, inputs, outputs in shape.linear:
            short, long = sorted((inputs, outputs))
            rank = self.rank if isinstance(self.rank, int) else self.rank * short
            kept += shape.blocks * rank * (2 * long + short)
        return everything(shape, moments=kept / shape.parameters)

    def _by_rank(self, model: "PreTrainedModel") -> "dict[int, list[nn.Parameter]]":
        matrices: dict[int, list[nn.Parameter]] = {}
        for name, matrix in block_matrices(model).items():
            side = min(matrix.shape)
            rank = int(self.rank)
            if isinstance(self.rank, float):
                rank = max(1, int(side * self.rank + 0.5))
            bound = f"exceeds the shorter side {side} of {name}; use rank<={side}, or a share: 0.25"
            require(rank <= side, "strategy.rank", rank, bound)
            matrices.setdefault(rank, []).append(matrix)
        return matrices

    def _groups(self, model: "PreTrainedModel", **settings: Any) -> list[dict[str, Any]]:
        """One parameter group a rank, and one without projection for all else."""
        shared = {"update_proj_gap": self.gap, "scale": self.scale, "proj_type": "std", **settings}
        groups = [{"params": matrices, "rank": rank, **shared} for rank, matrices in self._by_rank(model).items()]
        projected = {id(parameter) for group in groups for parameter in group["params"]}
        return [*groups, {"params": [p for p in model.parameters() if id(p) not in projected]}]


@dataclass(frozen=True, kw_only=True)
class GaLore(_Projected):
    """GaLore (arXiv:2403.03507): Adam's moments of matrices in the gradient's top singular space.

    `rank` is a number or a share of a matrix's shorter side (the paper's runs use about a quarter),
    `gap` the steps between two decompositions, `scale` a factor on the projected update.
    Embeddings, head, norms and biases get plain AdamW at the full rate. It saves optimizer state,
    not gradients or time; the SVD costs seconds a matrix at several thousand columns. The moments
    stay when the space changes, as in the published code.
    """

    rank: int | float = 0.25
    gap: int = 50
    scale: float = 0.25

    def optimizer(self, model: "PreTrainedModel", settings: AdamSettings) -> "Optimizer":
        """GaLore's AdamW. Raises ImportError where its package is missing."""
        kind = _import("galore_torch").GaLoreAdamW
        return _make(kind, self._groups(model), settings, no_deprecation_warning=True)


@dataclass(frozen=True, kw_only=True)
class Apollo(_Projected):
    """APOLLO (arXiv:2412.05270): gradients scaled as Adam would in a random low-rank space.

    The factor belongs to a channel or to the whole tensor (`scaling`), is multiplied by the root of
    `scale`, and may grow by 1 % a step at most. APOLLO-Mini is `rank=1 scaling=tensor scale=128`. A
    new random projection is drawn every `gap` steps from a seed that is the parameter's position,
    so that runs of other seeds project alike.
    """

    rank: int | float = 0.25
    gap: int = 50
    scale: float = 1.0
    scaling: str = "channel"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("strategy.scaling", self.scaling, SCALINGS)

    def optimizer(self, model: "PreTrainedModel", settings: AdamSettings) -> "Optimizer":
        """APOLLO's AdamW. Raises ImportError where its package is missing."""
        kind = _import("apollo_torch").APOLLOAdamW
        return _make(kind, self._groups(model, proj="random", scale_type=self.scaling), settings)


def _make(kind: Any, groups: list[dict[str, Any]], settings: AdamSettings, **extra: Any) -> "Optimizer":
    optimizer: Optimizer = kind(groups, **settings.arguments(), **extra)
    optimizer.register_load_state_dict_post_hook(_bring_projections_home)
    return optimizer


def _bring_projections_home(optimizer: "Optimizer") -> None:
    """Move each projection to its parameter's device, as torch does for plain tensors only."""
    for parameter, state in optimizer.state.items():
        projection = getattr(state.get("projector"), "ortho_matrix", None)
        if projection is not None:
            state["projector"].ortho_matrix = projection.to(parameter.device)


def _import(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"{error}; galore and apollo need their packages: pip install 'efficient_rl[projected]'"
        ) from error
