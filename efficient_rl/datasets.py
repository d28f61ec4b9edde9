"""The problems of one run: training and held-out ones, without overlap."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from textwrap import shorten

from efficient_rl.config.run_config import RunConfig
from efficient_rl.errors import ConfigError
from efficient_rl.tasks.contamination import Leaks, decontaminated
from efficient_rl.tasks.datasets import Table
from efficient_rl.tasks.problem import Problem, Task

logger = logging.getLogger(__name__)
HELD_OUT_SEED = 20_000_003  # the held-out problems are the same for every run of a task
VALIDATION_SEED = 40_000_003  # and the problems that settings are chosen on
SEEDS = {"test": HELD_OUT_SEED, "validation": VALIDATION_SEED}
ALL = 0  # of a table
MOST_TYPICAL = 4096
EXAMPLES_SEED = 30_000_001  # and so are the solved examples of few-shot prompts


@dataclass(frozen=True)
class Problems:
    """`eval_sets` has the run's own task first, under its name, then further evaluation sets.

    With `eval.split=validation` they are not of the held-out sides but of the training sides, and
    not trained on. `contaminated` counts the training problems that were left out because an
    evaluation set holds them, or eight of their words in a row. `examples` are solved problems for
    the prompt, from the training side.
    """

    train: Sequence[Problem]
    eval_sets: Mapping[str, Sequence[Problem]]
    examples: Sequence[Problem]
    contaminated: int


def load_splits(config: RunConfig) -> Problems:
    """All problems of a run; ConfigError for a task with too few, or too few left to train on."""
    tasks, own, shots = _tasks(config), config.task.name, config.prompt.shots
    solved: list[Problem] = []
    try:
        eval_sets = {name: _eval_split(task, config) for name, task in tasks.items()}
        train = tasks[own].problems("train", config.grpo.train_problems, config.seed)
        if shots:
            solved = tasks[own].problems("train", 2 * shots, EXAMPLES_SEED)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    typical = _typical(tasks[own], train)
    chosen = list(chain.from_iterable(eval_sets.values()))
    reserved = list(chain.from_iterable(map(_whole, tasks.values())))  # also what this run does not measure
    if config.eval.split == "validation":
        leaks = Leaks(typical, chosen)
        train, solved = leaks.split(train)[0], leaks.split(solved)[0]
    else:
        reserved += chosen
    leaks = Leaks(typical, reserved)
    kept, dropped = leaks.split(train)
    _report(leaks, dropped, len(train))
    examples = leaks.split(solved)[0][:shots]
    shown = {problem.key for problem in examples}
    kept = [problem for problem in kept if problem.key not in shown]
    if len(examples) < shots:
        few = f"{len(examples)} of {2 * shots} examples are in no evaluation set"
        raise ConfigError(f"prompt.shots={shots}, but only {few}")
    if not kept:
        raise ConfigError(
            f"all {len(train)} training problems of task={own} are in an evaluation set or the prompt; use other sets"
        )
    return Problems(kept, eval_sets, examples, len(dropped))


def _tasks(config: RunConfig) -> dict[str, Task]:
    """The run's own task first, then those of further evaluation sets."""
    own = config.task.name
    tasks: dict[str, Task] = {own: config.task.build()}
    for part in config.eval.sets:
        if part.name != own:
            tasks[part.name] = part.build()
        elif part != config.task:
            raise ConfigError(
                f"eval.sets has another {own!r} than task; map it to a name of its own: eval.sets={{other: ...}}"
            )
    return tasks


def _report(leaks: Leaks, dropped: Sequence[Problem], train: int) -> None:
    """Log which training problems are left out; ConfigError if they are more than half."""
    if leaks.boilerplate:
        passage, count = max(leaks.boilerplate.items(), key=itemgetter(1))
        logger.info("%d questions share %r; such boilerplate does not count as a leak", count, passage)
    if not dropped:
        return
    passage = shorten(leaks.find(dropped[0]) or "", 120)
    said = f"{len(dropped)} of {train} training problems share a passage with an evaluation set, such as {passage!r}"
    if 2 * len(dropped) > train:
        raise ConfigError(
            f"{said}; more than half must not go: evaluate on other problems (task.held_out, eval.sets), or move "
            "what questions share into prompt.template"
        )
    logger.warning("%s; they are left out", said)


def evaluation_seed(split: str) -> int:
    """The seed that the problems of an evaluation split are drawn with."""
    return SEEDS[split]


def _eval_split(task: Task, config: RunConfig) -> Sequence[Problem]:
    """The evaluation problems of a task: of its held-out side, for validation of its training side.

    Problems for validation share no passage with any for the test.
    """
    count, seed = config.eval.problems, evaluation_seed(config.eval.split)
    if config.eval.split == "test":
        return task.problems("held_out", count, seed)
    drawn = task.problems("train", ALL if isinstance(task, Table) else count, seed)[: 2 * count]
    found = decontaminated(drawn, _whole(task))[0][:count]
    if len(found) < count:
        raise ValueError(f"eval.problems={count}, but only {len(found)} can be kept for validation; use at most as many")
    return found


def _typical(task: Task, train: Sequence[Problem]) -> Sequence[Problem]:
    """Training problems that show what is boilerplate: more of a table than a run draws from."""
    whole = task.problems("train", ALL, EXAMPLES_SEED) if isinstance(task, Table) else []
    return max(train, whole[:MOST_TYPICAL], key=len)


def _whole(task: Task) -> Sequence[Problem]:
    """The whole held-out side of a table; nothing of a generator, whose sides never share a key."""
    return task.problems("held_out", ALL, HELD_OUT_SEED) if isinstance(task, Table) else []
