"""FSDP: each process keeps a shard of weights, gradients and state; blocks are gathered in turn.

By torch's `fully_shard` (FSDP2), not by accelerate's plugin, which does not support CPUs
and could not be tested without a GPU.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from efficient_rl.strategies.blocks import find_blocks
from efficient_rl.strategies.protocol import Strategy, has_own

if TYPE_CHECKING:
    from trl import GRPOConfig


def check_sharding(strategy: Strategy | None, args: "GRPOConfig") -> None:
    """Raise ValueError for what cannot work on parts of tensors, with the reason."""
    name = type(strategy).__name__
    for method, words in (("schedule", "changes what trains"), ("optimizer", "has an optimizer that needs whole tensors")):
        if has_own(strategy, method):
            raise ValueError(f"{name} {words}, which sharding=fsdp cannot do; use sharding=ddp")
    if args.use_vllm or args.use_transformers_continuous_batching:
        raise ValueError("sharding=fsdp samples with the own sampler only; use grpo.sampler=own, or sharding=ddp")


class NoShards:
    """In place of `Shards` where every process holds all weights."""

    splits = False
    whole = gathered = spreading = staticmethod(nullcontext)

    def reshard(self) -> None:
        """There is nothing to part."""


class Shards:
    """A model that is sharded in place, block by block, over all processes.

    Its `state_dict` and `load_state_dict` then are about parts; `gathered` and `spreading` make
    them whole again.
    """

    splits = True

    def __init__(self, model: nn.Module) -> None:
        mesh = init_device_mesh(next(model.parameters()).device.type, (distributed.get_world_size(),))
        self._model = model
        self._blocks = [_sharded(block, mesh) for block in find_blocks(model)]
        self._root = _sharded(model, mesh)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Inside, every process has all weights; the numbers of passes may differ (sampling)."""
        for part in self._parts:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
        try:
            yield
        finally:
            for block in self._blocks:
                block.set_reshard_after_forward(True, recurse=False)
            self.reshard()

    def reshard(self) -> None:
        """Keep only the own shard; else the root stays whole after a pass without gradients."""
        for part in self._parts:
            part.reshard()

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Inside, process 0's `state_dict` has whole CPU tensors, gathered by all on entry."""
        own = dict(self._model.named_parameters(remove_duplicate=False))
        whole: dict[int, torch.Tensor] = {}
        state: dict[str, Any] = {}
        for name, tensor in self._model.state_dict().items():
            key = id(own.get(name, tensor))  # tied weights stay one tensor
            if key not in whole:
                full = whole_tensor(tensor)
                whole[key] = full.cpu() if distributed.get_rank() == 0 else full.new_empty(0)
            state[name] = whole[key]
        with patch.object(self._model, "state_dict", lambda *_, **__: dict(state)):
            yield

    @contextmanager
    def spreading(self) -> Iterator[None]:
        """Inside, the model's `load_state_dict` takes whole tensors and keeps the local shards."""

        def load(state: Mapping[str, torch.Tensor], strict: bool = True, assign: bool = False) -> Any:
            own = dict(self._model.named_parameters(remove_duplicate=False)) | dict(self._model.named_buffers())
            return original(
                {name: part_like(tensor, own[name]) if name in own else tensor for name, tensor in state.items()},
                strict=strict,
            )

        original = self._model.load_state_dict
        with patch.object(self._model, "load_state_dict", load):
            yield

    @property
    def _parts(self) -> list[FSDPModule]:
        return [*self._blocks, self._root]


def _sharded(module: nn.Module, mesh: Any) -> FSDPModule:
    sharded: Any = fully_shard(module, mesh=mesh)
    assert isinstance(sharded, FSDPModule)
    return sharded


def whole_tensor(value: Any) -> Any:
    """A sharded tensor put together, by all processes; anything else as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def part_like(value: Any, parameter: torch.Tensor) -> Any:
    """A whole tensor sharded like the parameter (collective); anything else unchanged."""
    fits = isinstance(parameter, DTensor) and isinstance(value, torch.Tensor) and value.shape == parameter.shape
    if not fits or isinstance(value, DTensor):
        return value
    assert isinstance(parameter, DTensor)
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's shard of a tensor, with shared memory; an unsharded tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether each process holds a part of it."""
    return isinstance(tensor, DTensor)
