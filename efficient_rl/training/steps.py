"""Callback around every update: the schedule sets what trains, the meter counts bytes."""

from contextlib import ExitStack
from typing import Any

import torch
from transformers import TrainerCallback

from efficient_rl.training.memory import leaves, optimizer_state_bytes, tensor_bytes
from efficient_rl.training.trunk import HIDDEN


class StepCallback(TrainerCallback):
    """Accompanies the steps of an `EfficientGRPOTrainer`."""

    def __init__(self, trainer: Any) -> None:
        self._trainer, self._parameters, self._meter = trainer, trainer.parameters, trainer.meter
        self._own_draws = ExitStack()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Before generation: the schedule chooses, and the meter starts from what is held now."""
        trainer, step = self._trainer, self._trainer.state.global_step
        trainer.draws.begin_step()
        self._parameters.begin_step(step, trainer.optimizer)
        if trainer._step % (trainer.args.steps_per_generation * trainer.num_iterations) == 0:
            # A new generation is due: what the last one left is freed before it, not after.
            trainer._buffered_inputs = None
        training = (self._parameters.active_count, self._parameters.backward_count)
        self._meter.start_step(step, self._held_bytes, training)
        self._meter.note("parameters", lambda: tensor_bytes(self._weights()))
        self._meter.note("reference", lambda: trainer.reference_bytes)

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """After clipping, before the optimizer."""
        trainer, batches = self._trainer, self._trainer._buffered_inputs or []
        self._meter.note("trunk", lambda: tensor_bytes(leaves(batch.get(HIDDEN) for batch in batches)))
        self._meter.begin("optimizer")
        # Optimizers draw the same in all processes, from a fork of the generators.
        device = trainer.args.device
        generators = torch.random.fork_rng([device] if device.type != "cpu" else [], device_type=device.type)
        self._own_draws.enter_context(generators)
        torch.manual_seed(int(trainer.args.seed) + trainer.state.global_step)
        self._parameters.before_update(trainer.optimizer)

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """After the optimizer, with the gradients still there."""
        trainer = self._trainer
        self._own_draws.close()
        skipped = trainer.accelerator.optimizer_step_was_skipped
        self._parameters.after_update(trainer.args.learning_rate, skipped)
        if trainer.vllm_weights is not None:
            trainer.vllm_weights.note(self._parameters.active)
        self._meter.end()
        self._meter.note("optimizer_state", lambda: optimizer_state_bytes(trainer.optimizer))

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """The step's bytes are known."""
        self._meter.end_step()

    def _weights(self) -> list[torch.Tensor]:
        return [*self._parameters.names, *self._trainer.model.buffers()]

    def _held_bytes(self) -> int:
        """What tensors hold between two steps."""
        trainer, schedule = self._trainer, self._parameters.schedule
        state = schedule.state_dict() if schedule is not None else {}
        kept = leaves([trainer.optimizer.state, state, trainer._buffered_inputs or ()])
        return tensor_bytes([*self._weights(), *kept]) + trainer.reference_bytes
