"""Judges answers that a model wrote, without ever executing them: exact fractions over a parsed, bounded expression."""

import ast
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

MAX_EXPRESSION_CHARACTERS = 200
EXPRESSION = re.compile(r"[0-9+\-*/() ]+", re.ASCII)
NUMBER = re.compile(r"([+-]?)\s*(\d{1,30})(?:\.(\d{1,30})|/(\d{1,30}))?", re.ASCII)


def extract_answer(completion: str) -> str | None:
    """The text between the last pair of answer tags, or None where there is none."""
    end = completion.rfind("</answer>")
    start = completion.rfind("<answer>", 0, max(end, 0))
    return completion[start + len("<answer>") : end].strip() if start >= 0 else None


def evaluate_expression(text: str) -> tuple[Fraction, list[int]] | None:
    """Value and used numbers of an expression over whole numbers, + - * / and parentheses; None for anything else.

    The text is parsed, never executed; powers, floor division, other characters, division by zero and anything over
    200 characters are None.
    """
    if len(text) > MAX_EXPRESSION_CHARACTERS or not EXPRESSION.fullmatch(text):
        return None
    try:
        tree = ast.parse(text.strip(), mode="eval")
        numbers: list[int] = []
        return _value(tree.body, numbers), numbers
    except (SyntaxError, ZeroDivisionError, ValueError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr, numbers: list[int]) -> Fraction:
    match node:
        case ast.Constant(value=int(number)):
            numbers.append(number)
            return Fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, numbers)
        case ast.BinOp(left=left, op=operator, right=right):
            a, b = _value(left, numbers), _value(right, numbers)
            match operator:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.Div():
                    return a / b
    raise ValueError("not an expression over + - * /")


def countdown(answer: str, gold: Mapping[str, Any]) -> bool:
    """Whether the expression uses every given number exactly once and equals the target."""
    evaluated = evaluate_expression(answer)
    if evaluated is None:
        return False
    value, used = evaluated
    return sorted(used) == sorted(gold["numbers"]) and value == gold["target"]


def number(answer: str, gold: Mapping[str, Any]) -> bool:
    """Whether the answer is exactly one number, equal to the gold one: `42`, `-3`, `0.5` or `1/2`."""
    given, wanted = parse_number(answer), parse_number(gold["answer"])
    return given is not None and given == wanted


def parse_number(text: str) -> Fraction | None:
    """The exact value of a whole, decimal or fractional ASCII number, or None."""
    match = NUMBER.fullmatch(text.strip()) if len(text) <= MAX_EXPRESSION_CHARACTERS else None
    if match is None:
        return None
    sign, whole, decimals, denominator = match.groups()
    if denominator is not None and int(denominator) == 0:
        return None
    value = Fraction(int(whole), int(denominator or 1))
    if decimals:
        value += Fraction(int(decimals), 10 ** len(decimals))
    return -value if sign == "-" else value


CHECKERS: dict[str, Callable[[str, Mapping[str, Any]], bool]] = {"countdown": countdown, "number": number}


def is_correct(completion: str, check: str, gold: Mapping[str, Any]) -> bool:
    """Whether the completion's tagged answer passes the checker named `check`."""
    answer = extract_answer(completion)
    return answer is not None and CHECKERS[check](answer, gold)
