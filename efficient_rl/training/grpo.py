"""TRL's GRPOTrainer with our sampler, curricula, phase meter and checkpoints; the loss stays TRL's own."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOTrainer

from efficient_rl.training.memory import PhaseMeter
from efficient_rl.training.sampler import SamplingSettings, sample

CURRICULUM_FILE = "curriculum.json"


class Curriculum(Protocol):
    """Chooses the problems of the next batch; its state travels with the checkpoint."""

    def draw(self, difficulties: Sequence[float], count: int, seed: int) -> list[int]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class EfficientGRPOTrainer(GRPOTrainer):
    """Takes what `trl.GRPOTrainer` takes, and: a `curriculum` that draws from `problems`, and a `meter`.

    `problems` are rows with the columns of the training data (`prompt`, `difficulty` and what the rewards read).
    """

    def __init__(
        self,
        *arguments: Any,
        problems: Sequence[Mapping[str, Any]],
        curriculum: Curriculum,
        meter: PhaseMeter,
        **keywords: Any,
    ) -> None:
        super().__init__(*arguments, **keywords)
        self.problems = problems
        self.difficulties = [float(row["difficulty"]) for row in problems]
        self.curriculum = curriculum
        self.meter = meter
        self.remove_callback(PrinterCallback)
        self.add_callback(_OptimizerMeter(meter))

    def train_from(self, checkpoint: Path | None) -> None:
        """Train from the start or from a checkpoint; one of the last step only gives its weights."""
        if checkpoint is not None and int(checkpoint.name.rpartition("-")[2]) >= self.args.max_steps:
            self._load_from_checkpoint(str(checkpoint))  # the Trainer itself would do one more step
        else:
            self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    def training_step(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
        """One forward and backward pass; counts as `update`, what is generated inside as its own phases."""
        with self.meter.phase("update"):
            return super().training_step(*arguments, **keywords)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Replaces the rows that TRL's sampler read by the curriculum's, each `num_generations` times.

        All randomness from here to the next generation follows from seed and step, so that a resumed run repeats it.
        """
        torch.manual_seed(self._step_seed())
        prompts = len(inputs) * self.accelerator.num_processes // self.num_generations
        drawn = self.curriculum.draw(self.difficulties, prompts, self.args.seed)
        rows = [dict(self.problems[index]) for index in drawn for _ in range(self.num_generations)]
        start = self.accelerator.process_index * len(inputs)
        served = [self.difficulties[index] for index in drawn]
        self._metrics["train"]["difficulty"].append(sum(served) / len(served))
        with self.meter.phase("scoring"):
            return dict(super()._generate_and_score_completions(rows[start : start + len(inputs)]))

    def _calculate_rewards(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
        with self.meter.phase("reward"):
            return super()._calculate_rewards(*arguments, **keywords)

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *rest: Any, **keywords: Any
    ) -> tuple[list[list[int]], None]:
        with self.meter.phase("generation"):
            if self.use_vllm or self.args.use_transformers_continuous_batching:
                return super()._generate_single_turn(prompt_ids, *rest, **keywords)
            generator = torch.Generator(self.accelerator.device).manual_seed(self._step_seed())
            settings = SamplingSettings(
                max_new_tokens=self.max_completion_length,
                temperature=self.temperature,
                top_p=self.top_p,
                top_k=self.top_k,
            )
            model = self.accelerator.unwrap_model(self.model)
            pad_id = self.processing_class.pad_token_id
            return sample(model, prompt_ids, settings, self.eos_token_ids, pad_id, generator), None

    def _step_seed(self) -> int:
        """Different for every seed, step and process."""
        step = self.state.global_step * self.accelerator.num_processes + self.accelerator.process_index
        return int(self.args.seed) * 1_000_003 + step

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No model card beside every checkpoint."""

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CURRICULUM_FILE).write_text(json.dumps(self.curriculum.state_dict()))
        super()._save_checkpoint(model, trial)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.curriculum.load_state_dict(json.loads((Path(checkpoint) / CURRICULUM_FILE).read_text()))


class _OptimizerMeter(TrainerCallback):
    """Counts the optimizer's step as a phase of its own."""

    def __init__(self, meter: PhaseMeter) -> None:
        self._meter = meter

    def on_pre_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._meter.begin("optimizer")

    def on_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._meter.end()
