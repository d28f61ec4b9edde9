"""Matrix products in bfloat16: what machine has them, and which weights are kept for them."""

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from accelerate import Accelerator
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from efficient_rl.strategies.adapter_targets import is_linear


def has_bfloat16() -> bool:
    """Whether the GPU, or without one the processor, multiplies in bfloat16 itself."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(False))
    if platform.machine() in ("aarch64", "arm64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # on x86 it counts what emulates them too
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def narrow_frozen(model: PreTrainedModel) -> list[nn.Parameter]:
    """Keep the frozen weights of linear modules and embeddings in bfloat16; returns them.

    Autocast makes the same numbers of linear weights in every pass, and published models are
    bfloat16 anyway, so that no bit of loss and gradients changes. All else stays as it is: what may
    ever train, adapters, norms and biases. The sum of the blocks' outputs begins in float32 still.
    """
    adapter = model.base_model.prefix if isinstance(model, PeftModel) else None
    narrow, others = dict[int, nn.Parameter](), set[int]()
    readers = []
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        if weight is None:
            continue
        read = type(module) is nn.Embedding
        frozen = weight.dtype == torch.float32 and not weight.requires_grad
        if frozen and (read or is_linear(module)) and (adapter is None or adapter not in name):
            narrow[id(weight)] = weight
            readers += [module] * read
        else:
            others.add(id(weight))
    kept = [weight for key, weight in narrow.items() if key not in others]
    for weight in kept:
        weight.data = weight.data.bfloat16()
    for module in readers:
        module.register_forward_hook(_in_float32)
    return kept


def _in_float32(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return output.float()


@contextmanager
def widened(narrow: Sequence[nn.Parameter]) -> Iterator[None]:
    """Inside, these parameters are float32, to be saved; the same bits as before after it."""
    kept = [parameter.data for parameter in narrow]
    try:
        for parameter in narrow:
            parameter.data = parameter.data.float()
        yield
    finally:
        for parameter, values in zip(narrow, kept, strict=True):
            parameter.data = values


@contextmanager
def float32_attention(accelerator: Accelerator) -> Iterator[None]:
    """Inside, attention is left out of a CPU's autocast: its gradients are slow in bfloat16."""
    if not accelerator.native_amp or accelerator.device.type != "cpu":
        yield
        return
    attend: Any = nn.functional.scaled_dot_product_attention

    def attend_whole(*states: torch.Tensor, attn_mask: torch.Tensor | None = None, **settings: Any) -> Any:
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.float()
        with torch.autocast("cpu", enabled=False):
            return attend(*(each.float() for each in states), attn_mask=attn_mask, **settings)

    with patch.object(nn.functional, "scaled_dot_product_attention", attend_whole):
        yield
