"""Prepares model and arguments for TRL's trainer, and says which optimizations they allow."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any
from unittest.mock import patch

import torch
import trl.trainer.grpo_trainer
import trl.trainer.utils
from transformers import PreTrainedModel, set_seed
from trl import GRPOConfig
from trl.trainer.utils import get_config_model_id

from efficient_rl.strategies.protocol import Strategy
from efficient_rl.training.merging import without_adapters
from efficient_rl.training.sampler import can_sample, carries_state, has_trained_prompt
from efficient_rl.training.sharding import check_sharding
from efficient_rl.training.trunk import has_dropout

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Optimizations:
    """The optimizations of partial training; none changes the loss. All but the last are on.

    `respect_freezing`: gradient checkpointing keeps the frozen part out of the backward pass.
    `overlay_reference`: with beta > 0 the reference is copies of what can train, instead of a
    second model. `trunk_cache_bytes`: bound of the hidden states of frozen first blocks that all
    passes of a batch share; 0 is off. `skip_zero_variance`: without a KL term, groups whose
    completions all earned the same take no forward or backward pass. `length_buckets`: completions
    of similar length pass through the model together, without the padding of the longest.
    `lean_head`: on a CPU, where TRL scores prompts and padding too and in tiles of 32,768 words,
    only what is needed. `shared_prefixes`: the prompt of a group, and what all prompts begin with,
    goes through the model once a pass. `own_sampler`: the key-value-cache sampler, with merged
    adapters in float32, in place of `generate`, unless `args` name vLLM or continuous batching;
    models that carry a state use `generate` with its draws. `half_frozen`: under bfloat16 autocast
    frozen linear weights and embeddings are kept in bfloat16, as autocast would make the former in
    every pass.
    """

    respect_freezing: bool = True
    overlay_reference: bool = True
    trunk_cache_bytes: int = 2 << 30
    skip_zero_variance: bool = True
    own_sampler: bool = True
    length_buckets: bool = True
    lean_head: bool = True
    shared_prefixes: bool = True
    half_frozen: bool = False

    def usable(self, model: PreTrainedModel, args: GRPOConfig, refills: bool, shards: bool) -> "Optimizations":
        """Those that leave the loss as it is for this model and these arguments.

        `refills`: the curriculum replaces groups. `shards`: the weights are split over processes.
        """
        config = model.config.get_text_config()
        aux_loss = hasattr(config, "output_router_logits") and args.router_aux_loss_coef != 0
        shares_trunk = can_share_trunk(model, args) and not (aux_loss or refills or shards)
        entropy_bonus = args.entropy_coef != 0 or args.use_adaptive_entropy
        all_rows_move = args.beta != 0 or entropy_bonus or args.top_entropy_quantile < 1
        return replace(
            self,
            trunk_cache_bytes=self.trunk_cache_bytes * shares_trunk,
            half_frozen=self.half_frozen and args.bf16 and not (shards or args.fsdp or args.deepspeed),
            skip_zero_variance=self.skip_zero_variance and not all_rows_move,
            length_buckets=self.length_buckets and not shards,
            own_sampler=self.own_sampler and can_sample_itself(args) and not has_trained_prompt(model),
            shared_prefixes=self.shared_prefixes
            and can_share_prefixes(model, args.gradient_checkpointing, bool(shards or args.fsdp or args.deepspeed)),
        )


def check_combination(args: GRPOConfig, strategy: Strategy | None, keywords: Mapping[str, Any], sharded: bool) -> None:
    """Raise ValueError for what cannot work, with the reason."""
    if sharded:
        check_sharding(strategy, args)
    if strategy is not None and keywords.get("peft_config") is not None:
        raise ValueError(
            "strategy= and peft_config= both say what trains; give one (strategies.adapters has PEFT's methods)"
        )
    if args.use_transformers_continuous_batching and not torch.cuda.is_available():
        raise ValueError("continuous batching on a CPU needs gigabytes and a minute a step; use grpo.sampler=own")


def check_groups(functions: Sequence[Any], args: GRPOConfig, processes: int) -> None:
    """Raise ValueError where a reward needs whole groups and several processes would see parts."""
    compares = any(hasattr(each, "steps") or getattr(each, "whole_groups", False) for each in functions)
    rows = args.per_device_train_batch_size * args.steps_per_generation
    if processes > 1 and compares and rows % args.num_generations:
        raise ValueError(
            f"process and length rewards need whole groups in every process: {rows} completions in each are no "
            f"multiple of num_generations={args.num_generations}; use fewer processes or a larger batch"
        )


@contextmanager
def prepared(model: Any, strategy: Strategy | None, args: GRPOConfig, respect_freezing: bool) -> Iterator[Any]:
    """The model for TRL's trainer to take, with the strategy applied.

    One that is named is loaded inside, by TRL, and changed as it arrives.
    """

    def prepare(loaded: Any) -> Any:
        name_soft_cap(loaded)
        adapted = loaded if strategy is None else strategy.apply(loaded)
        if respect_freezing and args.gradient_checkpointing:
            keep_checkpointing_off_the_frozen(adapted, args)
        return adapted

    if not isinstance(model, str):
        set_seed(args.seed)
        yield prepare(model)
        return
    load, changes = trl.trainer.grpo_trainer.create_model_from_path, [prepare]

    def load_prepared(*arguments: Any, **keywords: Any) -> Any:
        loaded = load(*arguments, **keywords)
        return changes.pop()(loaded) if changes else loaded  # the second is a reference model

    with patch.object(trl.trainer.grpo_trainer, "create_model_from_path", load_prepared):
        yield model


def name_soft_cap(model: Any) -> None:
    """Give RecurrentGemma's bound of its logits the name that other models and TRL have for it."""
    config = model.config.get_text_config()
    if cap := getattr(config, "logits_soft_cap", None):
        config.final_logit_softcapping = cap


def default_arguments(model: Any) -> GRPOConfig:
    """TRL's, for a trainer that was given none."""
    name = model if isinstance(model, str) else get_config_model_id(model.config)
    return GRPOConfig(f"{name.split('/')[-1]}-GRPO")


def keep_checkpointing_off_the_frozen(model: Any, args: GRPOConfig) -> None:
    """Disable the hook that makes embeddings require gradients (reentrant checkpointing only).

    With it, every block takes part in the backward pass; TRL and transformers install it again and
    again, and leak it.
    """
    if _is_reentrant(args):
        logger.warning("use_reentrant=True runs the backward pass through frozen blocks too; leave it out")
        return
    base = without_adapters(model)
    base.enable_input_require_grads = _do_nothing


def _do_nothing() -> None:
    """In place of `enable_input_require_grads`."""


def has_experts(model: Any) -> bool:
    """Whether TRL finds the experts whose load it would balance.

    It looks under one name, and for some families that have a router only in some of their sizes.
    """
    return bool(getattr(model.config.get_text_config(), "num_experts", 0))


def can_overlay(args: GRPOConfig) -> bool:
    """Whether there is a reference, it stays as it is, and every process holds all its weights."""
    reasons = {"FSDP": args.fsdp, "DeepSpeed": args.deepspeed, "sync_ref_model": args.sync_ref_model}
    second_model = list(compress(reasons, reasons.values()))
    if args.beta != 0 and second_model:
        logger.warning("%s needs a second whole model as reference; TRL loads one", second_model[0])
    return args.beta != 0 and not second_model


def can_sample_itself(args: GRPOConfig) -> bool:
    """Whether our sampler draws from what these arguments describe; else generation is TRL's."""
    other = args.use_vllm or args.use_transformers_continuous_batching or args.fsdp or args.deepspeed
    shaped = args.repetition_penalty != 1.0 or args.min_p is not None or args.generation_kwargs
    return not (other or shaped)


def can_share_trunk(model: PreTrainedModel, args: GRPOConfig) -> bool:
    """Whether a batch takes several passes, and a block reads only the hidden states before it."""
    updates = args.steps_per_generation * args.num_iterations
    vllm_correction = args.use_vllm and args.vllm_importance_sampling_correction
    old_pass = args.gradient_accumulation_steps % updates != 0 or vllm_correction
    several = args.num_iterations > 1 or args.beta != 0 or old_pass
    shares_keys = getattr(model.config.get_text_config(), "num_kv_shared_layers", 0)
    reentrant = args.gradient_checkpointing and _is_reentrant(args)
    return several and not (reentrant or shares_keys or has_trained_prompt(model) or carries_state(model))


def can_share_prefixes(model: PreTrainedModel, checkpointing: bool, split: bool) -> bool:
    """Whether completions can read the keys and values of a prompt that was computed apart.

    `split`: every process holds a part of the weights.
    """
    config = model.config.get_text_config()
    reasons = {
        "gradient checkpointing": checkpointing,
        "split weights": split,
        "dropout": has_dropout(model),
        "a prompt of trained tokens": has_trained_prompt(model),
        "layers without keys and values": not can_sample(model),
        "layers that share keys and values": getattr(config, "num_kv_shared_layers", 0),
        "router logits": getattr(config, "output_router_logits", False),
        f"attn_implementation={config._attn_implementation}": config._attn_implementation not in ("eager", "sdpa"),
    }
    found = list(compress(reasons, reasons.values()))
    if found:
        logger.info("shared_prefixes steps aside: %s", found[0])
    return not found


def _is_reentrant(args: GRPOConfig) -> bool:
    return bool((args.gradient_checkpointing_kwargs or {}).get("use_reentrant"))


@contextmanager
def weights_as_they_are(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the weights keep their type; TRL's continuous batching would lose small steps."""
    with patch.object(model, "to", lambda *_, **__: model):
        yield


@contextmanager
def hidden_beta(args: GRPOConfig, hidden: bool) -> Iterator[None]:
    """Inside, if `hidden`, beta is 0: TRL makes no reference model then."""
    beta, args.beta = args.beta, args.beta * (not hidden)
    try:
        yield
    finally:
        args.beta = beta


@contextmanager
def lean_head(model: PreTrainedModel, on: bool) -> Iterator[None]:
    """Inside, if `on`, TRL's fused head works as on a GPU: completion tokens and tiles that fit.

    It reads both decisions from its module; elsewhere than on a GPU a tile of the smallest model
    would take 512 MiB.
    """
    if not on:
        yield
        return
    width = min(trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE, model.config.get_text_config().vocab_size)
    with (
        patch.object(trl.trainer.utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", width),
        patch.object(trl.trainer.utils, "_use_triton", lambda device: True),
    ):
        yield
