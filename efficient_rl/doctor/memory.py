"""Estimates a run's memory from the model's configuration and the strategy, and finds the first change that makes it fit.

Weights, gradients, optimizer state and reference are counted exactly, on a model without storage to which the strategy was
applied. Activations are those that autograd keeps of a Llama-like block; benchmarks/results/doctor.json says how far off.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from efficient_rl.config import RunConfig
from efficient_rl.doctor.finding import Finding, ok
from efficient_rl.strategies.protocol import Strategy

PROMPT_TOKENS = 128  # where the tokenizer is not asked
BYTES = {"auto": 4, "float32": 4, "bfloat16": 2, "float16": 2}
ADAM_STATES = 2
HEADROOM = 0.9  # the allocator's fragments, CUDA's own context


@dataclass(frozen=True)
class Shape:
    """What the estimate needs of a model: its sizes, and how many blocks the backward pass walks through."""

    total: int
    trainable: int
    backward_blocks: int
    blocks: int
    hidden: int
    inner: int
    key_value: int  # width of keys, and of values
    vocabulary: int


@dataclass(frozen=True)
class Need:
    """Bytes by what holds them; `activations` and `logits` of the largest pass, `cache` while sampling."""

    parameters: int
    gradients: int
    optimizer_state: int
    reference: int
    activations: int
    logits: int
    cache: int

    @property
    def peak(self) -> int:
        """The larger of the two phases that can be the peak: sampling, and the backward pass."""
        held = self.parameters + self.optimizer_state + self.reference
        return held + max(self.cache, self.gradients + self.activations + self.logits)

    def __str__(self) -> str:
        named = (f"{name.replace('_', ' ')} {size / 2**30:.2f}" for name, size in vars(self).items() if size)
        return f"{self.peak / 2**30:.2f} GiB ({', '.join(named)})"


def shape_of(run: RunConfig) -> Shape:
    """The shape of a run's model under its strategy, without its weights; OSError where its configuration cannot be had."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from efficient_rl.strategies.blocks import names_by_block

    extra = {"gguf_file": run.model.gguf_file} if run.model.gguf_file else {}
    config = AutoConfig.from_pretrained(str(run.model.folder or run.model.path), **extra)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        blocks = [set(names) for names in names_by_block(model)]
        total = sum(p.numel() for p in model.parameters())
        strategy: Strategy = run.strategy.build()
        model = strategy.apply(model)
    text = config.get_text_config()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    lowest = next((index for index, names in enumerate(blocks) if _touches(names, trained)), len(blocks))
    if any("embed" in name for name in trained):
        lowest = 0
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Shape(
        total=sum(p.numel() for p in model.parameters()) or total,
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        backward_blocks=len(blocks) - lowest,
        blocks=len(blocks),
        hidden=text.hidden_size,
        inner=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        key_value=heads * width,
        vocabulary=text.vocab_size,
    )


def _touches(block: set[str], trained: set[str]) -> bool:
    """Whether something in the block trains; adapters put their names inside or around those of the block."""
    stems = {name.rsplit(".", 1)[0] for name in block}
    return any(stem in name for name in trained for stem in stems)


def need(run: RunConfig, shape: Shape, prompt_tokens: int = PROMPT_TOKENS) -> Need:
    """The bytes that a run holds at most, by what holds them."""
    grpo, size = run.grpo, BYTES[run.model.dtype]
    rows = grpo.per_device_train_batch_size
    batch = rows * grpo.gradient_accumulation_steps
    tokens = prompt_tokens + grpo.max_completion_length
    block = 8 * shape.hidden + 2 * shape.key_value + 4 * shape.inner  # numbers that autograd keeps of a token in a block
    kept = shape.hidden * shape.backward_blocks + block if grpo.gradient_checkpointing else block * shape.backward_blocks
    return Need(
        parameters=shape.total * size,
        gradients=shape.trainable * size,
        optimizer_state=shape.trainable * size * ADAM_STATES,
        reference=shape.trainable * size if grpo.beta else 0,
        activations=rows * tokens * kept * size,
        logits=2 * 4 * rows * grpo.max_completion_length * shape.vocabulary,
        cache=batch * tokens * 2 * shape.key_value * shape.blocks * size + 2 * 4 * batch * shape.vocabulary,
    )


def first_fit(run: RunConfig, shape: Shape, available_bytes: int, prompt_tokens: int = PROMPT_TOKENS) -> str | None:
    """The overrides of the fewest changes with which the run fits, in the order of `changes`; None where none do."""
    changed, overrides = run, dict[str, object]()
    for values in changes(run):
        changed = replace(changed, grpo=replace(changed.grpo, **values))
        overrides |= values
        if need(changed, shape, prompt_tokens).peak <= available_bytes * HEADROOM:
            return " ".join(f"grpo.{name}={str(value).lower()}" for name, value in overrides.items())
    return None


def changes(run: RunConfig) -> Iterator[dict[str, Any]]:
    """Changes of GRPO's settings in the order in which they hurt least: what only costs time comes first."""
    rows, steps = run.grpo.per_device_train_batch_size, run.grpo.gradient_accumulation_steps
    while rows % 2 == 0:
        rows, steps = rows // 2, 2 * steps
        yield {"per_device_train_batch_size": rows, "gradient_accumulation_steps": steps}
    if not run.grpo.gradient_checkpointing:
        yield {"gradient_checkpointing": True}
    if run.grpo.beta:
        yield {"beta": 0.0}
    for halvings in (1, 2, 3):
        yield {"max_completion_length": max(1, run.grpo.max_completion_length >> halvings)}


def check_memory(run: RunConfig, shape: Shape, available_bytes: int | None, where: str) -> list[Finding]:
    """Whether the run fits into what there is; None: nobody here can see what there is."""
    wanted = need(run, shape)
    name = f"model={run.model.name} strategy={run.strategy.name}"
    if available_bytes is None:
        return [ok("memory", f"{name} needs about {wanted}; {where} cannot be seen from here")]
    if wanted.peak <= available_bytes * HEADROOM:
        return [ok("memory", f"{name} needs about {wanted} of {available_bytes / 2**30:.1f} GiB {where}")]
    change = first_fit(run, shape, available_bytes)
    remedy = change or "a smaller model (model=...), or strategy=lora or last_k, which keep no optimizer state of the rest"
    what = f"{name} needs about {wanted}, and {where} has {available_bytes / 2**30:.1f} GiB"
    return [Finding("failure", "memory", what, "the run dies of it, perhaps only after an hour", remedy)]
