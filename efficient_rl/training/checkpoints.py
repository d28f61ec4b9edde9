"""Saves models that the Auto classes load, and checkpoints that resume exactly."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel
from transformers.trainer import TRAINING_ARGS_NAME
from trl import GRPOTrainer

from efficient_rl.strategies.protocol import Strategy, has_own
from efficient_rl.training.arithmetic import widened
from efficient_rl.training.curriculum_sampler import CurriculumSampler
from efficient_rl.training.merging import merged
from efficient_rl.training.optimizer import load_state_by_name, named, state_by_name
from efficient_rl.training.parameters import TrainedParameters
from efficient_rl.training.sharding import NoShards, Shards, part_like, whole_tensor

logger = logging.getLogger(__name__)
CURRICULUM_FILE, SCHEDULE_FILE = "curriculum.json", "schedule.pt"
OPTIMIZER_FILE, SCHEDULER_FILE = "optimizer.pt", "scheduler.pt"
ENTROPY_FILE = "entropy_ctrl_state.json"  # TRL's
TRAINED_FILE = "trained.pt"  # beside a model that is saved in another form than the one that trains


class CheckpointedTrainer(GRPOTrainer):
    """The part of `EfficientGRPOTrainer` that saves and loads."""

    optimizer: torch.optim.Optimizer | None
    parameters: TrainedParameters
    strategy: Strategy | None
    _bare: PreTrainedModel
    _problems: CurriculumSampler | None
    _shards: Shards | NoShards
    narrow: Sequence[nn.Parameter] = ()  # what is kept in bfloat16, and saved in float32

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        assert self.optimizer is not None
        return self.optimizer

    def whole_weights(self) -> AbstractContextManager[None]:
        """Inside, every process has all weights, to sample or to save; a collective."""
        return self._shards.whole()

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Inside, the model draws from the policy that trains: all weights, in the same arithmetic.

        Adapters are merged in float32 only: rounded to bfloat16 the sum would be another policy.
        """
        merge = nullcontext() if self.accelerator.native_amp else merged(self._bare)
        with self.whole_weights(), self.accelerator.autocast(), merge:
            yield

    def save_by(self, write: Callable[[], None]) -> None:
        """Let process 0 write the model, with all its weights; for all processes to call."""
        with self._shards.gathered(), self.whole_weights(), widened(self.narrow):
            if self.accelerator.is_main_process:
                write()

    def train_from(self, checkpoint: Path | None) -> None:
        """Train from the start or a checkpoint; one of the last step only loads its weights."""
        if checkpoint is not None and int(checkpoint.name.rpartition("-")[2]) >= self.args.max_steps:
            self._load_from_checkpoint(str(checkpoint))  # the Trainer itself would do one more step
        else:
            self.train(resume_from_checkpoint=checkpoint and str(checkpoint))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write model and tokenizer as TRL does, the model by the strategy's `save`."""
        with self._shards.gathered(), self.whole_weights(), widened(self.narrow):
            super().save_model(output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self.strategy is None or state_dict is not None:  # accelerate's FSDP and DeepSpeed give a state
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            self.strategy.save(self._bare, folder)
            self.processing_class.save_pretrained(folder)
            torch.save(self.args, folder / TRAINING_ARGS_NAME)

    def _trained_tensors(self) -> dict[str, torch.Tensor]:
        """Adapters and whatever else trains, under their names in the model."""
        prefix = self._bare.base_model.prefix if isinstance(self._bare, PeftModel) else None
        return {
            name: tensor
            for name, tensor in self._bare.state_dict().items()
            if name in self.parameters.trainable or (prefix is not None and prefix in name)
        }

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        with self._shards.gathered():
            if self.args.should_save:
                folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
                folder.mkdir(parents=True, exist_ok=True)
                if self._problems is not None:
                    (folder / CURRICULUM_FILE).write_text(json.dumps(self._problems.curriculum.state_dict()))
                if self.parameters.schedule is not None:
                    torch.save(self.parameters.schedule.state_dict(), folder / SCHEDULE_FILE)
                if has_own(self.strategy, "save"):  # which is not what trains, as with LoRA-XS and PiSSA
                    torch.save(self._trained_tensors(), folder / TRAINED_FILE)
            super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *arguments: Any, **keywords: Any) -> None:
        with self._shards.spreading():
            if not self._load_trained_tensors(Path(resume_from_checkpoint)):
                super()._load_from_checkpoint(resume_from_checkpoint, *arguments, **keywords)

    def _load_best_model(self) -> None:
        with self._shards.spreading():
            if not self._load_trained_tensors(Path(str(self.state.best_model_checkpoint))):
                super()._load_best_model()

    def _load_trained_tensors(self, checkpoint: Path) -> bool:
        """Load what trains, bit by bit; False if the checkpoint only has the model's form."""
        if not has_own(self.strategy, "save"):
            return False
        if not (checkpoint / TRAINED_FILE).is_file():
            if (checkpoint / OPTIMIZER_FILE).is_file():  # of an earlier version
                return False
            raise ValueError(
                f"{checkpoint} holds a model that {type(self.strategy).__name__} saved to be used, and not what "
                "trains; resume from a checkpoint-N"
            )
        state = torch.load(checkpoint / TRAINED_FILE, map_location="cpu", weights_only=True)
        if unknown := self._bare.load_state_dict(state, strict=False).unexpected_keys:
            raise ValueError(
                f"{checkpoint} holds {len(unknown)} tensors that this model lacks, such as {unknown[0]}; "
                "resume with the model and the strategy of the checkpoint"
            )
        return True

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = state_by_name(self._optimizer, self.parameters.names)
        for name, values in state["state"].items():  # the optimizer's own values stay parts
            state["state"][name] = {key: whole_tensor(value) for key, value in values.items()}
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

    def _from_stock(self, checkpoint: Path, saved: dict[str, Any]) -> dict[str, Any]:
        """The state of TRL's own optimizer, by name; ValueError if it does not fit here."""
        try:
            if self.parameters.schedule is not None or has_own(self.strategy, "optimizer"):
                raise ValueError(f"it knows nothing of {type(self.strategy).__name__}")
            if self._problems is not None:
                raise ValueError("it knows nothing of a curriculum")
            return named(self._optimizer, self.parameters.names, saved)
        except ValueError as reason:
            raise ValueError(
                f"{checkpoint} is one of trl.GRPOTrainer, and {reason}; resume it with the model and the peft_config "
                "of its script and strategy=None, or start from its weights"
            ) from reason

    def _load_optimizer(self, checkpoint: Path) -> None:
        """What TRL's method loads, by name, and the schedule; nothing if only a model is there."""
        if not (checkpoint / OPTIMIZER_FILE).is_file():
            logger.warning("%s holds no optimizer: its averages and the schedule start from zero", checkpoint)
            return
        device = self.args.device
        where = device if device.type != "cpu" else "cpu"  # of several processes it has a number, which torch.load refuses
        # Our own sealed file; methods such as GaLore keep objects of their own in it.
        saved = torch.load(checkpoint / OPTIMIZER_FILE, map_location=where, weights_only=False)
        if "groups" not in saved:
            saved = self._from_stock(checkpoint, saved)
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
