"""Arithmetic: sums, differences and products of two numbers with chosen digits."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import add, mul, sub
from random import Random

from efficient_rl.tasks.problem import Generated, Problem, below, ranges, subset

OPERATIONS = {"+": add, "-": sub, "*": mul}
WORDS = {"+": "plus", "-": "minus", "*": "times"}


@dataclass(frozen=True)
class Arithmetic(Generated):
    """`a operator b`, difficulty = digits of the longer number; a+b and b+a are one."""

    digits: Sequence[int] = (1, 2)
    operators: Sequence[str] = ("+", "-", "*")

    def __post_init__(self) -> None:
        object.__setattr__(self, "digits", ranges("digits", self.digits, 1, 9))
        object.__setattr__(self, "operators", subset("operators", self.operators, WORDS))

    def _draw(self, random: Random) -> Problem:
        digits = self.digits[below(random, len(self.digits))]
        low, bound = 10 ** (digits - 1) if digits > 1 else 0, 10**digits
        longer, shorter = low + below(random, bound - low), below(random, bound)
        operator = self.operators[below(random, len(self.operators))]
        if operator == "-" and longer < shorter:
            longer, shorter = shorter, longer
        return arithmetic_problem(longer, operator, shorter, digits)


def arithmetic_problem(a: int, operator: str, b: int, digits: int, source: str = "arithmetic") -> Problem:
    """The problem `a operator b`; orders of the same numbers share a key where order is free."""
    answer = OPERATIONS[operator](a, b)
    first, second = (a, b) if operator == "-" else sorted((a, b))
    return Problem(
        question=f"What is {a} {WORDS[operator]} {b}?",
        symbols=f"{a}{operator}{b}:",
        check="number",
        gold={"answer": str(answer)},
        difficulty=float(digits),
        source=source,
        key=f"arithmetic {first}{operator}{second}",
        steps=_steps(a, operator, b, answer),
        solution=str(answer),
    )


def _steps(a: int, operator: str, b: int, answer: int) -> tuple[str, ...]:
    """Working by the second number's decimal parts: 47*38 is 47*8, 47*30 and their sum."""
    parts = [int(digit) * 10**place for place, digit in enumerate(reversed(str(b))) if digit != "0"]
    if len(parts) < 2:
        return (f"{a}{operator}{b}={answer}",)
    steps, total = [], a
    if operator == "*":
        steps = [f"{a}*{part}={a * part}" for part in parts]
        operator = "+"
        total, *parts = (a * part for part in parts)
    for part in parts:
        after = OPERATIONS[operator](total, part)
        steps.append(f"{total}{operator}{part}={after}")
        total = after
    return tuple(steps)
