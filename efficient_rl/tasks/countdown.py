"""Countdown: combine all given numbers with + - * / to reach a target; every problem is built from a solution."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from efficient_rl.tasks.problem import Problem, Split, distinct

PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}


@dataclass(frozen=True)
class Countdown:
    """The game of TinyZero (https://github.com/Jiayi-Pan/TinyZero), difficulty = how many numbers.

    `operands` lists the difficulties to draw from, evenly; numbers lie in 1..`max_number`, targets in 1..`max_target`.
    All steps of the solution that a problem is built from stay in the positive integers.
    """

    operands: Sequence[int] = (3,)
    max_number: int = 20
    max_target: int = 100

    def __post_init__(self) -> None:
        object.__setattr__(self, "operands", tuple(self.operands))
        if not self.operands or not all(2 <= n <= 6 for n in self.operands):
            raise ValueError(f"task.operands={list(self.operands)} must list numbers from 2 to 6")
        if self.max_number < 2:
            raise ValueError(f"task.max_number={self.max_number} must be at least 2")
        if self.max_target < 2:
            raise ValueError(f"task.max_target={self.max_target} must be at least 2")

    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        """`count` distinct problems of one split; the same numbers in another order are the same problem."""
        return distinct(self._draw, split, count, seed)

    def _draw(self, random: Random) -> Problem:
        operands = random.choice(self.operands)
        while True:
            numbers = [random.randint(1, self.max_number) for _ in range(operands)]
            solved = _combine(numbers, random, self.max_target)
            if solved is not None:
                return _problem(numbers, *solved)


def _combine(numbers: Sequence[int], random: Random, max_target: int) -> tuple[int, str, tuple[str, ...]] | None:
    """Combine all numbers at random; target, expression and steps, or None where the target lies out of range."""
    terms = [(number, str(number), 3) for number in numbers]
    steps = []
    while len(terms) > 1:
        left = terms.pop(random.randrange(len(terms)))
        right = terms.pop(random.randrange(len(terms)))
        value, operator = _operate(left[0], right[0], random)
        if operator in "+*" and left[0] < right[0]:
            left, right = right, left
        terms.append((value, _join(left, operator, right), PRECEDENCE[operator]))
        steps.append(f"{left[0]}{operator}{right[0]}={value}")
    target, expression, _ = terms[0]
    return (target, expression, tuple(steps)) if target <= max_target else None


def _operate(left: int, right: int, random: Random) -> tuple[int, str]:
    """A random operator whose result is a positive integer."""
    choices = [(left + right, "+"), (left * right, "*")]
    if left > right:
        choices.append((left - right, "-"))
    if left % right == 0:
        choices.append((left // right, "/"))
    return random.choice(choices)


def _join(left: tuple[int, str, int], operator: str, right: tuple[int, str, int]) -> str:
    """The expression with no more parentheses than it needs."""
    level = PRECEDENCE[operator]
    first = f"({left[1]})" if left[2] < level else left[1]
    loose = right[2] < level or (right[2] == level and operator in "-/")
    return f"{first}{operator}({right[1]})" if loose else f"{first}{operator}{right[1]}"


def _problem(numbers: Sequence[int], target: int, solution: str, steps: tuple[str, ...]) -> Problem:
    listed = ",".join(map(str, numbers))
    return Problem(
        question=(
            f"Using all of the numbers {listed.replace(',', ', ')}, each exactly once, and the operations + - * /, "
            f"write an expression that equals {target}."
        ),
        symbols=f"{listed}={target}:",
        check="countdown",
        gold={"numbers": list(numbers), "target": target},
        difficulty=float(len(numbers)),
        source="countdown",
        key=f"countdown {sorted(numbers)} {target}",
        steps=steps,
        solution=solution,
    )
