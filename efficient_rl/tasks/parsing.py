"""Reads answers and difficulties out of the columns of a data set."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

NUMBER = re.compile(r"[+-]?\d{1,30}(?:\.\d{1,30}|/\d{1,30})?", re.ASCII)
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))", re.ASCII)
MAX_ANSWER_CHARACTERS = 1000  # longer ones are no answers but texts


@dataclass(frozen=True)
class Difficulty:
    """How a difficulty is read from a row: `scale` times a number, plus `shift`.

    The number is that in the first of the `columns` that a row has; with `pattern` the first group
    of its match; with `count` how often that text occurs. A row without one gets `default`, and is
    left out where that is null.
    """

    columns: tuple[str, ...] = ()
    pattern: str | None = None
    count: str | None = None
    scale: float = 1.0
    shift: float = 0.0
    default: float | None = None

    def __post_init__(self) -> None:
        group("difficulty.pattern", self.pattern)
        if not self.columns and self.default is None:
            raise ValueError("task.difficulty has neither a column nor a default; give it a number, a column or both")

    def of(self, row: Mapping[str, Any]) -> float | None:
        """The difficulty of a row, or None where it has none."""
        value = first(row, self.columns)
        if value is not None and self.count is not None:
            value = str(value).count(self.count)
        elif value is not None and self.pattern is not None:
            match = re.search(self.pattern, str(value))
            value = match[1] if match else None
        try:
            number = self.scale * float(value) + self.shift if value is not None else math.nan
        except (TypeError, ValueError):
            number = math.nan
        return number if math.isfinite(number) else self.default


def first(row: Mapping[str, Any], columns: Sequence[str]) -> Any:
    """The value of the first of the columns that the row has, None where it has none of them."""
    return next((row[column] for column in columns if column in row), None)


def group(key: str, pattern: str | None) -> None:
    """Raise a ValueError unless the pattern is a regular expression with a group."""
    if pattern is None:
        return
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"task.{key}={pattern!r} is no regular expression: {error}") from error
    if not groups:
        raise ValueError(f"task.{key}={pattern!r} has no group; put ( ) around what is wanted")


def plain_number(text: str) -> str | None:
    """`-1,234.50` as `-1234.5`, `$18` as `18`, `6/4` as `3/2`; None for anything else."""
    bare = THOUSANDS.sub("", text.replace("\N{MINUS SIGN}", "-").lstrip("$ \n\t").rstrip("$. \n\t"))
    if not NUMBER.fullmatch(bare):
        return None
    whole, _, denominator = bare.partition("/")
    if denominator and int(denominator) == 0:
        return None
    if denominator or "." not in bare:
        return str(Fraction(int(whole), int(denominator or 1)))
    return str(Fraction(bare)) if Fraction(bare).denominator == 1 else bare.rstrip("0")


def plain_math(text: str) -> str | None:
    """The answer without dollar signs around it; None if empty or a long text."""
    bare = text.strip()
    while len(bare) > 1 and bare[0] == bare[-1] == "$":
        bare = bare[1:-1].strip()
    return bare if bare and len(bare) <= MAX_ANSWER_CHARACTERS else None
