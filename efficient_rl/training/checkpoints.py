"""Checkpoints from which a run goes on exactly: optimizer by name, schedule and curriculum beside what TRL saves."""

import json
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from trl import GRPOTrainer

from efficient_rl.training.curriculum_sampler import CurriculumSampler
from efficient_rl.training.optimizer import load_state_by_name, state_by_name
from efficient_rl.training.parameters import TrainedParameters
from efficient_rl.training.sharding import NoShards, Shards, part_like, whole_tensor

logger = logging.getLogger(__name__)
CURRICULUM_FILE, SCHEDULE_FILE, OPTIMIZER_FILE, SCHEDULER_FILE = (
    "curriculum.json",
    "schedule.pt",
    "optimizer.pt",
    "scheduler.pt",
)
ENTROPY_FILE = "entropy_ctrl_state.json"  # TRL's


class CheckpointedTrainer(GRPOTrainer):
    """The part of `EfficientGRPOTrainer` that saves and loads."""

    optimizer: torch.optim.Optimizer | None
    parameters: TrainedParameters
    _problems: CurriculumSampler | None
    _shards: Shards | NoShards

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        assert self.optimizer is not None
        return self.optimizer

    def whole_weights(self) -> AbstractContextManager[None]:
        """Inside, every process has all weights, to sample or to save; for all processes to enter together."""
        return self._shards.whole()

    def save_by(self, write: Callable[[], None]) -> None:
        """Let process 0 write the model, with all its weights; for all processes to call."""
        with self._shards.gathered(), self._shards.whole():
            if self.accelerator.is_main_process:
                write()

    def train_from(self, checkpoint: Path | None) -> None:
        """Train from the start or from a checkpoint; one of the last step only gives its weights."""
        if checkpoint is not None and int(checkpoint.name.rpartition("-")[2]) >= self.args.max_steps:
            self._load_from_checkpoint(str(checkpoint))  # the Trainer itself would do one more step
        else:
            self.train(resume_from_checkpoint=checkpoint and str(checkpoint))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            if self._problems is not None:
                (folder / CURRICULUM_FILE).write_text(json.dumps(self._problems.curriculum.state_dict()))
            if self.parameters.schedule is not None:
                torch.save(self.parameters.schedule.state_dict(), folder / SCHEDULE_FILE)
        with self._shards.gathered():
            super()._save_checkpoint(model, trial)

    def _save_rng_state(self, output_dir: str) -> None:
        """By one process: all that a step draws follows from seed and step, so that any number of them may resume."""
        if self.args.should_save:
            super()._save_rng_state(output_dir)

    def _load_from_checkpoint(self, *arguments: Any, **keywords: Any) -> None:
        with self._shards.spreading():
            super()._load_from_checkpoint(*arguments, **keywords)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = state_by_name(self._optimizer, self.parameters.names)
        state["state"] = {
            name: {key: whole_tensor(value) for key, value in values.items()} for name, values in state["state"].items()
        }
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_FILE)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_FILE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
        else:
            self._load_optimizer(Path(checkpoint))
        if self._problems is not None:
            self._problems.curriculum.load_state_dict(json.loads((Path(checkpoint) / CURRICULUM_FILE).read_text()))

    def _load_optimizer(self, checkpoint: Path) -> None:
        """What TRL's method loads, by name, and the schedule; nothing where a checkpoint holds only the model."""
        if not (checkpoint / OPTIMIZER_FILE).is_file():
            logger.warning("%s holds no optimizer: its averages and the schedule start anew", checkpoint)
            return
        device = self.args.device
        where = device if device.type != "cpu" else "cpu"  # of several processes it has a number, which torch.load refuses
        # Our own sealed file; methods such as GaLore keep objects of their own in it.
        saved = torch.load(checkpoint / OPTIMIZER_FILE, map_location=where, weights_only=False)
        for parameter, name in self.parameters.names.items():
            if name in saved["state"]:
                saved["state"][name] = {key: part_like(value, parameter) for key, value in saved["state"][name].items()}
        load_state_by_name(self._optimizer, self.parameters.names, saved)
        self.lr_scheduler.load_state_dict(torch.load(checkpoint / SCHEDULER_FILE, weights_only=True))
        if self.parameters.schedule is not None:
            self.parameters.schedule.load_state_dict(torch.load(checkpoint / SCHEDULE_FILE, weights_only=True))
        if self.use_adaptive_entropy:
            state = json.loads((checkpoint / ENTROPY_FILE).read_text())
            self.entropy_coef, self._last_world_entropy = state["entropy_coef"], state["last_world_entropy"]
