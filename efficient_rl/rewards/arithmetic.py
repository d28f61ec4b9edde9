"""Exact values of sums over + - * / and parentheses, with every operation on the way; bounded, and nothing is executed."""

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_CHARACTERS = 200
MAX_DIGITS = 30
MAX_DEPTH = 20
TOKEN = re.compile(r"[ \t]*(?:([0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)|([-+*/()x]))")

Value = int | Fraction
Operation = tuple[str, Value, Value]


@dataclass(frozen=True)
class Sum:
    """The value of a written sum and its operations: signs with the two values that they join.

    The values of an addition or a multiplication stand in ascending order, so that 3+4 and 4+3 are
    one operation.
    """

    value: Value
    operations: frozenset[Operation]


def evaluate(text: str) -> Sum | None:
    """The exact sum that a text writes in ASCII (`x` multiplies too), or None where it is none or beyond the bounds.

    Numbers are whole, decimal or with thousands separators, of at most 30 digits; 200 characters,
    20 nested parentheses.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    tokens = _tokens(text.rstrip(" \t"))
    if not tokens:
        return None
    reader = _Reader(tokens)
    try:
        value = reader.terms(0)
    except (ValueError, ZeroDivisionError):
        return None
    return Sum(value, frozenset(reader.operations)) if reader.position == len(tokens) else None


def _tokens(text: str) -> list[str]:
    """Numbers and signs; empty where the text holds anything else."""
    tokens, position = [], 0
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            return []
        tokens.append(match[1] or match[2].replace("x", "*"))
        position = match.end()
    return tokens


class _Reader:
    """Recursive descent over tokens; ValueError where they are no sum."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.position = 0
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
        if depth > MAX_DEPTH or self.position == len(self.tokens):
            raise ValueError("too deep, or ended early")
        if self._next("-"):
            return -self._atom(depth + 1)
        if self._next("("):
            value = self.terms(depth + 1)
            if not self._next(")"):
                raise ValueError("a parenthesis stays open")
            return value
        self.position += 1
        return _number(self.tokens[self.position - 1])

    def _apply(self, sign: str, left: Value, right: Value) -> Value:
        if sign in "+*":
            self.operations.append((sign, min(left, right), max(left, right)))
            return left + right if sign == "+" else left * right
        self.operations.append((sign, left, right))
        return left - right if sign == "-" else Fraction(left) / right


def _number(token: str) -> Value:
    if len(token) > MAX_DIGITS:
        raise ValueError("too many digits")
    plain = token.replace(",", "")
    return Fraction(plain) if "." in plain else int(plain)
