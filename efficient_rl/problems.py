"""The problems of one run: those to train on, those to be measured on, and none on both sides."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from efficient_rl.compose import ConfigError
from efficient_rl.config import RunConfig
from efficient_rl.tasks.contamination import decontaminated
from efficient_rl.tasks.datasets import Table
from efficient_rl.tasks.problem import Problem, Task

logger = logging.getLogger(__name__)
HELD_OUT_SEED = 20_000_003  # the held-out problems are the same for every run of a task
ALL = 0  # of a table
EXAMPLES_SEED = 30_000_001  # and so are the solved examples of few-shot prompts


@dataclass(frozen=True)
class Problems:
    """`held_out` has the run's own task first, under the task's name, then the further evaluation sets.

    `contaminated` counts the training problems that were left out because an evaluation set holds them, or eight of their
    words in a row. `examples` are solved problems for the prompt, from the training side.
    """

    train: Sequence[Problem]
    held_out: Mapping[str, Sequence[Problem]]
    examples: Sequence[Problem]
    contaminated: int


def load_problems(config: RunConfig) -> Problems:
    """All problems of a run; ConfigError where a task cannot give as many, or nothing is left to train on."""
    own = config.task.name
    for part in config.eval.sets:
        if part.name == own and part != config.task:
            raise ConfigError(
                f"eval.sets has another {own!r} than task; map it to a name of its own: eval.sets={{other: ...}}"
            )
    tasks: dict[str, Task] = {part.name: part.build() for part in (*config.eval.sets, config.task)}
    try:
        held_out = {
            name: tasks[name].problems("held_out", config.eval.problems, HELD_OUT_SEED)
            for name in (own, *(name for name in tasks if name != own))
        }
        train = tasks[own].problems("train", config.grpo.train_problems, config.seed)
        shots = config.prompt.shots
        solved = tasks[own].problems("train", 2 * shots, EXAMPLES_SEED) if shots else []
    except ValueError as error:
        raise ConfigError(str(error)) from error
    tables = [task for task in tasks.values() if isinstance(task, Table)]
    whole = [task.problems("held_out", ALL, HELD_OUT_SEED) for task in tables]  # also what this run does not measure
    measured = [problem for problems in (*held_out.values(), *whole) for problem in problems]
    kept, dropped = decontaminated(train, measured)
    if dropped:
        logger.warning("%d of %d training problems are in an evaluation set; they are left out", len(dropped), len(train))
    examples = decontaminated(solved, measured)[0][:shots]
    shown = {problem.key for problem in examples}
    kept = [problem for problem in kept if problem.key not in shown]
    if len(examples) < shots:
        raise ConfigError(f"prompt.shots={shots}, but only {len(examples)} of {2 * shots} examples are in no evaluation set")
    if not kept:
        raise ConfigError(
            f"all {len(train)} training problems of task={own} are in an evaluation set or the prompt; use other sets"
        )
    return Problems(kept, held_out, examples, len(dropped))
