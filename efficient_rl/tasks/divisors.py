"""Greatest common divisors and least common multiples."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd, lcm
from random import Random

from efficient_rl.errors import require
from efficient_rl.tasks.problem import Generated, Problem, below, ranges


@dataclass(frozen=True)
class _OfNumbers(Generated):
    """Different numbers that share a random factor; difficulty = the bound that they lie below.

    `sizes` lists the bounds to draw from, evenly; `numbers` says how many numbers a problem has,
    whose order makes no other problem.
    """

    sizes: Sequence[int] = (20, 100, 500)
    numbers: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", ranges("sizes", self.sizes, 12, 1_000_000))
        require(2 <= self.numbers <= 6, "task.numbers", self.numbers, "must lie in 2 to 6")

    def _draw(self, random: Random) -> Problem:
        size = self.sizes[below(random, len(self.sizes))]
        factor = 1 + below(random, size // (self.numbers + 1))
        while True:
            numbers = [factor * (1 + below(random, size // factor)) for _ in range(self.numbers)]
            if len(set(numbers)) == self.numbers:
                return self._problem(size, numbers)

    @abstractmethod
    def _problem(self, size: int, numbers: list[int]) -> Problem: ...


@dataclass(frozen=True)
class GCD(_OfNumbers):
    """The greatest common divisor; `a,b<:` in symbols, as it lies below all in divisibility."""

    def _problem(self, size: int, numbers: list[int]) -> Problem:
        steps, value = [], numbers[0]
        for number in numbers[1:]:
            value, rest = max(value, number), min(value, number)
            while rest:
                steps.append(f"{value}%{rest}={value % rest}")
                value, rest = rest, value % rest
        return _written("gcd", "greatest common divisor", "<", size, numbers, gcd(*numbers), steps)


@dataclass(frozen=True)
class LCM(_OfNumbers):
    """The least common multiple; `a,b>:` in symbols, as it lies above all in divisibility."""

    def _problem(self, size: int, numbers: list[int]) -> Problem:
        values = [numbers[0]]
        for number in numbers[1:]:
            values.append(lcm(values[-1], number))
        steps = [f"{value}*{next_value // value}={next_value}" for value, next_value in pairwise(values)]
        return _written("lcm", "least common multiple", ">", size, numbers, values[-1], steps)


def _written(
    name: str, words: str, sign: str, size: int, numbers: Sequence[int], answer: int, steps: Sequence[str]
) -> Problem:
    listed = [str(number) for number in numbers]
    return Problem(
        question=f"What is the {words} of {', '.join(listed[:-1])} and {listed[-1]}?",
        symbols=f"{','.join(listed)}{sign}:",
        check="number",
        gold={"answer": str(answer)},
        difficulty=float(size),
        source=name,
        key=f"{name} {sorted(numbers)}",
        steps=tuple(steps),
        solution=str(answer),
    )
