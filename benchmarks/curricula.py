"""What a curriculum costs a training step: draw, observe, beliefs, and a checkpoint of its state every 25 steps.

python -m benchmarks.curricula --problems 100000
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import write_result
from efficient_rl.config.compose import expand
from efficient_rl.config.options import group_options
from efficient_rl.config.run_config import parse_run
from efficient_rl.curricula.protocol import Curriculum

GROUPS, COMPLETIONS = 16, 8  # of a nano step
CHECKPOINT_STEPS = 25
STEP_SECONDS = 0.45  # of a nano step of 128 completions on one core
POOLS = {
    "five levels": lambda random: float(random.randint(2, 6)),
    "all different": lambda random: random.random(),
}


def pool_of(kind: str, problems: int) -> list[float]:
    """The difficulties of a pool."""
    random = Random(f"pool {kind}")
    return [POOLS[kind](random) for _ in range(problems)]


def rewards_of(count: int, random: Random) -> list[list[float]]:
    """TinyZero's values, as often as a problem of some difficulty would earn them."""
    chances = [random.random() ** 2 for _ in range(count)]
    return [[1.0 if random.random() < chance else 0.1 for _ in range(COMPLETIONS)] for chance in chances]


def measure(option: str, difficulties: Sequence[float], steps: int) -> dict[str, Any]:
    """CPU seconds of beginning, of every step, and of a state in which every problem was visited that can be."""
    curriculum: Curriculum = parse_run(expand([f"curriculum={option}"])[0]).curriculum.build()
    random = Random(option)
    started = time.process_time()
    curriculum.begin(difficulties, 0, steps)
    begin = time.process_time() - started
    taken = [one_step(curriculum, step, rewards_of(GROUPS, random)) for step in range(steps)]
    state = json.dumps(curriculum.state_dict())
    visit_all(curriculum, len(difficulties), steps, random)
    started = time.process_time()
    full = json.dumps(curriculum.state_dict())
    full_seconds = time.process_time() - started
    return {
        "begin_seconds": begin,
        "step_milliseconds": {
            "median": 1e3 * statistics.median(taken),
            "mean": 1e3 * statistics.fmean(taken),
            "worst": 1e3 * max(taken),
        },
        "share_of_a_step": statistics.fmean(taken) / STEP_SECONDS,
        "state_bytes": len(state),
        "state_bytes_all_visited": len(full),
        "state_milliseconds_all_visited": 1e3 * full_seconds,
        "share_of_a_step_all_visited": (statistics.median(taken) + full_seconds / CHECKPOINT_STEPS) / STEP_SECONDS,
    }


def one_step(curriculum: Curriculum, step: int, rewards: list[list[float]]) -> float:
    """CPU seconds of all that a training step asks of the curriculum."""
    started = time.process_time()
    indices = curriculum.draw(GROUPS, step)
    curriculum.observe(indices, rewards, step)
    curriculum.beliefs()
    if (step + 1) % CHECKPOINT_STEPS == 0:
        json.dumps(curriculum.state_dict())
    return time.process_time() - started


def visit_all(curriculum: Curriculum, problems: int, steps: int, random: Random) -> None:
    """Let the curriculum see a group of every problem, as after a very long training."""
    for start in range(0, problems, 1000):
        curriculum.draw(1000, steps - 1)
        indices = range(start, min(start + 1000, problems))
        curriculum.observe(indices, rewards_of(len(indices), random), steps - 1)


def table(measured: dict[str, dict[str, Any]], kind: str) -> Table:
    """One row a curriculum."""
    rows = Table(title=f"milliseconds of a step, {kind}", title_justify="left")
    for column in ("curriculum", "begin s", "median", "mean", "worst", "share of a step", "state kB", "kB, all visited"):
        rows.add_column(column, justify="left" if column == "curriculum" else "right")
    for option, found in measured.items():
        step = found["step_milliseconds"]
        rows.add_row(
            option,
            f"{found['begin_seconds']:.2f}",
            *(f"{step[name]:.2f}" for name in ("median", "mean", "worst")),
            f"{found['share_of_a_step']:.2%}",
            f"{found['state_bytes'] / 1e3:.1f}",
            f"{found['state_bytes_all_visited'] / 1e3:.1f}",
        )
    return rows


def main() -> None:
    """Measure, write the JSON, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "curricula.json")
    arguments = parser.parse_args()
    console = Console()
    found: dict[str, dict[str, Any]] = {}
    for kind in POOLS:
        difficulties = pool_of(kind, arguments.problems)
        found[kind] = {option: measure(option, difficulties, arguments.steps) for option in group_options()["curriculum"]}
        console.print(table(found[kind], kind))
    settings = {"problems": arguments.problems, "steps": arguments.steps, "nano_step_seconds": STEP_SECONDS}
    write_result(arguments.output, str(__doc__), settings | {"pools": found})


if __name__ == "__main__":
    main()
