"""Throws pairs of random formulas at the verifier; each one found equal is evaluated to 1,500 digits by mpmath alone.

python -m tests.fuzz_formulas --pairs 100000 --log formulas.jsonl     # goes on where the log ends
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mpmath
from rich.console import Console

from efficient_rl.rewards.judge import JUDGES
from efficient_rl.rewards.verify import math

CHUNK = 500
DIGITS = 1500
SURE_DIGITS = 1200
POINTS = 2
LETTERS = "xyn"
Value = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Formula:
    """A formula as LaTeX, and its value where the letters have values."""

    latex: str
    value: Value


@dataclass
class Seen:
    """What pairs of one chunk or of all gave."""

    pairs: int = 0
    judged: int = 0
    right: int = 0
    equal_but_wrong: int = 0
    unchecked: int = 0
    false_accepts: list[list[str]] = field(default_factory=list)
    slowest_seconds: float = 0.0
    slowest: list[str] = field(default_factory=list)

    def add(self, other: "Seen") -> None:
        """Count another one's pairs too."""
        for name in ("pairs", "judged", "right", "equal_but_wrong", "unchecked"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.false_accepts += other.false_accepts
        if other.slowest_seconds > self.slowest_seconds:
            self.slowest_seconds, self.slowest = other.slowest_seconds, other.slowest


def constant(latex: str, value: Callable[[], Any]) -> Formula:
    """A formula without letters; its value is computed at the precision of the moment."""
    return Formula(latex, lambda _: value())


def atom(draw: random.Random) -> Formula:
    """A number, a named constant or a letter."""
    whole, other, power = draw.randint(1, 30), draw.randint(2, 999), draw.randint(1, 60)
    letter = draw.choice(LETTERS)
    return draw.choice(
        [
            constant(str(whole), lambda: mpmath.mpf(whole)),
            constant(f"\\frac{{{whole}}}{{{other}}}", lambda: mpmath.mpf(whole) / other),
            constant(f"{whole}.{other}", lambda: mpmath.mpf(f"{whole}.{other}")),
            constant(f"2^{{-{power}}}", lambda: mpmath.mpf(2) ** -power),
            constant(f"10^{{{power}}}", lambda: mpmath.mpf(10) ** power),
            constant(f"\\sqrt{{{other}}}", lambda: mpmath.sqrt(other)),
            constant(f"\\ln({other})", lambda: mpmath.log(other)),
            constant(f"{whole}!", lambda: mpmath.factorial(whole)),
            constant("\\pi", lambda: +mpmath.pi),
            constant("e", lambda: +mpmath.e),
            *[Formula(letter, lambda values: values[letter])] * 8,
        ]
    )


def formula(draw: random.Random, depth: int) -> Formula:
    """A random formula of that depth at most."""
    if depth == 0 or draw.random() < 0.2:
        return atom(draw)
    one, two = formula(draw, depth - 1), formula(draw, depth - 1)
    power = draw.randint(2, 4)
    return draw.choice(
        [
            Formula(f"{one.latex} + {two.latex}", lambda values: one.value(values) + two.value(values)),
            Formula(f"{one.latex} - ({two.latex})", lambda values: one.value(values) - two.value(values)),
            Formula(f"({one.latex}) \\cdot ({two.latex})", lambda values: one.value(values) * two.value(values)),
            Formula(f"\\frac{{{one.latex}}}{{{two.latex}}}", lambda values: one.value(values) / two.value(values)),
            Formula(f"({one.latex})^{{{power}}}", lambda values: one.value(values) ** power),
            Formula(f"\\sqrt{{{one.latex}}}", lambda values: mpmath.sqrt(one.value(values))),
            Formula(f"\\sin({one.latex})", lambda values: mpmath.sin(one.value(values))),
            Formula(f"\\cos({one.latex})", lambda values: mpmath.cos(one.value(values))),
            Formula(f"|{one.latex}|", lambda values: abs(one.value(values))),
        ]
    )


def rewritten(draw: random.Random, gold: Formula) -> Formula:
    """The same value in another notation."""
    whole = draw.randint(2, 99)
    latex = draw.choice(
        [
            "\\frac{{{0}({1})}}{{{0}}}", "({1}) + {0} - {0}", "-({0} - ({1})) + {0}", "{0}({1}) - ({0} - 1)({1})",
            "({1}) \\cdot 2^{{-{0}}} \\cdot 2^{{{0}}}", "\\frac{{({1})^2}}{{{1}}}",
        ]
    )  # fmt: skip
    return Formula(latex.format(whole, gold.latex), gold.value)


def changed(draw: random.Random, gold: Formula) -> Formula:
    """Nearly the same value, or the other sign."""
    power, base = draw.randint(1, 120), draw.choice([2, 10])
    small = f"{base}^{{-{power}}}"
    return draw.choice(
        [
            Formula(f"({gold.latex}) + {small}", lambda values: gold.value(values) + mpmath.mpf(base) ** -power),
            Formula(f"({gold.latex})(1 - {small})", lambda values: gold.value(values) * (1 - mpmath.mpf(base) ** -power)),
            Formula(f"({gold.latex}) \\cdot {small}", lambda values: gold.value(values) * mpmath.mpf(base) ** -power),
            Formula(f"-({gold.latex})", lambda values: -gold.value(values)),
        ]
    )


def equal(one: Formula, other: Formula, draw: random.Random) -> bool | None:
    """Whether both have the same values to SURE_DIGITS digits; None where they have none."""
    for _ in range(POINTS):
        values = {letter: mpmath.mpf(draw.randint(-3000, 3000)) / 1009 + mpmath.sqrt(2) for letter in LETTERS}
        try:
            first, second = one.value(values), other.value(values)
        except (ZeroDivisionError, ValueError, OverflowError):
            return None
        size = max(abs(first), abs(second))
        hidden_zero = size < mpmath.mpf(10) ** (-SURE_DIGITS // 2)  # such as the root of the sine of pi
        if not hidden_zero and abs(first - second) > size * mpmath.mpf(10) ** -SURE_DIGITS:
            return False
    return True


def attack(number: int) -> Seen:
    """The pair of that number: an equal one, a nearly equal one or any other."""
    draw = random.Random(number)
    gold = formula(draw, draw.choice([1, 1, 2]))
    make = draw.choice([rewritten, changed, lambda draw, _: formula(draw, 1)])
    answer = make(draw, gold)
    asked, began = JUDGES.asked, time.perf_counter()
    right = math(answer.latex, {"answer": gold.latex})
    seconds = time.perf_counter() - began
    pair = [answer.latex, gold.latex]
    seen = Seen(1, int(JUDGES.asked > asked), int(right), slowest_seconds=seconds, slowest=pair)
    if right or make is rewritten:
        same = make is rewritten or equal(answer, gold, draw)
        seen.unchecked = int(same is None)
        seen.equal_but_wrong = int(bool(same) and not right)
        seen.false_accepts = [pair] if right and same is False else []
    return seen


def fuzz(first: int, count: int) -> Seen:
    """`count` pairs from number `first` on."""
    seen = Seen()
    with mpmath.workdps(DIGITS):
        for number in range(first, first + count):
            seen.add(attack(number))
    return seen


def chunks(log: Path) -> Iterator[Seen]:
    """What earlier runs wrote."""
    if log.exists():
        for line in log.read_text().splitlines():
            yield Seen(**json.loads(line))


def main() -> None:
    """Fuzz in chunks, each a line of the log, and say what all of them saw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first pair")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after that time")
    parser.add_argument("--log", type=Path, default=Path("formulas.jsonl"))
    arguments = parser.parse_args()
    total, started = Seen(), time.monotonic()
    JUDGES.same("1", "1")  # its start is no pair's time
    for chunk in chunks(arguments.log):
        total.add(chunk)
    while total.pairs < arguments.pairs and time.monotonic() - started < arguments.seconds:
        chunk = fuzz(arguments.first + total.pairs, min(CHUNK, arguments.pairs - total.pairs))
        with arguments.log.open("a") as log:
            log.write(json.dumps(asdict(chunk)) + "\n")
        total.add(chunk)
    Console().print(asdict(total), highlight=False)


if __name__ == "__main__":
    main()
