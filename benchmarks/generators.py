"""How many problems a second every generator makes on one core, in `problems()` as a whole: drawing, writing, splitting.

python -m benchmarks.generators --count 10000 --repeats 3
"""

import argparse
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import spread, spread_text, write_result
from efficient_rl.tasks.arithmetic import Arithmetic
from efficient_rl.tasks.chain import Chain
from efficient_rl.tasks.contamination import decontaminated
from efficient_rl.tasks.countdown import Countdown
from efficient_rl.tasks.divisors import GCD, LCM
from efficient_rl.tasks.equations import Equations
from efficient_rl.tasks.fractions import Fractions
from efficient_rl.tasks.gym import GENERATORS, ReasoningGym
from efficient_rl.tasks.mixture import Mixture
from efficient_rl.tasks.problem import Problem, Task
from efficient_rl.tasks.tinyzero import Multiplication, TinyZeroCountdown

AT_LEAST = 10_000  # problems a second of countdown and arithmetic
TASKS: dict[str, Task] = {
    "countdown, 3 numbers": Countdown((3,)),
    "countdown, 4 numbers": Countdown((4,)),
    "countdown, 6 numbers": Countdown((6,)),
    "countdown, 6 numbers to 100, targets to 1000": Countdown((6,), 100, 1000),
    "countdown_tinyzero, generated": TinyZeroCountdown(source="generate"),
    "arithmetic, 1 and 2 digits": Arithmetic(),
    "arithmetic, 3 digits": Arithmetic((3,)),
    "multiplication": Multiplication(),
    "chain": Chain(),
    "fractions": Fractions(),
    "equations": Equations((20, 50)),
    "gcd": GCD((500,)),
    "lcm": LCM((500,)),
    "mixture of countdown and arithmetic": Mixture({"a": {"task": Countdown((3, 4))}, "b": {"task": Arithmetic((2, 3))}}),
}
THEIRS = {f"reasoning-gym {name}": ReasoningGym(name) for name in GENERATORS}
BOUNDED = ("countdown", "arithmetic")


def rates(task: Task, count: int, repeats: int) -> dict[str, float]:
    """Problems a CPU second of the training side, each time with a new seed, after a first small request."""
    task.problems("train", 10, repeats)
    found = []
    for seed in range(repeats):
        started = time.process_time()
        problems = task.problems("train", count, seed)
        found.append(len(problems) / (time.process_time() - started))
    return spread(found)


def decontamination(train: int, evaluation: int) -> dict[str, Any]:
    """CPU seconds to compare that many training questions of 40 words with that many evaluation questions."""
    texts = [" ".join(f"w{(i * 31 + j * j) % 9973}" for j in range(40)) for i in range(train + evaluation)]
    written = [
        Problem(text, text, "math", {"answer": "1"}, 1.0, "synthetic", f"text {i}", free_text=True)
        for i, text in enumerate(texts)
    ]
    started = time.process_time()
    decontaminated(written[:train], written[train:])
    return {"train": train, "evaluation": evaluation, "cpu_seconds": time.process_time() - started}


def main() -> None:
    """Measure, write the JSON, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="problems a request; theirs are asked for 1,000")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "generators.json")
    arguments = parser.parse_args()
    found = {name: rates(task, arguments.count, arguments.repeats) for name, task in TASKS.items()}
    found |= {name: rates(task, min(1000, arguments.count), arguments.repeats) for name, task in THEIRS.items()}
    measured = {
        "count": arguments.count,
        "repeats": arguments.repeats,
        "at_least": {name: AT_LEAST for name in found if name.startswith(BOUNDED)},
        "problems_a_second": found,
        "decontamination": decontamination(4 * arguments.count, arguments.count),
    }
    write_result(arguments.output, str(__doc__), measured)
    table = Table("generator", "problems/s", "at least", title="one core: median (min..max)", title_justify="left")
    for name, rate in found.items():
        table.add_row(name, spread_text(rate, 0), f"{measured['at_least'].get(name, '')}")
    console = Console()
    console.print(table)
    console.print(measured["decontamination"], highlight=False)


if __name__ == "__main__":
    main()
