"""Keeps the weights of several processes equal: sent once, then moved by averaged gradients.

In place of DistributedDataParallel, which reduces every tensor that trained when it was wrapped,
keeps a second copy of all gradients, and waits for those that a schedule has frozen since. Here
only gradients that exist are sent.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import compress

import torch
from accelerate import Accelerator
from torch import distributed, nn

BUCKET_BYTES = 64 << 20


def begin_sync(model: nn.Module, accelerator: Accelerator) -> None:
    """Give all processes the weights of process 0, and keep accelerate from wrapping the model."""
    take_weights_of_the_first(model)
    prepare = accelerator.prepare_model
    accelerator.prepare_model = partial(prepare, evaluation_mode=True)  # all but wrapping


@torch.no_grad()
def take_weights_of_the_first(model: nn.Module) -> None:
    """All parameters, and buffers of floating point, as they are in process 0."""
    buffers = filter(torch.is_floating_point, model.buffers())  # gloo sends no masks
    for tensor in (*model.parameters(), *buffers):
        whole = tensor.detach().contiguous()
        distributed.broadcast(whole, src=0)
        if whole.data_ptr() != tensor.data_ptr():
            tensor.copy_(whole)


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Every gradient becomes its mean over the processes; a missing one counts as zeros.

    One that all lack stays missing, so that its optimizer state and weight decay rest as they would
    in one process. `parameters` are the same in every process, in the same order.
    """
    if not parameters:
        return
    exists = [parameter.grad is not None for parameter in parameters]
    held = torch.tensor(exists, dtype=torch.int32, device=parameters[0].device)
    distributed.all_reduce(held, distributed.ReduceOp.MAX)
    sent = list(compress(parameters, held.tolist()))
    for parameter in sent:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in _buckets([parameter.grad for parameter in sent if parameter.grad is not None]):
        sizes = list(map(torch.numel, bucket))
        flat = torch.cat(list(map(torch.flatten, bucket)))
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        for gradient, mean in zip(bucket, torch.split(flat, sizes), strict=True):
            gradient.copy_(mean.view_as(gradient))


def _buckets(gradients: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Gradients of one type in buckets of bounded bytes; a larger one alone."""
    bucket: list[torch.Tensor] = []
    held = 0
    for gradient in gradients:
        if bucket and (held + gradient.nbytes > BUCKET_BYTES or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, held = [], 0
        bucket.append(gradient)
        held += gradient.nbytes
    if bucket:
        yield bucket
