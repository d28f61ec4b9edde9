"""Filters of sweeps: comparisons over configuration values, parsed and never executed."""

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from typing import Any

from efficient_rl.errors import ConfigError, did_you_mean

COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, container: value in container,
    ast.NotIn: lambda value, container: value not in container,
}
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
MISSING = object()  # a value that this combination does not have
ALL_OF, ANY_OF = (False, None, True), (True, None, False)  # which truth of the parts wins


def keeps(rule: str, values: Mapping[str, Any], known: Collection[str]) -> bool:
    """Whether a combination fulfils the rule, e.g. `strategy.k < 3 or strategy.name == "lora"`.

    What the rule says about a value that this combination lacks (k of LoRA) is neither true nor
    false, and only a false rule drops a combination. A name outside `known`, the names of all
    combinations together, is a ConfigError.
    """
    try:
        tree = ast.parse(rule.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ConfigError(f"filter {rule!r} is not a comparison such as 'strategy.k < 3 or seed == 0'") from error
    try:
        return _truth(tree.body, values, known) is not False
    except (TypeError, ZeroDivisionError) as error:
        raise ConfigError(f"filter {rule!r} cannot be worked out: {error}") from error


def _truth(node: ast.expr, values: Mapping[str, Any], known: Collection[str]) -> bool | None:
    match node:
        case ast.BoolOp(op=ast.And(), values=parts):
            truths = [_truth(part, values, known) for part in parts]
            return min(truths, key=ALL_OF.index)
        case ast.BoolOp(op=ast.Or(), values=parts):
            truths = [_truth(part, values, known) for part in parts]
            return min(truths, key=ANY_OF.index)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            truth = _truth(operand, values, known)
            return None if truth is None else not truth
        case ast.Compare(left=first, ops=operators, comparators=others):
            terms = [_value(term, values, known) for term in (first, *others)]
            if MISSING in terms:
                return None
            for sign in operators:
                if type(sign) not in COMPARISONS:
                    name = type(sign).__name__.lower()
                    raise ConfigError(f"filter: {name} is not allowed; use == != < <= > >= in, not in")
            compare = map(COMPARISONS.__getitem__, map(type, operators))
            return all(holds(*pair) for holds, pair in zip(compare, pairwise(terms), strict=True))
    value = _value(node, values, known)
    if value is MISSING:
        return None
    if not isinstance(value, bool):
        raise ConfigError(f"filter part {ast.unparse(node)!r} is neither true nor false; compare it with something")
    return value


def _value(node: ast.expr, values: Mapping[str, Any], known: Collection[str]) -> Any:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None as constant):
            return constant
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item, values, known) for item in items]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = _value(operand, values, known)
            return MISSING if value is MISSING else -value
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in ARITHMETIC:
            numbers = [_value(left, values, known), _value(right, values, known)]
            if MISSING in numbers:
                return MISSING
            if not all(isinstance(number, int | float) for number in numbers):
                raise TypeError(f"{ast.unparse(node)} is not arithmetic over numbers")
            return ARITHMETIC[type(sign)](*numbers)
        case ast.Name() | ast.Attribute():
            name = ast.unparse(node)
            if name not in known:
                raise ConfigError(f"filter names {name!r}, which no run has; {did_you_mean(name, known)}")
            return values.get(name, MISSING)
    raise ConfigError(f"filter part {ast.unparse(node)!r} is not allowed; use names, numbers, texts and comparisons")
