"""What happens to model and arguments before TRL's trainer is built: strategy, gradient checkpointing, hidden beta."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import trl.trainer.utils
from peft import PeftModel
from transformers import PreTrainedModel, set_seed
from trl import GRPOConfig
from trl.trainer.utils import create_model_from_path

from efficient_rl.strategies.protocol import Strategy
from efficient_rl.training.sampler import has_trained_prompt

logger = logging.getLogger(__name__)


def check_combination(args: GRPOConfig, strategy: Strategy | None, keywords: Mapping[str, Any]) -> None:
    """Raise ValueError for what cannot work, with the reason."""
    if strategy is not None and keywords.get("peft_config") is not None:
        raise ValueError(
            "strategy= and peft_config= both say what trains; give one (strategies.adapters has PEFT's methods)"
        )
    if args.use_transformers_continuous_batching and not torch.cuda.is_available():
        raise ValueError("continuous batching on a CPU needs gigabytes and a minute a step; use grpo.sampler=own")


def prepared(
    model: "str | PreTrainedModel | PeftModel", strategy: Strategy, args: GRPOConfig, keywords: dict[str, Any]
) -> Any:
    """The model with the strategy applied, loaded first where it is a name."""
    set_seed(args.seed)
    if isinstance(model, str):
        arguments = dict(args.model_init_kwargs or {})
        if quantization := keywords.pop("quantization_config", None):
            arguments["quantization_config"] = quantization
        model = create_model_from_path(model, **arguments)
        args.model_init_kwargs = None  # of the trainer's copy: TRL would warn that they do nothing for a model
    return strategy.apply(model)


def keep_checkpointing_off_the_frozen(model: Any, args: GRPOConfig) -> None:
    """Without the hook that makes embeddings require gradients, which only reentrant checkpointing needs.

    With it, every block takes part in the backward pass; TRL and transformers install it again and
    again, and leak it.
    """
    if (args.gradient_checkpointing_kwargs or {}).get("use_reentrant"):
        logger.warning("use_reentrant=True makes the backward pass run through frozen blocks too; leave it out to save them")
        return
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    base.enable_input_require_grads = _do_nothing


def _do_nothing() -> None:
    """In place of `enable_input_require_grads`."""


def can_overlay(args: GRPOConfig) -> bool:
    """Whether the weights are whole on every process and the reference stays as it is."""
    if args.fsdp or args.deepspeed or args.sync_ref_model:
        reason = "FSDP" if args.fsdp else "DeepSpeed" if args.deepspeed else "sync_ref_model"
        logger.warning("%s needs a second whole model as reference; TRL loads one", reason)
        return False
    return True


def can_sample_itself(args: GRPOConfig) -> bool:
    """Whether our sampler draws from what these arguments describe; else generation is TRL's, with all that it can do."""
    other = args.use_vllm or args.use_transformers_continuous_batching or args.fsdp or args.deepspeed
    shaped = args.repetition_penalty != 1.0 or args.min_p is not None or args.generation_kwargs
    return not (other or shaped)


def can_share_trunk(model: PreTrainedModel, args: GRPOConfig) -> bool:
    """Whether all that a block reads of earlier ones is their hidden states, with no trained tokens before the prompt."""
    config = model.config.get_text_config()
    reentrant = args.gradient_checkpointing and (args.gradient_checkpointing_kwargs or {}).get("use_reentrant")
    return not (reentrant or getattr(config, "num_kv_shared_layers", 0) or has_trained_prompt(model))


@contextmanager
def weights_as_they_are(model: PreTrainedModel) -> Iterator[None]:
    """Inside, nobody turns the weights into another type; TRL's continuous batching would, and small steps would be lost."""
    with patch.object(model, "to", lambda *_, **__: model):
        yield


@contextmanager
def hidden_beta(args: GRPOConfig) -> Iterator[None]:
    """TRL makes no reference model where beta is 0."""
    beta, args.beta = args.beta, 0.0
    try:
        yield
    finally:
        args.beta = beta


@contextmanager
def lean_head(model: PreTrainedModel) -> Iterator[None]:
    """Inside, TRL's fused head scores only completion tokens and takes tiles no wider than the vocabulary, as on a GPU.

    It reads both decisions from its module; elsewhere than on a GPU a tile of the smallest model
    would take 512 MiB.
    """
    width = min(trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE, model.config.get_text_config().vocab_size)
    with (
        patch.object(trl.trainer.utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", width),
        patch.object(trl.trainer.utils, "_use_triton", lambda device: True),
    ):
        yield
