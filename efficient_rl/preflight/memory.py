"""Estimates the memory of a run from the model's shape and the strategy, without torch."""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any

from efficient_rl.config.run_config import RunConfig
from efficient_rl.config.schema import Component
from efficient_rl.datasets import HELD_OUT_SEED
from efficient_rl.preflight.alphabet import read_alphabet
from efficient_rl.preflight.checks import is_quick
from efficient_rl.preflight.faults import ERRORS
from efficient_rl.preflight.shape import read_shape
from efficient_rl.strategies.extent import Extent, Shape
from efficient_rl.strategies.protocol import Strategy

PROCESS_BYTES = 800 << 20  # of a run on a CPU, before its model: Python, torch, TRL, and what they load
FULL_SHARE = 0.7  # of the most tokens that completions take
MIXED_SHARE = 0.8  # of the groups that train, where those without a signal do not
ROWS_EVALUATED = 512
CHARACTERS = 3.5  # a token, of large vocabularies in English
QUESTION, INSTRUCTION, CHAT = 300, 160, 60  # characters of a question that is not read, of what stands around it
PROBLEMS = 8  # that the length of a prompt is taken from
HEAD_COPIES, WITH_KL = 4.15, 8.0  # of the logits of a pass, that the loss and its gradient hold at a time
HEAD_WIDTH = 1 << 15  # words that the head scores at a time
CHOOSING_BYTES = 24  # a word, while a token is drawn
FLOAT = 4


@dataclass(frozen=True)
class Memory:
    """Bytes that a run takes: `training` those of tensors at a step's peak, as results count them.

    `evaluation` is the same in evaluation, `process` the whole process on a CPU.
    """

    training: float
    evaluation: float

    @property
    def process(self) -> float:
        return PROCESS_BYTES + max(self.training, self.evaluation)


def estimate_memory(run: RunConfig) -> Memory | None:
    """What a run probably takes; None where the shape or what trains is not known.

    It expects completions of FULL_SHARE of their greatest length, and without a KL term a signal in
    MIXED_SHARE of the groups, since the others take no backward pass.
    """
    shape = read_shape(run.model)
    if shape is None:
        return None
    strategy: Strategy = run.strategy.build()
    extent = strategy.extent(shape, run.seed, run.grpo.max_steps)
    if extent is None:
        return None
    size = FLOAT if run.model.dtype in ("auto", "float32") else FLOAT // 2
    return _memory(run, shape, extent, size)


def _memory(run: RunConfig, shape: Shape, extent: Extent, size: int) -> Memory:
    grpo = run.grpo
    prompt, completion = prompt_tokens(run), FULL_SHARE * grpo.max_completion_length
    rows = grpo.per_device_train_batch_size * (1.0 if grpo.beta else MIXED_SHARE)
    tokens = rows * (prompt + completion)
    held = size * (shape.parameters + extent.added + extent.moments * extent.active)
    trained = 0 if extent.added else extent.trained
    if grpo.beta:
        held += size * trained
    if run.model.compute == "bfloat16":  # of auto it is not known here
        held -= size / 2 * (shape.parameters - trained)
    if (grpo.beta or grpo.num_iterations > 1) and extent.lowest:
        prompts = rows if grpo.gradient_checkpointing else rows / grpo.num_generations
        own = rows * completion + prompts * prompt
        trunk = 2 * size * own * grpo.gradient_accumulation_steps * shape.hidden
        held += trunk if trunk <= grpo.trunk_cache_mib << 20 else 0
    kept = tokens * _kept(shape, extent, grpo.gradient_checkpointing)
    if not grpo.gradient_checkpointing:
        # Each prompt is computed once a pass, into which a shuffled batch is cut.
        groups = min(rows, rows * grpo.gradient_accumulation_steps / grpo.num_generations)
        own = rows * completion + groups * prompt
        read = 2 * shape.keys * rows * prompt * (shape.blocks - extent.lowest)
        kept = min(kept, own * _kept(shape, extent, checkpointing=False) + read)
    copies = WITH_KL if grpo.beta else HEAD_COPIES
    logits = copies * rows * completion * min(shape.vocabulary, HEAD_WIDTH)
    training = size * (extent.active + kept + logits)
    sampled = grpo.per_device_train_batch_size * grpo.gradient_accumulation_steps
    evaluated = min(ROWS_EVALUATED, run.eval.problems * run.eval.samples)
    merged = size * extent.added and size * shape.blocks * shape.matrices() / 2
    sampling = merged + _sampling(shape, sampled, prompt + completion, size)
    evaluating = merged + _sampling(shape, evaluated, prompt + completion, size)
    return Memory(held + max(training, sampling), held + evaluating)


def _kept(shape: Shape, extent: Extent, checkpointing: bool) -> float:
    """Numbers a token that the forward pass keeps for the backward pass (fitted to real steps)."""
    hidden, inner, keys = shape.hidden, shape.inner, shape.keys
    gated = len(shape.linear) == 7
    passing = 6 * hidden + 1.5 * keys + (3 if gated else 5) * inner
    trained = 10 * hidden + 3 * keys + (4 if gated else 6) * inner
    block = passing + min(1.0, extent.share) * (trained - passing)
    reached = shape.blocks - extent.lowest
    if checkpointing:
        return shape.hidden * reached + block
    return reached * block


def _sampling(shape: Shape, rows: int, tokens: float, size: int) -> float:
    """The key-value cache and the choice of a token, for so many completions at a time."""
    cache = 2 * size * rows * tokens * shape.keys * shape.blocks
    return cache + CHOOSING_BYTES * rows * shape.vocabulary


def prompt_tokens(run: RunConfig) -> int:
    """About how many tokens a prompt has: of some problems, or of a question of usual length."""
    model, prompt = run.model, run.prompt
    in_symbols = prompt.template is None and model.prompt == "symbols"
    around = 0 if in_symbols else CHAT + (len(prompt.template) if prompt.template else INSTRUCTION)
    question = _question(_Task(run.task), in_symbols) if is_quick(run) else QUESTION
    each = 1.0 if read_alphabet(model.folder) is not None else CHARACTERS
    return ceil((around + question * (1 + prompt.shots)) / each)


class _Task:
    """A task as a key of a cache."""

    def __init__(self, component: Component) -> None:
        self.component, self._key = component, repr(component)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, _Task) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@lru_cache(maxsize=64)
def _question(task: _Task, in_symbols: bool) -> int:
    """Characters of the longest of some problems."""
    try:
        problems = task.component.build().problems("held_out", PROBLEMS, HELD_OUT_SEED)
    except ERRORS:
        return QUESTION
    return max(len(problem.symbols if in_symbols else problem.question) for problem in problems)
