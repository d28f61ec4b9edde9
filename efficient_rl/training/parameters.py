"""Which parameters train, by name: those that ever may, those that do now, and their movement."""

from collections.abc import Iterable
from itertools import dropwhile
from operator import itemgetter

import torch
from torch import nn
from torch.optim import Optimizer

from efficient_rl.strategies.protocol import Schedule
from efficient_rl.training.optimizer import drop_frozen, scale_learning_rates
from efficient_rl.training.sharding import local

STILL_STEPS = 3  # with a gradient and a learning rate after which some weight must have moved


class TrainedParameters:
    """The trainable parameters of a model under a schedule, step by step.

    Raises ValueError where there are none. Counts are of numbers, not of tensors.
    """

    def __init__(self, model: nn.Module) -> None:
        self.names = {parameter: name for name, parameter in model.named_parameters()}
        self.trainable = frozenset(name for parameter, name in self.names.items() if parameter.requires_grad)
        self.schedule: Schedule | None = None
        self._sizes = {name: parameter.numel() for parameter, name in self.names.items()}
        self._still_steps: int | None = 0
        self._watched: list[nn.Parameter] = []
        self._before: list[float] = []
        if not self.trainable:
            raise ValueError("nothing is left to train: every parameter is frozen; choose another strategy")

    @property
    def active(self) -> frozenset[str]:
        """The names of those that train now."""
        return frozenset(self.schedule.active) if self.schedule is not None else self.trainable

    @property
    def with_gradients(self) -> frozenset[str]:
        """The names of those with gradients: what trains now, and what a schedule only measures."""
        return self.active | {name for parameter, name in self.names.items() if parameter.requires_grad}

    @property
    def active_count(self) -> int:
        """How many numbers train now."""
        return sum(map(self._sizes.__getitem__, self.active))

    @property
    def backward_count(self) -> int:
        """How many numbers a backward pass goes through: all from the first with a gradient on."""
        having = self.with_gradients
        passed = dropwhile(lambda item: item[0] not in having, self._sizes.items())
        return sum(map(itemgetter(1), passed))

    @property
    def trainable_count(self) -> int:
        """How many numbers may ever train."""
        return sum(map(self._sizes.__getitem__, self.trainable))

    def keep_to(self, owned: Iterable[nn.Parameter]) -> None:
        """Only these may ever train: what a method's own optimizer took."""
        self.trainable = frozenset(map(self.names.__getitem__, owned))
        self.restore()

    def restore(self) -> None:
        """All that may ever train require gradients, and nothing else does."""
        for parameter, name in self.names.items():
            parameter.requires_grad_(name in self.trainable)

    def begin_step(self, step: int, optimizer: Optimizer) -> None:
        """Before generation: the schedule chooses, and what it froze is freed."""
        if self.schedule is not None:
            self.schedule.begin_step(step)
            drop_frozen(optimizer, self.names, self.active)

    def finish_gradients(self, optimizer: Optimizer) -> None:
        """The schedule sees the gradients of a step; only those of what trains now stay."""
        if self.schedule is not None:
            self.schedule.see_gradients()
            drop_frozen(optimizer, self.names, self.active)

    def fill_missing_gradients(self) -> None:
        """Zeros, as in TRL where no completion has an advantage, so that Adam's averages decay."""
        if not any(parameter.grad is not None for parameter in self.names):
            for parameter in self.names:
                if parameter.requires_grad:
                    parameter.grad = torch.zeros_like(parameter)

    def before_update(self, optimizer: Optimizer) -> None:
        """After clipping, before the optimizer."""
        if self.schedule is not None:
            scale_learning_rates(optimizer, self.names, self.schedule.learning_rate_factors())
        if self._still_steps is not None:
            self._watched = []
            if any(map(itemgetter("lr"), optimizer.param_groups)):
                self._watched = [p for p in self.names if p.grad is not None and bool(local(p.grad).any())]
            self._before = _fingerprint(self._watched)

    def after_update(self, learning_rate: float, skipped: bool) -> None:
        """Call after the optimizer, before gradients are freed; RuntimeError if nothing moves.

        `skipped`: the gradient scaler of float16 left this update out.
        """
        if self.schedule is not None:
            self.schedule.see_update()
        if self._still_steps is None or not self._watched or skipped:
            return
        if _fingerprint(self._watched) != self._before:
            self._still_steps, self._watched, self._before = None, [], []
            return
        self._still_steps += 1
        if self._still_steps == STILL_STEPS:
            raise RuntimeError(
                f"{len(self._watched)} tensors had a gradient in {STILL_STEPS} steps and none of them moved: a learning "
                f"rate of {learning_rate:g} is lost in {self._watched[0].dtype} weights, or the optimizer does not own "
                "them; raise it, or keep the weights in float32"
            )


@torch.no_grad()
def _fingerprint(parameters: Iterable[torch.Tensor]) -> list[float]:
    """One number a tensor that changes when any of its numbers does, for all practical purposes."""
    return [float(local(parameter).double().sum()) for parameter in parameters]
