"""What the training benchmarks share: our trainer and TRL's with clocks, on the same model, tokens and seed."""

import functools
import gc
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer

from efficient_rl.config.compose import expand
from efficient_rl.config.run_config import parse_run
from efficient_rl.models import load_model, load_tokenizer
from efficient_rl.prompts import Prompts
from efficient_rl.strategies.protocol import Strategy
from efficient_rl.training.grpo import EfficientGRPOTrainer
from efficient_rl.training.memory import PhaseMeter


@dataclass(frozen=True)
class Case:
    """What both trainers work on: how the model is made, the rows of its data set, the rewards, TRL's settings.

    `stops` is false where every completion shall be as long as it may be.
    """

    model: Callable[[], PreTrainedModel]
    rows: Sequence[Mapping[str, Any]]
    rewards: Sequence[Callable[..., list[float]]]
    stops: bool
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


def spread_reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """A reward that differs within every group."""
    return [sum(token % 7 == 0 for token in ids) / len(ids) + index % 2 for index, ids in enumerate(completion_ids)]


def nano_case(rows: int, **settings: Any) -> Case:
    """The embedded model on its own task, with the rewards of the default run."""
    run = parse_run(expand([])[0])
    tokenizer = load_tokenizer(run.model)
    problems = run.task.build().problems("train", 256, 0)
    prompts = Prompts(run.model, run.prompt, tokenizer)
    data = [{"prompt": prompts.write(p), "check": p.check, "gold": json.dumps(p.gold)} for p in problems]
    rewards = [term.function.build() for term in run.reward]
    lengths = {"max_completion_length": run.grpo.max_completion_length, "per_device_train_batch_size": rows}
    weights = {"reward_weights": [term.weight for term in run.reward]}
    return Case(functools.partial(load_model, run.model), data, rewards, True, lengths | weights | settings)


def smollm2_shape(blocks: int = 30, **settings: Any) -> LlamaConfig:
    """The configuration of SmolLM2-135M, or of fewer of its blocks."""
    return LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=blocks, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True, **settings,
    )  # fmt: skip


def random_case(
    config: PretrainedConfig, rows: int, prompt: int, completion: int, dtype: torch.dtype, common: int = 0, **settings: Any
) -> Case:
    """A random model of that shape, saved so that TRL can load it again; prompts and completions of so many tokens.

    All prompts begin with the same `common` tokens.
    """
    folder = tempfile.mkdtemp()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder)
    random = Random(0)
    draw = functools.partial(random.choices, "123456789+-*=")
    beginning = "".join(draw(k=common))
    data = [{"prompt": beginning + "".join(draw(k=prompt - common))} for _ in range(64)]
    lengths = {"max_completion_length": completion, "per_device_train_batch_size": rows}

    def load() -> PreTrainedModel:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        return model.to("cuda") if torch.cuda.is_available() else model

    return Case(load, data, [spread_reward], False, lengths | settings)


def stock(case: Case, freeze: Callable[[PreTrainedModel], PreTrainedModel], steps: int, **settings: Any) -> Stock:
    """TRL's trainer on a model that was frozen by hand."""
    return _made(Stock, case, freeze(case.model()), steps, settings)  # type: ignore[no-any-return]


def ours(case: Case, strategy: Strategy, steps: int, **settings: Any) -> Ours:
    """Our trainer; `optimizations` and `meter` may be among the settings."""
    own = {"strategy": strategy, "optimizations": settings.pop("optimizations", None)}
    own["meter"] = settings.pop("meter", None) or PhaseMeter(count_bytes=False)
    return _made(Ours, case, case.model(), steps, settings, **own)  # type: ignore[no-any-return]


def _made(kind: Any, case: Case, model: PreTrainedModel, steps: int, settings: Mapping[str, Any], **own: Any) -> Any:
    base = {
        "output_dir": tempfile.mkdtemp(), "num_generations": 8, "max_steps": steps, "learning_rate": 1e-5, "report_to": [],
        "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no", "use_cpu": not torch.cuda.is_available(),
        "seed": 1,
    }  # fmt: skip
    trainer = kind(
        model,
        list(case.rewards),
        GRPOConfig(**(base | dict(case.settings) | settings)),
        train_dataset=Dataset.from_list([dict(row) for row in case.rows]),
        processing_class=nano_tokenizer(),
        **own,
    )
    if not case.stops:
        trainer.eos_token_ids = [10**6]
        trainer.generation_config.eos_token_id = [10**6]
    return trainer


def nano_tokenizer() -> PreTrainedTokenizerBase:
    """The embedded model's tokenizer: with random weights one is as good as another."""
    return load_tokenizer(parse_run(expand([])[0]).model)


def compare(makers: Mapping[str, Callable[[int], Any]], steps: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Each trainer's median seconds of a step, by round; the trainers take turns within one, and warm up first.

    With several updates a generation, `steps` counts generations, and a step's seconds are the mean of its period.
    """
    seconds: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in makers}
    for _ in range(rounds):
        for name, make in makers.items():
            trainer = make(steps)
            period = trainer.num_iterations
            trainer.args.max_steps = (steps + 1) * period
            trainer.start_clock()
            trainer.train()
            for what, values in trainer.seconds.items():
                periods = [values[start : start + period] for start in range(period, len(values), period)]
                seconds[name][what].append(statistics.median(statistics.mean(each) for each in periods))
            del trainer
            gc.collect()
    return seconds
