"""Sums that a model wrote: parsed, bounded, evaluated in exact fractions, never executed."""

import ast
import re
from fractions import Fraction

MAX_EXPRESSION_CHARACTERS = 200
EXPRESSION = re.compile(r"[0-9+\-*/() ]+", re.ASCII)


def evaluate_expression(text: str) -> tuple[Fraction, list[int]] | None:
    """Value and used numbers of an expression over whole numbers, + - * / and parentheses; None for anything else.

    The text is parsed, never executed; powers, floor division, other characters, division by zero
    and anything over 200 characters are None.
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
