"""TRL's GRPOTrainer in which training less costs less; the loss stays TRL's own."""

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOConfig

from efficient_rl.curricula.protocol import Curriculum
from efficient_rl.strategies.protocol import AdamSettings, Strategy
from efficient_rl.training.checkpoints import CheckpointedTrainer
from efficient_rl.training.curriculum_sampler import (
    CurriculumSampler,
    groups_without_signal,
    rows_of_level_groups,
    with_groups_replaced,
)
from efficient_rl.training.gradient_sync import average_gradients, take_weights_of_the_first
from efficient_rl.training.memory import PhaseMeter, leaves, optimizer_state_bytes, tensor_bytes
from efficient_rl.training.merging import merged
from efficient_rl.training.model_setup import (
    can_overlay,
    can_sample_itself,
    can_share_trunk,
    check_combination,
    hidden_beta,
    keep_checkpointing_off_the_frozen,
    lean_head,
    prepared,
    weights_as_they_are,
)
from efficient_rl.training.optimizer import one_group_a_tensor
from efficient_rl.training.parameters import TrainedParameters
from efficient_rl.training.process_rewards import ProcessRewards, added_to
from efficient_rl.training.reference import OverlayReference
from efficient_rl.training.sampler import SamplingSettings, can_sample, draws, sample
from efficient_rl.training.scoring import Compute, Scores, completion_lengths, length_buckets, score
from efficient_rl.training.sharding import Shards, check_sharding, whole_tensor
from efficient_rl.training.trunk import DEPTH, HIDDEN, TrunkCache, frozen_depth
from efficient_rl.training.weight_sync import ChangedWeightsOnly

logger = logging.getLogger(__name__)
GENERATIONS_A_STEP = 10_000  # no step has as many
UNCUT = ("pixel_values", "token_type_ids", "mm_token_type_ids", "num_images")  # of models that also see; left to TRL


@dataclass(frozen=True)
class Optimizations:
    """What makes partial training cheap; none of it changes the loss. All on, but for comparisons.

    `respect_freezing`: gradient checkpointing does not make the frozen part take part in the
    backward pass. `overlay_reference`: with beta > 0 only what can train is kept as it was, instead
    of a second model. `trunk_cache_bytes`: bound of the hidden states of frozen first blocks that
    all passes of a batch share; 0 is off. `skip_zero_variance`: without a KL term, groups whose
    completions all earned the same take no forward or backward pass. `length_buckets`: completions
    of similar length pass through the model together, without the padding of the longest.
    `lean_head`: on a CPU, where TRL scores prompts and padding too and in tiles of 32,768 words,
    only what is needed. `own_sampler`: the key-value-cache sampler with merged adapters in place of
    `generate`, unless `args` name vLLM or continuous batching.
    """

    respect_freezing: bool = True
    overlay_reference: bool = True
    trunk_cache_bytes: int = 2 << 30
    skip_zero_variance: bool = True
    own_sampler: bool = True
    length_buckets: bool = True
    lean_head: bool = True


Savings = Optimizations  # its name before


class EfficientGRPOTrainer(CheckpointedTrainer):
    """Takes what `trl.GRPOTrainer` takes, and a `strategy`; also for training scripts of your own.

    With `problems` (rows with the columns of the training data and `difficulty`) a `curriculum`
    draws the batches from them in place of the data set's order. `meter` counts seconds and bytes
    by phase. In several processes (torchrun, accelerate) each takes its share of the batch;
    `sharded` also splits weights, gradients and optimizer state (FSDP). Raises ValueError where
    nothing would train and for combinations that cannot work; RuntimeError where the weights do not
    move.
    """

    def __init__(
        self,
        model: "str | PreTrainedModel | PeftModel",
        reward_funcs: Any = None,
        args: GRPOConfig | None = None,
        *arguments: Any,
        strategy: Strategy | None = None,
        problems: Sequence[Mapping[str, Any]] | None = None,
        curriculum: Curriculum | None = None,
        meter: PhaseMeter | None = None,
        optimizations: Optimizations | None = None,
        sharded: bool = False,
        **keywords: Any,
    ) -> None:
        args = copy.copy(args or GRPOConfig("grpo-output"))  # the caller's own is left as it is
        self.optimizations = optimizations or keywords.pop("savings", None) or Optimizations()
        self.strategy = strategy
        self.meter = meter or PhaseMeter()
        self._curriculum_sampler = (
            CurriculumSampler(problems, curriculum) if problems is not None and curriculum is not None else None
        )
        check_combination(args, strategy, keywords)
        if sharded:
            check_sharding(strategy, args)
        if strategy is not None:
            model = prepared(model, strategy, args, keywords)
        if self.optimizations.respect_freezing and args.gradient_checkpointing and not isinstance(model, str):
            keep_checkpointing_off_the_frozen(model, args)
        overlay = self.optimizations.overlay_reference and args.beta != 0 and can_overlay(args)
        new_adapter = strategy is None and not isinstance(model, PeftModel)
        with hidden_beta(args) if overlay else nullcontext():
            super().__init__(model, reward_funcs, args, *arguments, **keywords)
        self.beta = args.beta
        self._stepwise = ProcessRewards(self.reward_funcs, self.reward_weights, self._tokenizer)
        self._refuse_split_groups()
        self._bare: PreTrainedModel = self.accelerator.unwrap_model(self.model)
        self._shards = self._shared_out(sharded)
        self.parameters = TrainedParameters(self._bare)
        self._reference = OverlayReference(self._bare, new_adapter) if overlay else None
        if overlay:
            self.ref_model = self._reference
        self._trunk = TrunkCache(self._bare, self.optimizations.trunk_cache_bytes)
        self._never_trained_depth = frozen_depth(self._bare, self.parameters.trainable)
        self._samples_itself = self.optimizations.own_sampler and can_sample_itself(self.args) and can_sample(self._bare)
        self._can_share_trunk = (
            self.optimizations.trunk_cache_bytes > 0 and can_share_trunk(self._bare, self.args) and not sharded
        )
        self._generations = 0  # since the step began
        self._micro_batch: dict[str, Any] | None = None
        self._skipped_a_batch = False
        self.remove_callback(PrinterCallback)
        self.add_callback(_Steps(self))
        self._weights = ChangedWeightsOnly(self.vllm_generation, self._bare) if self.use_vllm else None

    def _shared_out(self, sharded: bool) -> Shards | None:
        """Make the weights the same in all processes, and each keep a part of them if `sharded`.

        Gradients are exchanged here and not by accelerate, whose wrapper cannot follow schedules
        (see `exchange`).
        """
        self._exchanges = self.accelerator.num_processes > 1 and not (self.is_fsdp_enabled or self.is_deepspeed_enabled)
        if not self._exchanges:
            return None
        take_weights_of_the_first(self._bare)
        prepare = self.accelerator.prepare_model
        self.accelerator.prepare_model = partial(prepare, evaluation_mode=True)  # all but wrapping
        return Shards(self._bare) if sharded else None

    @property
    def reference_bytes(self) -> int:
        """What the reference model holds beside the policy."""
        if self._reference is not None:
            return self._reference.bytes
        return tensor_bytes(self.ref_model.parameters()) if isinstance(self.ref_model, nn.Module) else 0

    def train_from(self, checkpoint: Path | None) -> None:
        """Train from the start or from a checkpoint; one of the last step only gives its weights."""
        if checkpoint is not None and int(checkpoint.name.rpartition("-")[2]) >= self.args.max_steps:
            self._load_from_checkpoint(str(checkpoint))  # the Trainer itself would do one more step
        else:
            self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    # One step

    def train(self, *arguments: Any, **keywords: Any) -> Any:
        """TRL's, after which nothing is being measured any more, however it ended."""
        try:
            return super().train(*arguments, **keywords)
        finally:
            self.meter.abandon_step()

    def training_step(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
        """One forward and backward pass; what is generated and scored inside counts as phases of its own."""
        with self.meter.phase("backward"):
            loss: torch.Tensor = super().training_step(*arguments, **keywords)
            if self.accelerator.sync_gradients:
                self._finish_gradients()
        return loss

    def _finish_gradients(self) -> None:
        if self._exchanges and self._shards is None:
            with self.meter.phase("exchange"):
                average_gradients([parameter for parameter in self.parameters.names if parameter.requires_grad])
        if self._skipped_a_batch:
            self.parameters.fill_missing_gradients()
        self._skipped_a_batch = False
        self.parameters.finish_gradients(self._optimizer)
        self._metrics["train"]["params/active"].append(self.parameters.active_count)
        self.meter.note("gradients", lambda: tensor_bytes(parameter.grad for parameter in self.parameters.names))

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's, on the curriculum's problems, with the trunk kept for the passes to come.

        All randomness from here to the next generation follows from seed and step, so that a
        resumed run repeats it.
        """
        if not self.model.training:
            self._trunk.begin(0, len(inputs))
            return dict(super()._generate_and_score_completions(inputs))
        torch.manual_seed(self._generation_seed())
        self._trunk.begin(self._shared_depth(), len(inputs))
        with self.meter.phase("scoring"):
            batch = (
                self._scored(inputs)
                if self._curriculum_sampler is None
                else self._served(self._curriculum_sampler, len(inputs))
            )
        return batch | self._trunk.take()

    def _shared_depth(self) -> int:
        """How many frozen first blocks the passes of the next batch can share."""
        updates = self.args.steps_per_generation * self.num_iterations
        old_pass = self.args.gradient_accumulation_steps % updates != 0 or (
            self.use_vllm and self.vllm_importance_sampling_correction
        )
        several = self.num_iterations > 1 or self.beta != 0 or old_pass
        refills = self._curriculum_sampler is not None and self._curriculum_sampler.curriculum.refills > 0
        useful = several and self._can_share_trunk and not self.aux_loss_enabled and not refills
        return frozen_depth(self._bare, self.parameters.with_gradients) if useful else 0

    def _scored(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's batch, without the rounding that it takes for an advantage where a group's rewards are all the same.

        With process supervision its advantages have shape (rows, tokens).
        """
        batch = dict(super()._generate_and_score_completions(inputs))
        if self.multi_objective_aggregation == "sum_then_normalize":
            start = self.accelerator.process_index * len(inputs)
            level = rows_of_level_groups(self._rewards, self.num_generations)[start : start + len(inputs)]
            batch["advantages"] = batch["advantages"].masked_fill(level, 0.0)
        if self._stepwise:
            batch["advantages"] = added_to(batch["advantages"], self._token_advantages, batch["completion_ids"].shape[1])
        return batch

    def _served(self, sampler: CurriculumSampler, rows: int) -> dict[str, Any]:
        """A batch of the curriculum's problems; groups without a signal are replaced as often as the curriculum says."""
        batch, drawn = self._observed(sampler, rows)
        first = {name: len(values) for name, values in self._metrics["train"].items()}
        size, replaced = self.num_generations, 0
        for _ in range(sampler.curriculum.refills):
            lacking = groups_without_signal(batch["advantages"], size)
            if not lacking:
                break
            more, _ = self._observed(sampler, len(lacking) * size)
            batch = with_groups_replaced(batch, lacking, more, size, self._tokenizer.pad_token_id)
            replaced += len(lacking)
        metrics = self._metrics["train"]
        for name, values in metrics.items():  # of the refills only the tokens count: they are no sample of all problems
            del values[max(first.get(name, 0), int(name == "num_tokens")) :]
        if sampler.curriculum.refills:
            metrics["curriculum/refilled_groups"].append(replaced)
        for name, value in sampler.metrics(drawn).items():
            metrics[name].append(value)
        return batch

    def _observed(self, sampler: CurriculumSampler, rows: int) -> tuple[dict[str, Any], list[int]]:
        """`rows` completions of newly drawn problems; the curriculum sees the rewards of all processes."""
        size, step = self.num_generations, self.state.global_step
        drawn, inputs = sampler.draw(rows * self.accelerator.num_processes // size, size, step)
        start = self.accelerator.process_index * rows
        batch = self._scored(inputs[start : start + rows])
        sampler.curriculum.observe(drawn, self._seen_rewards.view(-1, size).tolist(), step)
        return batch, drawn

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:
        encoded = (
            self._curriculum_sampler.encoded(prompts)
            if self._curriculum_sampler is not None and self.model.training
            else None
        )
        return super()._tokenize_prompts(prompts) if encoded is None else (encoded, None, {})

    def _refuse_split_groups(self) -> None:
        """Raise where what works on whole groups would see parts of them, in several processes."""
        if self.accelerator.num_processes == 1:
            return
        if self._curriculum_sampler is not None and self._curriculum_sampler.curriculum.refills:
            raise ValueError("a curriculum with refills (dapo) works in one process only; use curriculum=learnability")
        compares = self._stepwise or any(getattr(function, "whole_groups", False) for function in self.reward_funcs)
        rows = self.args.per_device_train_batch_size * self.args.steps_per_generation
        if compares and rows % self.num_generations:
            raise ValueError(
                f"process and length rewards need whole groups in every process: {rows} completions in each are no multiple "
                f"of num_generations={self.num_generations}; use fewer processes or a larger batch"
            )

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list[Any], completions: list[Any], completion_ids: list[list[int]]
    ) -> torch.Tensor:
        with self.meter.phase("reward"):
            rewards: torch.Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids)
            self._rewards = (rewards * self.reward_weights.to(rewards.device)).nansum(1)
            seen = (rewards * self._stepwise.all_weights.to(rewards.device)).nansum(1)
            self._seen_rewards = seen.masked_fill(rewards.isnan().all(1), torch.nan)  # no verdict is no failure
            if self._stepwise:
                size = self.num_generations if self.model.training else self.num_generations_eval
                self._token_advantages = self._stepwise.token_advantages(inputs, completions, completion_ids, size)
            return rewards

    def _generate_single_turn(
        self,
        prompt_ids: list[list[int]],
        images: Any = None,
        multimodal_fields: Any = None,
        num_generations: int = 1,
        has_tool_images: bool = False,
    ) -> tuple[list[list[int]], Any]:
        with self.meter.phase("generation"):
            if not self._samples_itself or images or multimodal_fields or has_tool_images:
                with weights_as_they_are(self._bare):
                    completions, logps = super()._generate_single_turn(
                        prompt_ids, images, multimodal_fields, num_generations, has_tool_images
                    )
                return completions, logps
            settings = SamplingSettings(
                max_new_tokens=self.max_completion_length,
                temperature=self.temperature,
                top_p=self.top_p,
                top_k=self.top_k,
            )
            rows, tokens = len(prompt_ids), settings.max_new_tokens
            seed = (int(self.args.seed), self.state.global_step, self._generations)
            self._generations += 1
            uniform = draws(seed, rows, tokens, self.accelerator.process_index * rows)
            with self.whole_weights(), merged(self._bare):
                return sample(
                    self._bare, prompt_ids, settings, self.eos_token_ids, self._tokenizer.pad_token_id, uniform
                ), None

    def _generation_seed(self) -> int:
        """Different for every seed, step, generation within the step, and process: of all that is drawn but completions."""
        processes, process = self.accelerator.num_processes, self.accelerator.process_index
        generation = self.state.global_step * GENERATIONS_A_STEP + self._generations
        return int(self.args.seed) * 1_000_000_007 + generation * processes + process

    # Passes over a batch

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        with self.meter.phase("forward"):
            self._micro_batch = inputs
            try:
                return super()._compute_loss(model, inputs)
            finally:
                self._micro_batch = None

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **keywords: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """TRL's pass for the policy, the old policy and the reference, each with what it does not need left out."""
        original = super()._get_per_token_logps_and_entropies
        uncut = any(keywords.get(name) is not None for name in UNCUT)
        is_reference = model is self.ref_model
        policy = self.model if self._reference is not None and is_reference else model
        own_reference = self._restored() if self._reference is not None and is_reference else nullcontext()

        def compute(ids: torch.Tensor, mask: torch.Tensor, width: int) -> tuple[torch.Tensor, Any, Any]:
            with lean_head(self._bare) if self.optimizations.lean_head else nullcontext():
                return original(policy, ids, mask, width, **keywords)

        if self._micro_batch is not None:
            if uncut or keywords.get("compute_aux_loss"):
                return compute(input_ids, attention_mask, logits_to_keep)
            return (*self._policy_pass(compute, self._micro_batch, input_ids, attention_mask, logits_to_keep), None)
        with self.meter.phase("reference" if is_reference else "old_policy"), own_reference:
            if uncut:
                return original(policy, input_ids, attention_mask, logits_to_keep, batch_size, **keywords)
            same_blocks = self._never_trained_depth if is_reference else len(self.parameters.names)
            if isinstance(model, nn.Module) and is_reference:
                same_blocks = 0  # a second model of TRL's
            rows = torch.arange(len(input_ids), device=input_ids.device)

            def trunk(chosen: torch.Tensor, tokens: int) -> AbstractContextManager[None]:
                return self._trunk.passing(chosen, tokens, input_ids.shape[1], same_blocks)

            buckets = self._buckets(attention_mask, logits_to_keep, rows, batch_size)
            return (*score(compute, input_ids, attention_mask, logits_to_keep, rows, buckets, trunk), None)

    def _policy_pass(
        self,
        compute: Compute,
        batch: Mapping[str, Any],
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        width: int,
    ) -> Scores:
        """Log-probabilities with gradients, shape (rows, width): of the rows that have one, from the trunk on."""
        hidden, depth = batch.get(HIDDEN), int(batch.get(DEPTH, 0))
        if depth and frozen_depth(self._bare, self.parameters.with_gradients) < depth:
            # A schedule turned to blocks that were frozen when the batch was made: its trunk is no longer true.
            hidden = None
            batches: list[dict[str, Any]] = self._buffered_inputs or []
            for each in batches:
                each.pop(HIDDEN, None)

        def trunk(chosen: torch.Tensor, tokens: int) -> AbstractContextManager[None]:
            return nullcontext() if hidden is None else self._trunk.serving(hidden[chosen, :tokens], depth)

        rows = self._rows_with_a_gradient(batch)
        shape = batch["completion_mask"].shape
        constant = batch.get("old_per_token_logps", torch.zeros(shape, device=input_ids.device))
        if len(rows) == 0:
            self._skipped_a_batch = True
            logps, entropies = constant.detach().clone().requires_grad_(), constant.new_zeros(0, width)
        else:
            buckets = self._buckets(attention_mask, width, rows, None)
            logps, entropies = score(compute, input_ids, attention_mask, width, rows, buckets, trunk)
        if self._needs_all_rows:
            return logps, entropies
        if 0 < len(rows) < len(input_ids):
            logps = constant.to(logps.dtype).index_copy(0, rows, logps)
        return logps, None if entropies is None else self._with_mean_entropy(entropies, rows, batch)

    def _with_mean_entropy(self, entropies: torch.Tensor, rows: torch.Tensor, batch: Mapping[str, Any]) -> torch.Tensor:
        """Entropies of all rows, of those left out the mean of the others: it only enters the metric, NaN where all are."""
        mask, moving = batch["completion_mask"], _moving(batch["advantages"])[rows]
        rows, entropies = rows[moving], entropies[moving]
        sums = torch.stack([(entropies * mask[rows]).sum(), mask[rows].sum()]).detach()
        if self._exchanges:
            sums = self.accelerator.reduce(sums, "sum")
        return (sums[0] / sums[1]).expand(mask.shape).index_copy(0, rows, entropies)

    @contextmanager
    def _restored(self) -> Iterator[None]:
        """The model before training, inside."""
        assert self._reference is not None
        with self._reference.restored():
            if self._shards is not None:
                self._shards.reshard()  # what is whole since an earlier pass is the policy
            yield
        if self._shards is not None:
            self._shards.reshard()

    def _buckets(
        self, attention_mask: torch.Tensor, width: int, rows: torch.Tensor, most_rows: int | None
    ) -> list[list[int]] | None:
        if self.optimizations.length_buckets and self._shards is None:  # whose processes compute the same number of passes
            return length_buckets(completion_lengths(attention_mask[rows], width).tolist(), most_rows)
        return length_buckets([width] * len(rows), most_rows) if most_rows is not None else None

    def _rows_with_a_gradient(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Indices of the completions that can move the weights: all, or without a KL term those with an advantage."""
        advantages: torch.Tensor = batch["advantages"]
        rows = torch.arange(len(advantages), device=advantages.device)
        if self._needs_all_rows:
            return rows
        moving = rows[_moving(advantages)]
        alone = self.accelerator.num_processes == 1 or (self._exchanges and self._shards is None)
        return moving if alone or len(moving) else rows[:1]  # shards are put together by all processes, in every pass

    @property
    def _needs_all_rows(self) -> bool:
        """Whether completions without an advantage move the weights too, or are not to be left out."""
        return (
            not self.optimizations.skip_zero_variance
            or not self.model.training
            or self.beta != 0
            or self._entropy_bonus_enabled
            or self.top_entropy_quantile < 1
        )

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        return whole_tensor(super()._clip_grad_norm(model))

    # Optimizer

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """One owner of all that may ever train, whatever trains at first."""
        self.parameters.restore()
        if self.optimizer is None and self.strategy is not None:
            args = self.args
            betas = (args.adam_beta1, args.adam_beta2)
            settings = AdamSettings(args.learning_rate, betas, args.adam_epsilon, args.weight_decay)
            own = self.strategy.optimizer(self._bare, settings)
            if own is not None:
                self.optimizer = own
                self.parameters.keep_to(p for group in own.param_groups for p in group["params"])
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """The learning rate's scheduler; with it the strategy's, which must know the number of steps too."""
        if self._curriculum_sampler is not None and self.lr_scheduler is None:
            self._curriculum_sampler.curriculum.begin(
                self._curriculum_sampler.difficulties, self.args.seed, num_training_steps
            )
        if self.strategy is not None and self.parameters.schedule is None:
            self.parameters.schedule = self.strategy.schedule(self._bare, self.args.seed, num_training_steps)
            if self.parameters.schedule is not None:
                one_group_a_tensor(self._optimizer)
        return super().create_scheduler(num_training_steps, optimizer)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No model card beside every checkpoint."""

    # What a step's callbacks do

    def begin_step(self) -> None:
        """Before generation: the schedule chooses, and the meter starts from what is held now."""
        self._generations = 0
        self.parameters.begin_step(self.state.global_step, self._optimizer)
        if self._step % (self.args.steps_per_generation * self.num_iterations) == 0:
            self._buffered_inputs = None  # a new generation is due: what the last one left is freed before it, not after
        weights = [*self.parameters.names, *self._bare.buffers()]

        def held() -> int:
            schedule = self.parameters.schedule.state_dict() if self.parameters.schedule is not None else {}
            kept = leaves([self._optimizer.state, schedule, self._buffered_inputs or ()])
            return tensor_bytes([*weights, *kept]) + self.reference_bytes

        self.meter.start_step(self.state.global_step, held)
        self.meter.note("parameters", lambda: tensor_bytes(weights))
        self.meter.note("reference", lambda: self.reference_bytes)

    def before_update(self) -> None:
        """After clipping, before the optimizer."""
        batches: list[dict[str, Any]] = self._buffered_inputs or []
        self.meter.note("trunk", lambda: tensor_bytes(batch.get(HIDDEN) for batch in batches))
        self.meter.begin("optimizer")
        torch.manual_seed(int(self.args.seed) + self.state.global_step)  # what optimizers draw is the same in all processes
        self.parameters.before_update(self._optimizer)

    def after_update(self) -> None:
        """After the optimizer, with the gradients still there."""
        self.parameters.after_update(self.args.learning_rate, self.accelerator.optimizer_step_was_skipped)
        if self._weights is not None:
            self._weights.note(self.parameters.active)
        self.meter.end()
        self.meter.note("optimizer_state", lambda: optimizer_state_bytes(self._optimizer))


def _moving(advantages: torch.Tensor) -> torch.Tensor:
    """Which completions, shape (rows,), have an advantage anywhere; `advantages` is (rows,) or (rows, tokens)."""
    return advantages.reshape(len(advantages), -1).abs().sum(1) > 0


class _Steps(TrainerCallback):
    """Tells the trainer where a step begins, updates and ends."""

    def __init__(self, trainer: EfficientGRPOTrainer) -> None:
        self._trainer = trainer

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._trainer.begin_step()

    def on_pre_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._trainer.before_update()

    def on_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._trainer.after_update()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._trainer.meter.end_step()
