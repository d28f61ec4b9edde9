"""Countdown: reach a target with all given numbers and + - * /, built from a solution."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import add, floordiv, mul, sub
from random import Random

from efficient_rl.errors import require
from efficient_rl.tasks.problem import Generated, Problem, below, ranges

PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}
OPERATIONS = {"+": add, "-": sub, "*": mul, "/": floordiv}
Move = tuple[int, int, str, int]  # places of left and right among the terms that are left, operator, value


@dataclass(frozen=True)
class Countdown(Generated):
    """The game of TinyZero (https://github.com/Jiayi-Pan/TinyZero), difficulty = how many numbers.

    `operands` lists the difficulties to draw from, evenly; numbers lie in 1..`max_number`, targets
    in 1..`max_target`. All steps of the solution that a problem is built from stay in the positive
    integers. The numbers' order makes no other problem.
    """

    operands: Sequence[int] = (3,)
    max_number: int = 20
    max_target: int = 100

    def __post_init__(self) -> None:
        object.__setattr__(self, "operands", ranges("operands", self.operands, 2, 6))
        require(self.max_number >= 2, "task.max_number", self.max_number, "must be at least 2")
        require(self.max_target >= 2, "task.max_target", self.max_target, "must be at least 2")

    def _draw(self, random: Random) -> Problem:
        operands = self.operands[below(random, len(self.operands))]
        while True:
            numbers = [1 + below(random, self.max_number) for _ in range(operands)]
            moves, target = _combine(numbers, random)
            if target <= self.max_target:
                return countdown_problem(numbers, target, *_written(numbers, moves))


def _combine(numbers: Sequence[int], random: Random) -> tuple[list[Move], int]:
    """Combine all numbers at random in the positive integers: the moves, and the target."""
    values, moves = list(numbers), []
    while len(values) > 1:
        i = below(random, len(values))
        left = values.pop(i)
        j = below(random, len(values))
        right = values.pop(j)
        choices = "+*-" if left > right else "+*"
        if left % right == 0:
            choices += "/"
        operator = choices[below(random, len(choices))]
        value = OPERATIONS[operator](left, right)
        values.append(value)
        moves.append((i, j, operator, value))
    return moves, values[0]


def _written(numbers: Sequence[int], moves: Sequence[Move]) -> tuple[str, tuple[str, ...]]:
    """The expression of the moves, and its steps; a larger operand of + and * comes first."""
    terms, steps = [(number, str(number), 3) for number in numbers], []
    for i, j, operator, value in moves:
        left = terms.pop(i)
        right = terms.pop(j)
        if operator in "+*" and left[0] < right[0]:
            left, right = right, left
        terms.append((value, _join(left, operator, right), PRECEDENCE[operator]))
        steps.append(f"{left[0]}{operator}{right[0]}={value}")
    return terms[0][1], tuple(steps)


def _join(left: tuple[int, str, int], operator: str, right: tuple[int, str, int]) -> str:
    """The expression with no more parentheses than it needs."""
    level = PRECEDENCE[operator]
    first = f"({left[1]})" if left[2] < level else left[1]
    loose = right[2] < level or (right[2] == level and operator in "-/")
    return f"{first}{operator}({right[1]})" if loose else f"{first}{operator}{right[1]}"


def countdown_problem(numbers: Sequence[int], target: int, solution: str = "", steps: tuple[str, ...] = ()) -> Problem:
    """The problem of these numbers and target; its key is that of the numbers in any order."""
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
