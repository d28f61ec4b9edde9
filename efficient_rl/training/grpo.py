"""TRL's GRPOTrainer with cheaper partial training; the loss is TRL's."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel
from trl import GRPOConfig

from efficient_rl.curricula.protocol import Curriculum
from efficient_rl.decoding import CompletionDecoder, code_of
from efficient_rl.strategies.protocol import AdamSettings, Strategy
from efficient_rl.training.arithmetic import narrow_frozen
from efficient_rl.training.checkpoints import CheckpointedTrainer
from efficient_rl.training.curriculum_sampler import CurriculumSampler, Scored, rows_of_level_groups
from efficient_rl.training.generation import complete
from efficient_rl.training.gradient_sync import average_gradients, begin_sync
from efficient_rl.training.memory import GENERATION, PhaseMeter, tensor_bytes
from efficient_rl.training.model_setup import (
    Optimizations,
    can_overlay,
    check_combination,
    check_groups,
    default_arguments,
    has_experts,
    hidden_beta,
    prepared,
    weights_as_they_are,
)
from efficient_rl.training.optimizer import members, one_group_a_tensor
from efficient_rl.training.parameters import TrainedParameters
from efficient_rl.training.process_rewards import ProcessRewards, added_to
from efficient_rl.training.reference import OverlayReference
from efficient_rl.training.sampler import Draws, SamplingSettings, own_generation
from efficient_rl.training.sampler_gap import SamplerGap, ragged
from efficient_rl.training.scoring import Scorer, TrlScores
from efficient_rl.training.sharding import NoShards, Shards, whole_tensor
from efficient_rl.training.steps import StepCallback
from efficient_rl.training.tokens import Tokens
from efficient_rl.training.weight_sync import ChangedWeightsOnly

logger = logging.getLogger(__name__)
__all__ = ["EfficientGRPOTrainer", "Optimizations", "Savings"]
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
        args = args or default_arguments(model)
        wanted = optimizations or keywords.pop("savings", None) or Optimizations()
        self.strategy, self.meter = strategy, meter or PhaseMeter()
        check_combination(args, strategy, keywords, sharded)
        overlay = wanted.overlay_reference and can_overlay(args)
        new_adapter = strategy is None and not isinstance(model, PeftModel)
        with hidden_beta(args, overlay), prepared(model, strategy, args, wanted.respect_freezing) as ready:
            super().__init__(ready, reward_funcs, args, *arguments, **keywords)
        self.beta = args.beta
        self.aux_loss_enabled: bool = self.aux_loss_enabled and has_experts(self.model)
        self._bare = self.accelerator.unwrap_model(self.model)
        check_groups(self.reward_funcs, args, self.accelerator.num_processes)
        ends = [index for index in self.eos_token_ids if index is not None]
        self.decoder = CompletionDecoder(self._tokenizer, ends, code_of(self.reward_funcs))
        self._rewards = ProcessRewards(self.reward_funcs, self.reward_weights, self._tokenizer)
        self._problems = self._sampler_of(problems, curriculum)
        self._share_weights(sharded)
        self.parameters = TrainedParameters(self._bare)
        self._reference = OverlayReference(self._bare, new_adapter) if overlay else None
        self.ref_model: Any = self._reference or self.ref_model
        self._build_scorer(wanted)
        self.narrow = narrow_frozen(self._bare) if self.optimizations.half_frozen else ()
        self.draws = Draws(int(args.seed), self.accelerator.process_index, self.accelerator.num_processes)
        self.vllm_weights = ChangedWeightsOnly(self.vllm_generation, self._bare) if self.use_vllm else None
        self.add_callback(StepCallback(self))

    def _sampler_of(self, problems: Any, curriculum: Curriculum | None) -> CurriculumSampler | None:
        if problems is None or curriculum is None:
            return None
        size, pad_id = self.num_generations, self._tokenizer.pad_token_id
        return CurriculumSampler(problems, curriculum, size, pad_id, self.accelerator)

    def _share_weights(self, sharded: bool) -> None:
        """Make the weights the same in all processes, and each keep a part of them if `sharded`.

        accelerate's wrapper cannot follow schedules, so gradients are exchanged by `gradient_sync`.
        """
        wrapped = self.is_fsdp_enabled or self.is_deepspeed_enabled
        exchanges = self.accelerator.num_processes > 1 and not wrapped
        if exchanges:
            begin_sync(self._bare, self.accelerator)
        self._shards = Shards(self._bare) if exchanges and sharded else NoShards()
        self._averages = exchanges and not self._shards.splits

    def _build_scorer(self, wanted: Optimizations) -> None:
        refills = self._problems is not None and self._problems.curriculum.refills > 0
        self.optimizations = wanted.usable(self._bare, self.args, refills, self._shards.splits)
        self._gap = SamplerGap(self.epsilon_low)
        lockstep = self.accelerator.num_processes > 1 and not self._averages
        self._scorer = Scorer(
            self._bare, self.parameters, self._reference, self._shards, self.optimizations,
            self.accelerator, self.meter, lockstep, self._gap,
        )  # fmt: skip

    @property
    def reference_bytes(self) -> int:
        """What the reference model holds beside the policy."""
        if self._reference is not None:
            return self._reference.bytes
        return tensor_bytes(self.ref_model.parameters()) if isinstance(self.ref_model, nn.Module) else 0

    def train(self, *arguments: Any, **keywords: Any) -> Any:
        """TRL's, after which nothing is being measured any more, however it ended."""
        try:
            return super().train(*arguments, **keywords)
        finally:
            self.meter.abandon_step()

    # A batch: prompts, completions, rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's, on the curriculum's problems, with the trunk kept for the passes to come."""
        self._scorer.begin_batch(len(inputs))
        if not self.model.training:
            return dict(super()._generate_and_score_completions(inputs))
        with self.meter.phase("scoring"):
            if self._problems is None:
                batch, _ = self._scored(inputs)
            else:
                step, metrics = self.state.global_step, self._metrics["train"]
                batch = self._problems.batch(self._scored, len(inputs), step, metrics)
        return batch | self._scorer.take_trunk()

    def _scored(self, inputs: list[dict[str, Any]]) -> Scored:
        """TRL's batch, and the rewards of all processes, shape (groups, size).

        Advantages, shape (rows,) or with process supervision (rows, tokens), are 0 where a group's
        rewards are the same up to rounding.
        """
        batch = self._gap.keep(dict(super()._generate_and_score_completions(inputs)), self.use_vllm)
        if self.multi_objective_aggregation == "sum_then_normalize":
            start = self.accelerator.process_index * len(inputs)
            level = rows_of_level_groups(self._rewards.whole, self.num_generations)
            own_level = level[start : start + len(inputs)]
            batch["advantages"] = batch["advantages"].masked_fill(own_level, 0.0)
        if self._rewards:
            width = batch["completion_ids"].shape[1]
            batch["advantages"] = added_to(batch["advantages"], self._token_advantages, width)
        return batch, self._rewards.earned.view(-1, self.num_generations)

    def _generate(self, prompts: list[Any]) -> Any:
        """TRL's, with completions decoded to what rewards read."""
        with self.decoder.replacing(self.processing_class):
            return super()._generate(prompts)

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:
        if self._problems is None or not self.model.training:
            return super()._tokenize_prompts(prompts)
        encoded = self._problems.encoded(prompts)
        return super()._tokenize_prompts(prompts) if encoded is None else (encoded, None, {})

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, has_tool_images: bool = False
    ) -> tuple[list[list[int]], Any]:
        with self.meter.phase(GENERATION):
            if self._samples_itself() and not (images or multimodal_fields or has_tool_images):
                completions, logps = self._completions(prompt_ids)
            else:
                with weights_as_they_are(self._bare), self.accelerator.autocast():
                    completions, logps = super()._generate_single_turn(
                        prompt_ids, images, multimodal_fields, num_generations, has_tool_images
                    )
        width = max(map(len, prompt_ids), default=0) + max(map(len, completions), default=0)
        self.meter.generated(len(completions) * width)
        return completions, logps

    def _samples_itself(self) -> bool:
        """Whether our sampler replaces `generate`; not if the model's own was overridden."""
        if self.optimizations.own_sampler and (reason := own_generation(self._bare)):
            logger.warning("own_sampler steps aside for generate(): %s", reason)
            self.optimizations = replace(self.optimizations, own_sampler=False)
        return self.optimizations.own_sampler

    def _completions(self, prompt_ids: list[list[int]]) -> tuple[list[list[int]], list[list[float]]]:
        """Tokens and their log-probabilities: the same in any number of processes."""
        width, ends, pad_id = self.max_completion_length, self.eos_token_ids, self._tokenizer.pad_token_id
        shares = self.optimizations.shared_prefixes
        settings = SamplingSettings(width, self.temperature, self.top_p, self.top_k, shares)
        uniform = self.draws.uniform(self.state.global_step, len(prompt_ids), width)
        logps = torch.zeros(uniform.shape, device=self._bare.device)
        with self.sampling():
            found = complete(self._bare, prompt_ids, settings, ends, pad_id, uniform, logps)
        return found, ragged(logps, found)

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list[Any], completions: list[Any], completion_ids_list: list[list[int]]
    ) -> torch.Tensor:
        """Rewards of all processes, shape (rows, functions)."""
        with self.meter.phase("reward"):
            rewards: torch.Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
            self._rewards.see(rewards)
            if self._rewards:
                size = self.num_generations if self.model.training else self.num_generations_eval
                self._token_advantages = self._rewards.token_advantages(inputs, completions, completion_ids_list, size)
            return rewards

    # Passes over a batch

    def training_step(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
        """One forward and backward pass; generation and scoring inside are phases of their own."""
        with self.meter.phase("backward"):
            loss: torch.Tensor = super().training_step(*arguments, **keywords)
            if self.accelerator.sync_gradients:
                self._finish_gradients()
        return loss

    def _finish_gradients(self) -> None:
        if self._averages:
            with self.meter.phase("exchange"):
                average_gradients([p for p in self.parameters.names if p.requires_grad])
        if self._scorer.take_skipped():
            self.parameters.fill_missing_gradients()
        self.parameters.finish_gradients(self._optimizer)
        self._metrics["train"]["sampler_gap"] += self._gap.take(self.accelerator)
        self._metrics["train"]["params/active"].append(self.parameters.active_count)
        self.meter.note("gradients", lambda: tensor_bytes(p.grad for p in self.parameters.names))

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        generation = self._buffered_inputs or []
        with self.meter.phase("forward"), self._scorer.policy_pass(inputs, generation):
            return super()._compute_loss(model, inputs)

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, batch_size: Any = None, **keywords: Any
    ) -> TrlScores:
        """Scores of policy, old policy or reference, shape (rows, logits_to_keep)."""
        trl_pass = super()._get_per_token_logps_and_entropies
        tokens = Tokens(input_ids, attention_mask, logits_to_keep)
        return self._scorer(trl_pass, model, model is self.ref_model, tokens, batch_size, keywords)

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        return whole_tensor(super()._clip_grad_norm(model))

    # Optimizer and schedules

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """One owner of all that may ever train, whatever trains at first."""
        self.parameters.restore()
        if self.optimizer is None and self.strategy is not None:
            args = self.args
            betas = (args.adam_beta1, args.adam_beta2)
            settings = AdamSettings(args.learning_rate, betas, args.adam_epsilon, args.weight_decay)
            self.optimizer = self.strategy.optimizer(self._bare, settings)
            if self.optimizer is not None:
                self.parameters.keep_to(members(self.optimizer.param_groups))
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """The scheduler of the learning rate, and the strategy's, which needs the steps too."""
        if self._problems is not None and self.lr_scheduler is None:
            self._problems.begin(self.args.seed, num_training_steps)
        if self.strategy is not None and self.parameters.schedule is None:
            schedule = self.strategy.schedule(self._bare, self.args.seed, num_training_steps)
            if schedule is not None:
                self.parameters.schedule = schedule
                one_group_a_tensor(self._optimizer)
        return super().create_scheduler(num_training_steps, optimizer)
