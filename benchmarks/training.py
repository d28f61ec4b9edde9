"""One training step, ours against stock TRL: same process, model, tokens and seed; and every strategy against full training."""

import gc
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, Qwen2Config, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from efficient_rl.strategies.protocol import Strategy
from efficient_rl.training.grpo import EfficientGRPOTrainer, Savings
from efficient_rl.training.memory import PhaseMeter

Tokens = Callable[[int], list[int]]


@dataclass(frozen=True)
class Case:
    """A model and a batch: what both trainers work on."""

    folder: Path
    rows: int
    prompt_tokens: int
    completion_tokens: int
    stops: bool  # whether completions end at the stop token; else all are as long as they may be
    settings: Mapping[str, Any]


class _Timed:
    """Seconds of generation, of the backward pass and of the whole step, by step."""

    accelerator: Any

    def start_clock(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._backward_seconds = self._generation_seconds = 0.0
        original = self.accelerator.backward

        def backward(*arguments: Any, **keywords: Any) -> None:
            with _clock() as taken:
                original(*arguments, **keywords)
            self._backward_seconds += taken[0]

        self.accelerator.backward = backward
        self.add_callback(_Steps(self))  # type: ignore[attr-defined]

    def _generate_single_turn(self, *arguments: Any, **keywords: Any) -> Any:
        with _clock() as taken:
            completions = super()._generate_single_turn(*arguments, **keywords)  # type: ignore[misc]
        self._generation_seconds += taken[0]
        return completions

    def begin(self) -> None:
        self._backward_seconds = self._generation_seconds = 0.0
        self._started = _now()

    def end(self) -> None:
        step = _now() - self._started
        self.seconds["step"].append(step)
        self.seconds["backward"].append(self._backward_seconds)
        self.seconds["generation"].append(self._generation_seconds)
        self.seconds["after generation"].append(step - self._generation_seconds)


class _Steps(TrainerCallback):
    def __init__(self, trainer: _Timed) -> None:
        self._trainer = trainer

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._trainer.begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._trainer.end()


class Stock(_Timed, GRPOTrainer):
    """TRL's trainer with clocks."""


class Ours(_Timed, EfficientGRPOTrainer):
    """Our trainer with clocks."""


def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """A reward that differs within every group."""
    return [
        sum(token % 7 == 0 for token in ids) / len(ids) + len(ids) % 3 / 10 + index % 2
        for index, ids in enumerate(completion_ids)
    ]


@contextmanager
def _clock() -> Iterator[list[float]]:
    taken = [0.0]
    started = _now()
    yield taken
    taken[0] = _now() - started


def _now() -> float:
    """Seconds: of this process's CPU where the work is on it (the machine is shared), of the clock on a GPU."""
    _synchronize()
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def countdown_reward(completions: list[str], **_: Any) -> list[float]:
    """Stands in for a rule-based reward: many groups earn the same throughout."""
    return [float("</answer>" in text) for text in completions]


def make_model(folder: Path, **shape: Any) -> Path:
    """A random model with nano's tokenizer, saved so that a reference can be loaded from it."""
    tokenizer = nano_tokenizer()
    torch.manual_seed(0)
    config = Qwen2Config(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **shape)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def nano_folder() -> Path:
    """The embedded model."""
    import efficient_rl.nano

    return Path(efficient_rl.nano.__file__).parent / "model"


def nano_tokenizer() -> PreTrainedTokenizerBase:
    """The embedded model's tokenizer."""
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(nano_folder(), padding_side="left")
    return tokenizer


def load(case: Case) -> PreTrainedModel:
    """The case's model in float32, as both trainers get it."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(case.folder, dtype=torch.float32)
    return model


def prompts(case: Case) -> Dataset:
    """Prompts of digits and signs, all of the same number of tokens."""
    random = Random(0)
    rows = [{"prompt": "".join(random.choice("123456789+-*=") for _ in range(case.prompt_tokens))} for _ in range(64)]
    if case.stops:  # nano answers what it was made for
        from efficient_rl.models import load_tokenizer, write_prompt
        from tests.conftest import tiny_run

        run = tiny_run()
        tokenizer = load_tokenizer(run.model)
        rows = [{"prompt": write_prompt(p, tokenizer, run.model)} for p in run.task.build().problems("train", 64, 0)]
    return Dataset.from_list(rows)


def arguments(case: Case, steps: int, **settings: Any) -> GRPOConfig:
    """TRL's configuration; nothing is saved or reported."""
    return GRPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=case.rows, num_generations=8, max_steps=steps,
        max_completion_length=case.completion_tokens, learning_rate=1e-5, logging_steps=1, report_to=[], disable_tqdm=True,
        save_strategy="no", use_cpu=not torch.cuda.is_available(), seed=1, **(dict(case.settings) | settings),
    )  # fmt: skip


def stock(case: Case, freeze: Callable[[PreTrainedModel], PreTrainedModel], steps: int, **settings: Any) -> Stock:
    """TRL's trainer on a model that was frozen by hand."""
    trainer = Stock(freeze(load(case)), reward, arguments(case, steps, **settings), train_dataset=prompts(case),
                    processing_class=nano_tokenizer())  # fmt: skip
    return _endless(trainer, case)


def ours(case: Case, strategy: Strategy, steps: int, savings: Savings | None = None, **settings: Any) -> Ours:
    """Our trainer."""
    trainer = Ours(load(case), reward, arguments(case, steps, **settings), train_dataset=prompts(case),
                   processing_class=nano_tokenizer(), strategy=strategy, savings=savings, meter=PhaseMeter(count_bytes=False))  # fmt: skip
    return _endless(trainer, case)


def _endless(trainer: Any, case: Case) -> Any:
    if not case.stops:
        trainer.eos_token_ids = [10**6]
        trainer.generation_config.eos_token_id = [10**6]
    return trainer


def compare(makers: Mapping[str, Callable[[int], Any]], steps: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of each trainer, their steps in alternating rounds; the first step of a round only warms up."""
    seconds: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in makers}
    for _ in range(rounds):
        for name, make in makers.items():
            trainer = make(steps + 1)
            trainer.start_clock()
            trainer.train()
            skip = max(1, trainer.num_iterations)
            for what, values in trainer.seconds.items():
                seconds[name][what] += values[skip:]
            del trainer
            gc.collect()
    return {name: {what: statistics.median(values) for what, values in of.items()} for name, of in seconds.items()}
