"""Checks with torch, on models without weights: strategies, prompts, imports of rewards."""

from collections.abc import Iterator

from efficient_rl.config.run_config import RunConfig
from efficient_rl.datasets import HELD_OUT_SEED
from efficient_rl.errors import ConfigError, first_line
from efficient_rl.models import load_tokenizer
from efficient_rl.preflight.checks import check_splits, data_key, in_words, is_quick, names_dataset
from efficient_rl.preflight.dry_step import shaped_model
from efficient_rl.preflight.faults import ERRORS, Check, Key
from efficient_rl.preflight.hub import is_here
from efficient_rl.prompts import Prompts
from efficient_rl.rewards.external import Imported
from efficient_rl.strategies.protocol import AdamSettings
from efficient_rl.training.settings import split_batch

PROBLEMS = 32  # whose prompts are encoded


def model_checks(processes: int) -> list[tuple[Key, Check]]:
    """All of them, each with what its verdict depends on; `processes` train a run together."""
    return [
        (_batch_key, lambda run: check_batch(run, processes)),
        (lambda run: (run.model, run.strategy, run.grpo.max_steps), check_strategy),
        (lambda run: (run.model, run.prompt, run.task, run.grpo.max_completion_length), check_prompts),
        (lambda run: run.reward, check_imports),
        (data_key, check_slow_problems),
    ]


def check_batch(run: RunConfig, processes: int) -> Iterator[str]:
    """The processes of a run can share its batch."""
    try:
        split_batch(run.grpo, processes, 1)
    except ConfigError as error:
        yield str(error)


def _batch_key(run: RunConfig) -> object:
    grpo = run.grpo
    return grpo.per_device_train_batch_size, grpo.gradient_accumulation_steps, grpo.num_generations, grpo.loss_type


def check_strategy(run: RunConfig) -> Iterator[str]:
    """The model's parts that the strategy names are there, and something trains."""
    if not is_here(run.model):
        return
    name = f"strategy={run.strategy.name} on model={run.model.name}"
    try:
        strategy = run.strategy.build()
        model = strategy.apply(shaped_model(run.model))
        if not any(parameter.requires_grad for parameter in model.parameters()):
            yield f"{name} trains no parameter; use another strategy"
        strategy.schedule(model, run.seed, run.grpo.max_steps)
        strategy.optimizer(model, AdamSettings(run.grpo.learning_rate))
    except ImportError as error:
        yield f"{name}: {first_line(error)}"
    except ValueError as error:
        yield f"{name}: {error}"
    except (OSError, RuntimeError):
        return  # it looks at the weights themselves, which are not loaded here


def check_prompts(run: RunConfig) -> Iterator[str]:
    """The tokenizer writes the prompts of the task's problems, within what the model reads."""
    if names_dataset(run.task.arguments) or not is_here(run.model):
        return
    try:
        problems = run.task.build().problems("held_out", min(PROBLEMS, run.eval.problems), HELD_OUT_SEED)
    except ERRORS:
        return  # check_splits says it
    try:
        prompts = Prompts(run.model, run.prompt, load_tokenizer(run.model), problems)
        encoded = list(map(prompts.encoded, problems))
        prompts.fitting_stop_ids(shaped_model(run.model), encoded, run.grpo.max_completion_length)
    except ERRORS as error:
        yield f"task={run.task.name} on model={run.model.name}: {in_words(error)}"


def check_imports(run: RunConfig) -> Iterator[str]:
    """Functions that the reward names by a path can be imported."""
    for term in run.reward:
        function = term.function.build()
        if isinstance(function, Imported):
            try:
                function.resolve()
            except ERRORS as error:
                yield f"reward={term.function.name}: {in_words(error)}"


def check_slow_problems(run: RunConfig) -> Iterator[str]:
    """As `check_splits`, where that was too slow at planning; not of data sets on the hub."""
    if not (is_quick(run) or any(names_dataset(part.arguments) for part in (run.task, *run.eval.sets))):
        yield from check_splits(run)
