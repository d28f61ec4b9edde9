"""Finds the equations that a text writes in numbers, and checks each by exact arithmetic."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from efficient_rl.rewards.arithmetic import Operation, Sum, Value, evaluate

MAX_CHARACTERS = 40_000
PAIR_CHARACTERS = 20  # what looking at one costs beside its own
SYMBOLS = str.maketrans(
    {"\u00d7": "*", "\u00b7": "*", "\u22c5": "*", "\u2217": "*", "\u00f7": "/", "\u2212": "-", "\u2013": "-"}
)
PART = (
    r"(?:[0-9]++(?:,[0-9]{3}(?![0-9]))*+(?:\.[0-9]++)?+|\.[0-9]++|[-+*/()=]"
    r"|(?<=[0-9)])x(?=[0-9(])|(?<=[ \t])x(?=[ \t]{1,3}[0-9(]))"
)
SEGMENT = re.compile(rf"{PART}(?:[ \t]*+{PART})*+")
LATEX_FRACTION = re.compile(r"\\[dt]?frac\{([0-9]{1,30})\}\{([0-9]{1,30})\}")
LATEX = re.compile(r"\\(times|cdot|div)(?![A-Za-z])|\\[,;!: ]|[$\u20ac\u00a3&]")
LATEX_SIGNS = {"times": "*", "cdot": "*", "div": "/"}
LIST_MARK = re.compile(r"^[ \t]{0,20}(?:[-*\u2022][ \t]|\(?[0-9]{1,3}[.)][ \t])", re.M)
CUT_BEFORE = re.compile(r"(?:[A-Za-z\u03b1-\u03c9_^}\]%\\|]|[0-9][:,]|\bof[ \t]{1,3})$")
LABEL = re.compile(r"[A-Za-z][ \t]{1,3}$")
BINARY_MINUS = re.compile(r"(?:[^\s:;,(\[<>`*\"']|(?:\b[A-Za-z]|[)}\]%|0-9])[ \t]{1,3})$")
CUT_AFTER = re.compile(
    r"[A-Za-z\u03b1-\u03c9](?![A-Za-z])|[ \t]{0,3}(?:[\^_{%|\u00b0\u2026]|\.\.|[b-z](?![A-Za-z])|[Rr](?:em|[ \t]?[0-9])"
    r"|\\(?:[dt]?frac|sqrt|pi|left|binom))"
)


@dataclass(frozen=True)
class Equation:
    """`left = right`: whether it is true, its right side's value, the operations of both sides."""

    true: bool
    value: Value
    operations: frozenset[Operation]


def find_equations(text: str) -> dict[str, Equation]:
    """The different equations of a text by how they are written, in order of last occurrence.

    An equation has one of + - * / on one side or the other; `a = b = c` is two. Where anything
    stands in it that is not arithmetic over numbers (variables, powers, percent, roots, remainders,
    dots that go on), the equation is left out; a unit after it is no part of it. The first 40,000
    characters of equations are looked at, short ones counting as 20 more.
    """
    found: dict[str, Equation] = {}
    if "=" not in text:
        return found
    plain = in_ascii(text)
    budget = MAX_CHARACTERS
    for segment in SEGMENT.finditer(plain):
        if "=" in segment[0]:
            for left, right in _pairs(plain, segment):
                budget -= len(left) + len(right) + PAIR_CHARACTERS
                if budget < 0:
                    return found
                equation = _equation(left, right)
                if equation is not None:
                    written = "".join(f"{left}={right}".split())
                    found.pop(written, None)
                    found[written] = equation
    return found


def in_ascii(text: str) -> str:
    """The text with one way to write each sign, without currencies, spacing and list marks."""
    plain = text.translate(SYMBOLS)
    if "\\" in plain:
        plain = LATEX_FRACTION.sub(r"((\1)/(\2))", plain)
    return LIST_MARK.sub("", LATEX.sub(lambda match: LATEX_SIGNS.get(match[1], ""), plain))


def _pairs(text: str, segment: re.Match[str]) -> Iterator[tuple[str, str]]:
    """Neighbouring sides of a chain; "" is a side that was cut off or is not there."""
    sides = [side.strip() for side in segment[0].split("=")]
    before = text[max(0, segment.start() - 8) : segment.start()]
    label = sides[0].isdigit() and LABEL.search(before)  # "Week 4 = 48 + 48" says nothing about 4
    if label or CUT_BEFORE.search(before) or (sides[0][:1] == "-" and before and BINARY_MINUS.search(before)):
        sides[0] = ""
    if CUT_AFTER.match(text, segment.end()):
        sides[-1] = ""
    return pairwise(sides)


def _equation(left: str, right: str) -> Equation | None:
    if not left or not right or left == right or left[0] == "+" or right[0] == "+":
        return None
    first = evaluate(left)
    second: Sum | None = evaluate(right) if first is not None else None
    if first is None or second is None or not (first.operations or second.operations):
        return None
    return Equation(first.value == second.value, second.value, first.operations | second.operations)
