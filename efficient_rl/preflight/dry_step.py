"""Counts the bytes of a training step without doing it, on tensors without contents."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from unittest.mock import patch

import torch
import trl.trainer.utils
from peft import PeftModel
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from trl.trainer.utils import add_fused_lm_head

from efficient_rl.config.run_config import RunConfig
from efficient_rl.config.schema import ModelConfig
from efficient_rl.models import check_kind, load_config
from efficient_rl.preflight.tally import Tally
from efficient_rl.strategies.protocol import Strategy
from efficient_rl.training.arithmetic import narrow_frozen
from efficient_rl.training.merging import merged
from efficient_rl.training.model_setup import can_share_prefixes
from efficient_rl.training.prefixes import Plan, SharedPrefixes, pays
from efficient_rl.training.scoring import PASS_COST_TOKENS
from efficient_rl.training.trunk import COPIES, TrunkCache, frozen_depth

CHOOSING_BYTES = 4 + 8 + 8  # a word's share of drawing a token: by temperature, probabilities and their sums in float64
FIRST_CHOICES = 8  # that are checked of a strategy whose choice changes


@dataclass(frozen=True)
class Load:
    """How much of a run one process does at a time: completions of a pass, passes, samples.

    `group` completions have one prompt; `split`: each process holds a part of the weights.
    """

    rows: int
    passes: int
    sampled: int
    evaluated: int
    prompt: int
    completion: int
    group: int
    checkpointing: bool
    split: bool


@dataclass(frozen=True)
class Step:
    """Bytes of one step: what is held throughout, and the most that each phase adds to it.

    `backward` includes gradients and activations, `sampling` and `evaluating` the cache and merged
    adapters.
    """

    saved: int  # of a checkpoint, beside the optimizer's state
    total_params: int
    trainable_params: int
    parameters: int
    optimizer_state: int
    reference: int
    trunk: int
    gradients: int
    activations: int
    backward: int
    cache: int
    sampling: int
    evaluating: int

    @property
    def held(self) -> int:
        """Bytes alive through all phases."""
        return self.parameters + self.optimizer_state + self.reference + self.trunk

    @property
    def peak(self) -> int:
        return self.held + max(self.backward, self.sampling, self.evaluating)


def dry_step(run: RunConfig, load: Load, autocast: bool) -> Step:
    """The bytes of one step of the run; OSError where the model's configuration is not here.

    Every completion has its full length and an advantage, as in the worst step. NotImplementedError
    (or RuntimeError) for a strategy that looks at the weights themselves.
    """
    with torch.device("meta"):
        causal = shaped_model(run.model)
        bare = _count(causal)
        add_fused_lm_head(causal, run.grpo.temperature, outputs=("log_probs", "entropy"))
        strategy: Strategy = run.strategy.build()
        model = strategy.apply(causal)
        if autocast and run.model.compute != "float32":
            narrow_frozen(model)
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        _give_shapes_only(model)
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        active = _active(run, model, strategy, trainable)
        held = [*model.parameters(), *model.buffers()]
        tally = stack.enter_context(Tally(held))
        if autocast:
            stack.enter_context(torch.autocast("cpu", dtype=torch.bfloat16))
        phases = _phases(model, causal, load, set(active), tally)
    copied, active_bytes = _nbytes(trainable.values()), _nbytes(active.values())
    return Step(
        saved=copied if isinstance(model, PeftModel) else _nbytes(held),
        total_params=max(bare, _count(model)),
        trainable_params=sum(p.numel() for p in trainable.values()),
        parameters=_nbytes(held),
        optimizer_state=2 * active_bytes,
        reference=copied if run.grpo.beta else 0,
        trunk=_trunk_bytes(run, model, set(trainable), load),
        gradients=active_bytes,
        **phases,
    )


def _count(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _nbytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _phases(model: PreTrainedModel, causal: PreTrainedModel, load: Load, active: set[str], tally: Tally) -> dict[str, int]:
    """What training, sampling and evaluation add to what is held."""
    model.train()
    activations, backward = _backward(model, causal, load, active, tally)
    cache = sampling = 0
    merge = nullcontext() if torch.is_autocast_enabled("cpu") else merged(model)
    with torch.no_grad(), merge:
        model.eval()
        if load.sampled:
            cache, sampling = _sampling(model, load, load.sampled, tally)
        evaluating = _sampling(model, load, load.evaluated, tally)[1]
    names = ("activations", "backward", "cache", "sampling", "evaluating")
    return dict(zip(names, (activations, backward, cache, sampling, evaluating), strict=True))


def shaped_model(settings: ModelConfig) -> PreTrainedModel:
    """The model without weights, on torch's meta device; OSError where its files are not here."""
    config = _configuration(settings)
    dtype = torch.float32 if settings.dtype == "auto" else getattr(torch, settings.dtype)
    check_kind(config, settings.path)
    attention = "eager" if settings.attn_implementation == "eager" else None  # what the model has
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            copy.deepcopy(config), dtype=dtype, attn_implementation=attention
        )
    with suppress(OSError):  # where the model has none of its own
        model.generation_config = GenerationConfig.from_pretrained(str(settings.folder or settings.path))
    return model


@lru_cache(maxsize=8)
def _configuration(settings: ModelConfig) -> Any:
    if settings.gguf_file is not None:
        return load_config(settings)
    return AutoConfig.from_pretrained(str(settings.folder or settings.path))


def _give_shapes_only(model: PreTrainedModel) -> None:
    """Put the model on a CPU without memory: operations choose there as on a real one."""
    made: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                shape = torch.empty(parameter.shape, dtype=parameter.dtype)
                made.setdefault(id(parameter), torch.nn.Parameter(shape, parameter.requires_grad))
                module._parameters[name] = made[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def _active(run: RunConfig, model: PreTrainedModel, strategy: Strategy, trainable: dict[str, Any]) -> dict[str, Any]:
    """The largest of a strategy's first choices, all that trains without a schedule."""
    schedule = strategy.schedule(model, run.seed, run.grpo.max_steps)
    if schedule is None:
        return trainable
    largest: dict[str, Any] = {}
    most = -1
    for step in range(min(FIRST_CHOICES, run.grpo.max_steps)):
        schedule.begin_step(step)
        active = schedule.active
        chosen = {name: p for name, p in trainable.items() if p.requires_grad and name in active}
        size = sum(p.numel() for p in chosen.values())
        if size > most:
            largest, most = chosen, size
    for name, parameter in trainable.items():
        parameter.requires_grad_(name in largest)
    return largest


def _backward(
    model: PreTrainedModel, causal: PreTrainedModel, load: Load, active: set[str], tally: Tally
) -> tuple[int, int]:
    """What forward leaves for backward, and the most that both add to what is held."""
    base = tally.now
    if load.passes > 1:  # what the passes before this one left
        for name, parameter in model.named_parameters():
            parameter.grad = torch.zeros_like(parameter) if name in active else None
    if load.checkpointing:
        causal.gradient_checkpointing_enable({"use_reentrant": False})
    start = tally.now
    tally.since(start)
    with _only_completions(causal, load):
        ids, mask = _tokens(load.rows, load.prompt + load.completion)
        with _prompts_once(model, load, ids, mask):
            output: Any = model(input_ids=ids, attention_mask=mask, labels=ids[:, load.prompt - 1 :], fused_lm_head=True)
        loss = output.log_probs.exp().sum()
        activations = tally.now - start
        loss.backward()
    most = tally.since(base)
    for parameter in model.parameters():
        parameter.grad = None
    if load.checkpointing:
        causal.gradient_checkpointing_disable()
    return activations, most


def _prompts_once(model: PreTrainedModel, load: Load, ids: torch.Tensor, mask: torch.Tensor) -> AbstractContextManager[None]:
    """Each prompt of a pass goes through the model once, where training does that too.

    TRL shuffles a batch before it cuts it into passes: one may have a completion of every group.
    """
    groups = min(load.rows, -(-load.rows * load.passes // load.group))
    if not _shares(model, load, load.rows, groups):
        return nullcontext()
    rows = torch.arange(load.rows)
    plan = Plan(ids[:, : load.prompt], mask[:, : load.prompt], None, 0, rows, rows % groups, rows[:groups])
    return SharedPrefixes(model, plan, TrunkCache(model, 0)).passing(rows)


def _shares(model: PreTrainedModel, load: Load, rows: int, groups: int) -> bool:
    """Whether a pass over some rows computes the prompt of each group once."""
    pays_here = pays(rows, groups, load.prompt, PASS_COST_TOKENS)
    return pays_here and can_share_prefixes(model, load.checkpointing, load.split)


@contextmanager
def _only_completions(causal: PreTrainedModel, load: Load) -> Iterator[None]:
    """The head scores completions only, in tiles no wider than the vocabulary, as in training."""

    def cut(module: Any, inputs: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[:, load.prompt - 1 :]
        return output

    width = min(trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE, causal.config.get_text_config().vocab_size)
    handle = causal.base_model.register_forward_hook(cut)
    try:
        with patch.object(trl.trainer.utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", width):
            yield
    finally:
        handle.remove()


def _sampling(model: PreTrainedModel, load: Load, rows: int, tally: Tally) -> tuple[int, int]:
    """The whole key-value cache, and the most that drawing the last token adds to what is held."""
    start = tally.now
    tokens = load.prompt + load.completion
    ids, mask = _tokens(rows, tokens)
    cache: Any = model(input_ids=ids[:, :-1], attention_mask=mask[:, :-1], use_cache=True, logits_to_keep=1).past_key_values
    size = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    tally.since(start)
    logits = model(
        input_ids=ids[:, -1:],
        attention_mask=mask,
        position_ids=torch.full((rows, 1), tokens - 1),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits.float()
    choosing = tally.now - start + CHOOSING_BYTES * logits.numel()
    return size, max(tally.since(start), choosing)


def _tokens(rows: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, shape (rows, tokens)."""
    return torch.zeros(rows, tokens, dtype=torch.long), torch.ones(rows, tokens, dtype=torch.long)


def _trunk_bytes(run: RunConfig, model: PreTrainedModel, trainable: set[str], load: Load) -> int:
    """Hidden states of the frozen first blocks that several passes share, up to their bound."""
    shared = run.grpo.beta != 0 or run.grpo.num_iterations > 1
    if not shared or not frozen_depth(model, trainable):
        return 0
    width = model.config.get_text_config().hidden_size
    size = 4 if run.model.dtype in ("auto", "float32") else 2
    rows = load.rows * load.passes
    groups = -(-rows // load.group)
    if not _shares(model, load, rows, groups):
        groups = rows
    needed = COPIES * (groups * load.prompt + rows * load.completion) * width * size
    return needed if needed <= run.grpo.trunk_cache_mib << 20 else 0
