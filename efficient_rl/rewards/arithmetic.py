"""Exact values of sums over + - * / and parentheses, with their operations; nothing is executed."""

import re
from dataclasses import dataclass, field
from fractions import Fraction

MAX_CHARACTERS = 200
MAX_DIGITS = 30
MAX_DEPTH = 20
TOKEN = re.compile(r"[ \t]*(?:([0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)|([-+*/()x]))[ \t]*")
STRICT_TOKEN = re.compile(r" *(?:(0+|[1-9][0-9]*)(?![0-9])|([-+*/()])) *")

Value = int | Fraction
Operation = tuple[str, Value, Value]


@dataclass(frozen=True)
class Sum:
    """The value of a written sum, its numbers in their order, and its operations.

    An operation is a sign with the two values that it joins. The values of an addition or a
    multiplication stand in ascending order, so that 3+4 and 4+3 are one operation.
    """

    value: Value
    operations: frozenset[Operation]
    numbers: tuple[Value, ...] = field(compare=False)


def evaluate(text: str, strict: bool = False) -> Sum | None:
    """The exact sum that a text writes in ASCII, or None where it is none or beyond the bounds.

    Numbers are whole, decimal or with thousands separators, of at most 30 digits; `x` multiplies
    too; 200 characters, 20 nested parentheses. `strict` allows whole numbers without leading zeros,
    of any length, + - * / ( ) and spaces alone, with any nesting that 200 characters hold.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    if strict:
        reader = _Reader(_tokens(text, STRICT_TOKEN), MAX_CHARACTERS, MAX_CHARACTERS)
    else:
        reader = _Reader(_tokens(text, TOKEN), MAX_DEPTH, MAX_DIGITS)
    try:
        value = reader.terms(0)
    except (ValueError, ZeroDivisionError):
        return None
    if reader.position < len(reader.tokens):
        return None
    return Sum(value, frozenset(reader.operations), tuple(reader.numbers))


def _tokens(text: str, pattern: re.Pattern[str]) -> list[str]:
    """Numbers and signs; empty where the text holds anything else."""
    tokens, position = [], 0
    while position < len(text):
        match = pattern.match(text, position)
        if match is None:
            return []
        tokens.append(match[1] or match[2].replace("x", "*"))
        position = match.end()
    return tokens


class _Reader:
    """Recursive descent over tokens; ValueError where they are no sum."""

    def __init__(self, tokens: list[str], max_depth: int, max_digits: int) -> None:
        self.tokens, self.max_depth, self.max_digits = tokens, max_depth, max_digits
        self.position = 0
        self.numbers: list[Value] = []
        self.operations: list[Operation] = []

    def _next(self, signs: str) -> str:
        """Take the next token if it is one of the signs, else ""."""
        if self.position < len(self.tokens) and self.tokens[self.position] in signs:
            self.position += 1
            return self.tokens[self.position - 1]
        return ""

    def terms(self, depth: int) -> Value:
        value = self._factors(depth)
        while sign := self._next("+-"):
            value = self._apply(sign, value, self._factors(depth))
        return value

    def _factors(self, depth: int) -> Value:
        value = self._atom(depth)
        while sign := self._next("*/"):
            value = self._apply(sign, value, self._atom(depth))
        return value

    def _atom(self, depth: int) -> Value:
        if depth > self.max_depth or self.position == len(self.tokens):
            raise ValueError("too deep, or ended early")
        if self._next("-"):
            return -self._atom(depth + 1)
        if self._next("("):
            value = self.terms(depth + 1)
            if not self._next(")"):
                raise ValueError("a parenthesis stays open")
            return value
        token = self.tokens[self.position]
        if len(token) > self.max_digits:
            raise ValueError("too many digits")
        self.position += 1
        plain = token.replace(",", "")
        self.numbers.append(Fraction(plain) if "." in plain else int(plain))
        return self.numbers[-1]

    def _apply(self, sign: str, left: Value, right: Value) -> Value:
        if sign in "+*":
            self.operations.append((sign, min(left, right), max(left, right)))
            return left + right if sign == "+" else left * right
        self.operations.append((sign, left, right))
        return left - right if sign == "-" else Fraction(left) / right
