"""Chains of operations on whole numbers, worked from left to right."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import add, mul, sub
from random import Random

from efficient_rl.errors import require
from efficient_rl.tasks.problem import Generated, Problem, below, ranges, subset

OPERATIONS = {"+": add, "-": sub, "*": mul}
WORDS = {"+": "add {}", "-": "subtract {}", "*": "multiply by {}"}


@dataclass(frozen=True)
class Chain(Generated):
    """A number and k operations on it, one after the other; difficulty = k.

    `operations` lists the lengths k to draw from, evenly. Numbers lie in 1..`max_number`, factors
    in 2..`max_factor`; results may be negative. The expression in symbols has the parentheses that
    make it mean the same by precedence.
    """

    operations: Sequence[int] = (1, 2, 3, 4)
    operators: Sequence[str] = ("+", "-", "*")
    max_number: int = 20
    max_factor: int = 9

    def __post_init__(self) -> None:
        object.__setattr__(self, "operations", ranges("operations", self.operations, 1, 20))
        object.__setattr__(self, "operators", subset("operators", self.operators, OPERATIONS))
        for key in ("max_number", "max_factor"):
            value = getattr(self, key)
            require(value >= 2, f"task.{key}", value, "must be at least 2")

    def _draw(self, random: Random) -> Problem:
        length = self.operations[below(random, len(self.operations))]
        value = start = 1 + below(random, self.max_number)
        words, steps, expression, loose = [], [], str(start), False
        for _ in range(length):
            operator = self.operators[below(random, len(self.operators))]
            factor = operator == "*"
            number = 2 + below(random, self.max_factor - 1) if factor else 1 + below(random, self.max_number)
            expression = f"({expression}){operator}{number}" if factor and loose else f"{expression}{operator}{number}"
            loose = not factor
            before, value = value, OPERATIONS[operator](value, number)
            words.append(WORDS[operator].format(number))
            steps.append(f"{before}{operator}{number}={value}")
        return Problem(
            question=f"Start with {start}. {_sentence(words)} What is the result?",
            symbols=f"{expression}:",
            check="number",
            gold={"answer": str(value)},
            difficulty=float(length),
            source="chain",
            key=f"chain {expression}",
            steps=tuple(steps),
            solution=str(value),
        )


def _sentence(words: Sequence[str]) -> str:
    first, rest = words[0].capitalize(), words[1:]
    return ", then ".join((first, *rest)) + "."
