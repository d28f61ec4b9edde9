"""Reads questions, answers and difficulties out of the columns of a data set."""

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from numbers import Real
from typing import Any

NUMBER = re.compile(r"[+-]?\d{1,30}(?:\.\d{1,30}|/\d{1,30})?", re.ASCII)
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))", re.ASCII)
FLOAT = re.compile(r"[+-]?\d+(?:\.\d+)?[eE](?:\d+|[+-]\d\d+)", re.ASCII)  # 2e-05, 3e16; but 2e-5 may be 2*e-5
STRUCTURE = re.compile(r"\s*(?:[\[{]\s*[\"']|\[\s*\{\s*[\"'])")  # a list or an object that begins with a text
MAX_ANSWER_CHARACTERS = 1000  # longer ones are no answers but texts
NO_ANSWERS = ("", "nan", "NaN", "NaT", "<NA>", "null", "None")  # how programs write that a value is missing
ASKING, INSTRUCTING, ANSWERING = ("user", "human"), ("system", "developer"), ("assistant", "gpt")


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


def structured(value: Any) -> Any:
    """What a text holds that is a list or an object in JSON's or Python's notation; else itself."""
    if not isinstance(value, str) or not STRUCTURE.match(value):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return found if isinstance(found, list | dict) else value
    return value


def plain_text(value: Any) -> str | None:
    """An answer as text; None where there is none.

    A list of one counts as that one, a chat message as its content, and a number as its exact
    decimal, also one written as text: `3e+16` is `30000000000000000`. Truth values, NaN, lists of
    several and other objects are no answers.
    """
    value = _single(value)
    if isinstance(value, bool) or not isinstance(value, str | Real | Decimal):
        return None
    text = str(value)
    if isinstance(value, str) and not FLOAT.fullmatch(text.strip()):
        return None if text.strip() in NO_ANSWERS else text
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return None
    if not number.is_finite() or abs(number.adjusted()) > MAX_ANSWER_CHARACTERS:
        return None
    digits = f"{number:f}"
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return digits if number else "0"


def question_text(value: Any) -> str | None:
    """A question as text, also one that is a list of chat messages; None where there is none.

    Of messages it is what the user says, below what the system says; what an assistant says last is
    the answer. A dialogue of several turns is no question.
    """
    value = structured(value)
    if not isinstance(value, Sequence) or isinstance(value, str) or not any(map(_message, value)):
        text = _single(value)
        return text if isinstance(text, str) else None
    messages = [_message(each) or ("", "") for each in value]
    while messages and messages[-1][0] in ANSWERING:
        messages.pop()
    roles, texts = [role for role, _ in messages], [text for _, text in messages]
    if not roles or roles[-1] not in ASKING or not set(roles[:-1]) <= set(INSTRUCTING):
        return None
    return "\n\n".join(texts)


def _single(value: Any) -> Any:
    """What a list of one or a chat message holds; any other value is itself."""
    value = structured(value.tolist() if hasattr(value, "tolist") else value)
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 1:
        return _single(value[0])
    message = _message(value)
    return value if message is None else message[1]


def _message(value: Any) -> tuple[str, str] | None:
    """Role and text of a chat message, as OpenAI or ShareGPT write it; None for other values."""
    if not isinstance(value, Mapping):
        return None
    role, content = value.get("role", value.get("from")), value.get("content", value.get("value"))
    if isinstance(content, list):
        content = "\n".join(str(part.get("text")) for part in content if isinstance(part, Mapping) and "text" in part)
    return (role, content) if isinstance(role, str) and isinstance(content, str) else None


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
