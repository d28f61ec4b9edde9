"""Strategies that freeze the model and train adapters of the LoRA family, through PEFT."""

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from efficient_rl.errors import require, require_above_zero, require_share, require_whole
from efficient_rl.strategies.adapter_targets import (
    adapter_layers,
    check_rank_fits,
    find_targets,
    is_conv1d,
    is_target,
    name_matches,
)
from efficient_rl.strategies.extent import Extent, Shape
from efficient_rl.strategies.protocol import AdamSettings, Strategy
from efficient_rl.strategies.selection import Layers, check_layers, resolve_layers

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import Tensor, nn
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

ADAPTER = "default"  # PEFT's name for the one adapter that there is


@dataclass(frozen=True, kw_only=True)
class Adapters(Strategy):
    """What all methods share: which linear modules, in which blocks, get an adapter.

    `target_modules` is PEFT's: `all-linear` (all but the output head), a list of name endings, or a
    regular expression for whole names. `layers` keeps those in the named blocks (see
    `resolve_layers`); null keeps all.
    """

    target_modules: str | Sequence[str] = "all-linear"
    layers: Layers | None = None

    adapts_conv1d: ClassVar[bool] = True  # whether PEFT has the method for the Conv1D modules of GPT-2

    def __post_init__(self) -> None:
        if self.layers is not None:
            object.__setattr__(self, "layers", check_layers("strategy.layers", self.layers))
        if isinstance(self.target_modules, str):
            name_matches(self.target_modules, "")
        else:
            names = list(self.target_modules)
            listed = bool(names) and all(isinstance(name, str) for name in names)
            require(listed, "lora.target_modules", names, "must list names such as [q_proj, v_proj]")
            object.__setattr__(self, "target_modules", tuple(names))

    def check_blocks(self, blocks: int) -> None:
        """Raise ValueError where `layers` names blocks that the model does not have."""
        if self.layers is not None:
            resolve_layers(self.layers, blocks)

    def extent(self, shape: Shape, seed: int, steps: int) -> Extent | None:
        layers = range(shape.blocks) if self.layers is None else resolve_layers(self.layers, shape.blocks)
        chosen = [linear for linear in shape.linear if is_target(linear[0], self.target_modules)]
        sizes = [self.size(inputs, outputs) for _, inputs, outputs in chosen]
        known = list(filter(None, sizes))
        if len(known) < len(sizes) or not sizes:
            return None
        added = float(len(layers) * sum(known))
        lowest = min(layers)
        share = sum(inputs * outputs for _, inputs, outputs in chosen) / shape.block
        return Extent(added, added, lowest, share * len(layers) / (shape.blocks - lowest), added=added)

    def size(self, inputs: int, outputs: int) -> float | None:
        """Trained parameters of an adapter beside a linear module; None where unknown."""
        return None

    @abstractmethod
    def config(self, targets: "Mapping[str, nn.Module]", **shared: Any) -> "PeftConfig":
        """PEFT's configuration for the chosen modules, which `shared` names already."""

    def apply(self, model: "PreTrainedModel") -> "PeftModel":
        from peft import get_peft_model

        targets = find_targets(model, self.target_modules, self.layers)
        conv1d = [name for name, module in targets.items() if is_conv1d(module)]
        if conv1d and not self.adapts_conv1d:
            raise ValueError(
                f"{type(self).__name__} has no form for Conv1D modules such as {conv1d[0]} in PEFT; "
                "use strategy=lora, or a model whose blocks are built of nn.Linear"
            )
        shared: dict[str, Any] = {"target_modules": list(targets), "task_type": "CAUSAL_LM"}
        if self.adapts_conv1d:
            shared["fan_in_fan_out"] = bool(conv1d)
        return get_peft_model(model, self.config(targets, **shared))


@dataclass(frozen=True, kw_only=True)
class LowRank(Adapters):
    """Adapters with the rank, scale and dropout of the group `lora`."""

    rank: int
    alpha: float
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("lora.rank", self.rank, 1)
        require_above_zero("lora.alpha", self.alpha)
        require_share("lora.dropout", self.dropout)

    def size(self, inputs: int, outputs: int) -> float | None:
        return self.rank * (inputs + outputs)


@dataclass(frozen=True, kw_only=True)
class Lora(LowRank):
    """LoRA (arXiv:2106.09685): W + (alpha / rank) B A with B = 0 at the start.

    Wants about ten times the learning rate of full training, and adapters on the MLPs too.
    """

    variant: ClassVar[Mapping[str, Any]] = {}  # what PEFT's LoraConfig is given besides

    def config(self, targets: "Mapping[str, nn.Module]", **shared: Any) -> "PeftConfig":
        from peft import LoraConfig

        return LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, **shared, **self.variant)


@dataclass(frozen=True, kw_only=True)
class RsLora(Lora):
    """rsLoRA (arXiv:2312.03732): LoRA scaled by alpha / sqrt(rank), stable at high rank.

    The same alpha means a larger scale than LoRA's: sqrt(rank) times.
    """

    variant = {"use_rslora": True}  # noqa: RUF012


@dataclass(frozen=True, kw_only=True)
class Dora(Lora):
    """DoRA (arXiv:2402.09353): m (W + s B A) / |W + s B A|, where the magnitudes m train too.

    Every forward pass computes the norm of the whole weight: slower than LoRA. Sample from merged
    weights.
    """

    variant = {"use_dora": True}  # noqa: RUF012


@dataclass(frozen=True, kw_only=True)
class Pissa(Lora):
    """PiSSA (arXiv:2404.02948): A and B start as W's largest singular directions, out of the base.

    The base changes: without the adapter the model is not the original one, and a checkpoint fits
    only the base that the same weights and the same SVD routine give. What `save` writes is plain
    LoRA of twice the rank, for the original model.
    """

    variant = {"init_lora_weights": "pissa"}  # noqa: RUF012

    def apply(self, model: "PreTrainedModel") -> "PeftModel":
        targets = find_targets(model, self.target_modules, self.layers)
        check_rank_fits(self.rank, targets)
        head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
        if head in targets.values() and head.weight is embeddings.weight:
            raise ValueError(
                "lora.target_modules names the output head, whose weight PiSSA would change in the embeddings too"
            )
        adapted = super().apply(model)
        for _, layer in adapter_layers(adapted):
            layer.register_buffer("first_A", layer.lora_A[ADAPTER].weight.detach().clone(), persistent=False)
            layer.register_buffer("first_B", layer.lora_B[ADAPTER].weight.detach().clone(), persistent=False)
        return adapted

    def save(self, model: "PreTrainedModel", folder: Path) -> None:
        """W - s B0 A0 + s B A is W + s [B, -B0] [A; A0]: LoRA of twice the rank and alpha."""
        import torch

        pairs = {}
        for name, layer in adapter_layers(model):
            down, up = layer.lora_A[ADAPTER].weight.detach(), layer.lora_B[ADAPTER].weight.detach()
            pairs[name] = torch.cat([down, layer.first_A]), torch.cat([up, -layer.first_B], dim=1)
        save_as_lora(model, folder, pairs, r=2 * self.rank, lora_alpha=2 * self.alpha)


@dataclass(frozen=True, kw_only=True)
class LoraFA(Lora):
    """LoRA-FA (arXiv:2308.03303): LoRA with A frozen; backward keeps only the r numbers A x.

    Its AdamW gets B's gradient as g (A A^T)^-1 / s^2, the step that comes closest to the full
    weight's gradient. PEFT's `create_lorafa_optimizer` computes the same in bfloat16, but its state
    belongs to names instead of parameters.
    """

    def apply(self, model: "PreTrainedModel") -> "PeftModel":
        adapted = super().apply(model)
        for _, layer in adapter_layers(adapted):
            freeze_weights(layer, "lora_A")
        return adapted

    def optimizer(self, model: "PreTrainedModel", settings: AdamSettings) -> "Optimizer":
        """AdamW over the B matrices that corrects their gradients first."""
        import torch

        factors = {}
        for _, layer in adapter_layers(model):
            down = layer.lora_A[ADAPTER].weight.detach()
            gram = down @ down.T + 1e-8 * torch.eye(len(down), device=down.device, dtype=down.dtype)
            factors[layer.lora_B[ADAPTER].weight] = torch.linalg.pinv(gram) / layer.scaling[ADAPTER] ** 2
        optimizer = torch.optim.AdamW(list(factors), **settings.arguments())

        def correct(*_: Any) -> None:
            for up, factor in factors.items():
                if up.grad is not None:
                    up.grad = up.grad @ factor

        optimizer.register_step_pre_hook(correct)
        return optimizer


def freeze_weights(layer: Any, *names: str) -> None:
    """Freeze parts of an adapter, also for when PEFT switches adapters off and on."""
    layer.frozen_peft_weight_names = {ADAPTER: names}
    layer._freeze_non_trainable_peft_weights()


def save_as_lora(model: "PeftModel", folder: Path, pairs: "Mapping[str, tuple[Tensor, Tensor]]", **changes: Any) -> None:
    """Write these (A, B) by layer as plain LoRA, which PEFT loads on the original model."""
    from safetensors.torch import save_file

    config = copy.deepcopy(model.peft_config[ADAPTER])
    for key, value in {"init_lora_weights": True, "inference_mode": True, **changes}.items():
        setattr(config, key, value)
    tensors = {}
    for name, (down, up) in pairs.items():
        tensors[f"{name}.lora_A.weight"] = down.detach().cpu().contiguous()
        tensors[f"{name}.lora_B.weight"] = up.detach().cpu().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
