"""Strategies with adapters of other forms than B A, through PEFT: vectors, sums, rotations."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from efficient_rl.errors import require, require_above_zero, require_share, require_whole
from efficient_rl.strategies.adapter_targets import name_matches
from efficient_rl.strategies.adapters import Adapters, LowRank

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class RandomProjection(Adapters):
    """Adapters around random matrices that stay frozen."""

    rank: int
    dropout: float = 0.0
    projection_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("strategy.rank", self.rank, 1)
        require_share("lora.dropout", self.dropout)
        require_whole("strategy.projection_seed", self.projection_seed, 0)


@dataclass(frozen=True, kw_only=True)
class Vera(RandomProjection):
    """VeRA (arXiv:2310.11454): W + diag(b) B diag(d) A; A and B random, only b = 0 and d train.

    Its rank counts numbers, not matrices: take far more than with LoRA. The shared matrices fit the
    largest module.
    """

    rank: int = 256
    d_initial: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_above_zero("strategy.d_initial", self.d_initial)

    def config(self, targets: "Mapping[str, nn.Module]", **shared: Any) -> "PeftConfig":
        from peft import VeraConfig

        return VeraConfig(
            r=self.rank,
            d_initial=self.d_initial,
            vera_dropout=self.dropout,
            projection_prng_key=self.projection_seed,
            **shared,
        )


@dataclass(frozen=True, kw_only=True)
class RandLora(RandomProjection):
    """RandLoRA (arXiv:2502.00987): random low-rank bases, summed with trained weights.

    A smaller rank means more bases, and more numbers that train; alpha is 20 times the rank by
    default, so mind the rate.
    """

    rank: int = 32
    alpha: float = 640

    def __post_init__(self) -> None:
        super().__post_init__()
        require_above_zero("strategy.alpha", self.alpha)

    def config(self, targets: "Mapping[str, nn.Module]", **shared: Any) -> "PeftConfig":
        from peft import RandLoraConfig

        return RandLoraConfig(
            r=self.rank,
            randlora_alpha=self.alpha,
            randlora_dropout=self.dropout,
            projection_prng_key=self.projection_seed,
            **shared,
        )


@dataclass(frozen=True, kw_only=True)
class TinyLora(RandomProjection):
    """TinyLoRA (arXiv:2602.04118): LoRA-XS with R = sum of v_i P_i; only the vectors v train.

    `weight_tying` is the share of modules that give up a vector of their own: 1 leaves u numbers
    for the whole model. Meant for reinforcement learning; the authors need 100 to 1000 times more
    numbers for supervised training.
    """

    rank: int = 2
    u: int = 64
    weight_tying: float = 0.0
    projection_seed: int = 42

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("strategy.u", self.u, 1)
        share = self.weight_tying
        require(0 <= share <= 1, "strategy.weight_tying", share, "must lie in 0 <= weight_tying <= 1")

    def config(self, targets: "Mapping[str, nn.Module]", **shared: Any) -> "PeftConfig":
        from peft import TinyLoraConfig

        return TinyLoraConfig(
            r=self.rank,
            u=self.u,
            weight_tying=self.weight_tying,
            tinylora_dropout=self.dropout,
            projection_seed=self.projection_seed,
            **shared,
        )


@dataclass(frozen=True, kw_only=True)
class LoHa(LowRank):
    """LoHa (arXiv:2108.06098): W + (alpha / rank) (B1 A1) * (B2 A2), elementwise.

    The update has a rank of up to rank^2; B2 = 0 at the start.

    Twice the numbers of LoRA at the same rank, and no shortcut: every forward pass builds the whole
    update.
    """

    adapts_conv1d: ClassVar[bool] = False

    def config(self, targets: "Mapping[str, nn.Module]", **shared: Any) -> "PeftConfig":
        from peft import LoHaConfig

        return LoHaConfig(r=self.rank, alpha=self.alpha, rank_dropout=self.dropout, **shared)


@dataclass(frozen=True, kw_only=True)
class LoKr(LoHa):
    """LoKr (arXiv:2309.14859): W + (alpha / rank) C (x) D, a Kronecker product.

    On small modules D stays whole, and the rank only scales. `factor` is the size of C; -1 makes it
    near the square root.
    """

    factor: int = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor != -1:
            require_whole("strategy.factor", self.factor, 1)

    def config(self, targets: "Mapping[str, nn.Module]", **shared: Any) -> "PeftConfig":
        from peft import LoKrConfig

        return LoKrConfig(r=self.rank, alpha=self.alpha, rank_dropout=self.dropout, decompose_factor=self.factor, **shared)


@dataclass(frozen=True, kw_only=True)
class IA3(Adapters):
    """(IA)3 (arXiv:2205.05638): one trained factor a key, value and inner activation, 1 at first.

    `feedforward_modules` is a regular expression for those targets whose inputs are scaled, and not
    their outputs.
    """

    feedforward_modules: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        name_matches(self.feedforward_modules, "")

    def config(self, targets: "Mapping[str, nn.Module]", **shared: Any) -> "PeftConfig":
        from peft import IA3Config

        scaled_inputs = [name for name in targets if name_matches(self.feedforward_modules, name)]
        return IA3Config(feedforward_modules=scaled_inputs, **shared)


@dataclass(frozen=True, kw_only=True)
class Oft(Adapters):
    """OFT (arXiv:2306.07280): inputs rotated by trained block-diagonal orthogonal matrices.

    The rotation is a Cayley transform whose inverse is a series of five terms: only nearly
    orthogonal for large angles.
    """

    block_size: int = 32
    dropout: float = 0.0

    adapts_conv1d: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("strategy.block_size", self.block_size, 2)
        require_share("lora.dropout", self.dropout)

    def config(self, targets: "Mapping[str, nn.Module]", **shared: Any) -> "PeftConfig":
        from peft import OFTConfig

        for name, module in targets.items():
            inputs = module.get_parameter("weight").shape[1]
            if inputs % self.block_size:
                fitting = max(size for size in range(1, self.block_size) if inputs % size == 0)
                raise ValueError(
                    f"strategy.block_size={self.block_size} does not divide the {inputs} inputs of {name}; use {fitting}"
                )
        return OFTConfig(oft_block_size=self.block_size, module_dropout=self.dropout, **shared)
