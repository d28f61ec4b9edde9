"""Sums, differences, products and quotients of two fractions."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from operator import add, mul, sub, truediv
from random import Random

from efficient_rl.tasks.problem import Generated, Problem, below, ranges, subset

OPERATIONS = {"+": add, "-": sub, "*": mul, "/": truediv}
WORDS = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}


@dataclass(frozen=True)
class Fractions(Generated):
    """Two fractions and an operator; difficulty = the largest denominator that was allowed.

    `denominators` lists these bounds, drawn evenly. The answer is in lowest terms, a whole number
    where it is one. a+b and b+a are one problem, and so are products.
    """

    denominators: Sequence[int] = (5, 10, 20)
    operators: Sequence[str] = ("+", "-", "*", "/")

    def __post_init__(self) -> None:
        object.__setattr__(self, "denominators", ranges("denominators", self.denominators, 2, 10_000))
        object.__setattr__(self, "operators", subset("operators", self.operators, OPERATIONS))

    def _draw(self, random: Random) -> Problem:
        bound = self.denominators[below(random, len(self.denominators))]
        a, b = _fraction(random, bound), _fraction(random, bound)
        operator = self.operators[below(random, len(self.operators))]
        if operator == "-" and a < b:
            a, b = b, a
        answer: Fraction = OPERATIONS[operator](a, b)
        first, second = sorted((a, b)) if operator in "+*" else (a, b)
        return Problem(
            question=f"What is {a} {WORDS[operator]} {b}? Give the answer in lowest terms.",
            symbols=f"{a}/({b}):" if operator == "/" else f"{a}{operator}{b}:",
            check="number",
            gold={"answer": str(answer), "lowest": True},
            difficulty=float(bound),
            source="fractions",
            key=f"fractions {first} {operator} {second}",
            steps=_steps(a, operator, b),
            solution=str(answer),
        )


def _fraction(random: Random, bound: int) -> Fraction:
    denominator = 2 + below(random, bound - 1)
    return Fraction(1 + below(random, denominator - 1), denominator)


def _steps(a: Fraction, operator: str, b: Fraction) -> tuple[str, ...]:
    """The numerator, the denominator, and their quotient in lowest terms."""
    p, q, r, s = a.numerator, a.denominator, b.numerator, b.denominator
    if operator == "/":
        r, s = s, r
    if operator in "*/":
        above, steps = p * r, [f"{p}*{r}={p * r}"]
    else:
        above = OPERATIONS[operator](p * s, r * q)
        steps = [f"{p}*{s}={p * s}", f"{r}*{q}={r * q}", f"{p * s}{operator}{r * q}={above}"]
    ratio, lowest = f"{above}/{q * s}", str(Fraction(above, q * s))
    return (*steps, f"{q}*{s}={q * s}", ratio if ratio == lowest else f"{ratio}={lowest}")
