"""TinyZero's scorers for countdown and multiplication, fixed, and countdown as published."""

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import add, floordiv, mul, sub, truediv
from typing import Any

from efficient_rl.errors import require
from efficient_rl.rewards.arithmetic import evaluate
from efficient_rl.rewards.columns import Column, Completions, Texts, whole_texts
from efficient_rl.rewards.verify import extract_answer

MAX_CHARACTERS = 1_000
MAX_BITS = 20_000
TAGGED = re.compile(r"<answer>(.*?)</answer>")
DIGITS = re.compile(r"\d+")
ALLOWED = re.compile(r"[\d+\-*/().\s]+")
WHOLE = re.compile(r"[+-]?[0-9]{1,30}")
TOLERANCE = 1e-5
Number = int | float | complex


@dataclass(frozen=True)
class TinyZeroCountdown:
    """TinyZero's reward for countdown: 0, `format_score` for a wrong answer, `score` for right.

    By default it is strict: the last answer tags anywhere in the completion count, exact fractions
    over + - * / decide, and what is no expression gets 0, so that tags around junk earn nothing.
    `all_numbers` demands every number exactly once, as the checker `countdown` does; without it
    each may be used at most once, as TinyZero's prompt says.

    `tinyzero_compat` gives the published scorer's values (https://github.com/Jiayi-Pan/TinyZero)
    with all its faults: what follows the first `Assistant:` of prompt and completion, its last line
    only, digits compared as whole numbers, powers and floor division, a tolerance of 1e-5. Text is
    parsed, never executed, and what is too large for the bounds (1,000 characters, 20,000 bits),
    where the published one may hang, gets `format_score`. Problems of other kinds get None.
    """

    tinyzero_compat: bool = False
    format_score: float = 0.1
    score: float = 1.0
    all_numbers: bool = True

    __name__ = "tinyzero_countdown"

    def __post_init__(self) -> None:
        bound = f"must lie below score={self.score} and not below 0"
        require(0 <= self.format_score < self.score, "reward.tinyzero_countdown.format_score", self.format_score, bound)

    def __call__(
        self, completions: Completions, check: Texts, gold: Texts, prompts: Column = None, prefill: Column = None, **_: Any
    ) -> list[float | None]:
        """One value a completion, None for other checks than `countdown`; `gold` is JSON."""
        texts, value = whole_texts(completions, prefill), self._strict
        if self.tinyzero_compat:
            texts, value = whole_texts(completions), self._published
            if prompts:
                texts = [str(prompt) + text for prompt, text in zip(prompts, texts, strict=True)]
        rows = zip(check, texts, map(json.loads, gold), strict=True)
        return [value(*row) if name == "countdown" else None for name, *row in rows]

    def _strict(self, text: str, gold: Mapping[str, Any]) -> float:
        answer = extract_answer(text)
        found = None if answer is None else evaluate(answer, strict=True)
        if found is None:
            return 0.0
        left = Counter(gold["numbers"])
        left.subtract(found.numbers)
        fits = min(left.values()) >= 0 and not (self.all_numbers and any(left.values()))
        return float(self.score if fits and found.value == gold["target"] else self.format_score)

    def _published(self, text: str, gold: Mapping[str, Any]) -> float:
        answer = published_answer(text)
        if answer is None:
            return 0.0
        if len(answer) > MAX_CHARACTERS or sorted(map(int, DIGITS.findall(answer))) != sorted(gold["numbers"]):
            return float(self.format_score)
        try:
            near = ALLOWED.fullmatch(answer) is not None and abs(python_value(answer) - gold["target"]) < TOLERANCE
        except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError):
            return float(self.format_score)
        return float(self.score if near else self.format_score)


@dataclass(frozen=True)
class TinyZeroMultiply:
    """TinyZero's reward for whole numbers: 0, `format_score` for a wrong one, `score` for right.

    The last answer tags count; the published scorer also wants `Assistant:` in the prompt. Problems
    whose gold answer is no whole number get None.
    """

    format_score: float = 0.1
    score: float = 1.0

    __name__ = "tinyzero_multiply"

    def __post_init__(self) -> None:
        bound = f"must lie below score={self.score} and not below 0"
        require(0 <= self.format_score < self.score, "reward.tinyzero_multiply.format_score", self.format_score, bound)

    def __call__(
        self, completions: Completions, gold: list[str], prefill: list[str] | None = None, **_: Any
    ) -> list[float | None]:
        """One value a completion; `gold` is JSON with an answer."""
        rows = zip(whole_texts(completions, prefill), map(json.loads, gold), strict=True)
        return [self._value(text, str(answer.get("answer", ""))) for text, answer in rows]

    def _value(self, text: str, gold: str) -> float | None:
        if not WHOLE.fullmatch(gold):
            return None
        answer = extract_answer(text)
        if answer is None or not WHOLE.fullmatch(answer):
            return 0.0
        return float(self.score if int(answer) == int(gold) else self.format_score)


def published_answer(text: str) -> str | None:
    """The answer that TinyZero's countdown scorer sees in prompt and completion, or None."""
    for opening in ("Assistant:", "<|im_start|>assistant"):
        if opening in text:
            line = text.split(opening, 1)[1].rpartition("\n")[2]
            answers = TAGGED.findall(line, 0, line.rfind("</answer>") + len("</answer>"))
            return answers[-1].strip() if answers else None
    return None


def python_value(text: str) -> Number:
    """Python's value of arithmetic over + - * / // ** and numbers, without executing it.

    ValueError for anything else and for values beyond 20,000 bits; else what Python raises.
    """
    return _value(ast.parse(text, mode="eval").body)


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=operator, right=right):
            return _apply(operator, _value(left), _value(right))
    raise ValueError("not arithmetic over numbers")


def _apply(operator: ast.operator, a: Any, b: Any) -> Number:
    if type(operator) not in OPERATIONS:
        raise ValueError("not one of + - * / // **")
    value = OPERATIONS[type(operator)](a, b)
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ValueError(f"beyond {MAX_BITS} bits")
    return value  # type: ignore[no-any-return]


def _power(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int) and b > 0 and a.bit_length() * b > MAX_BITS:
        raise ValueError(f"beyond {MAX_BITS} bits")
    return a**b


OPERATIONS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: add,
    ast.Sub: sub,
    ast.Mult: mul,
    ast.Div: truediv,
    ast.FloorDiv: floordiv,
    ast.Pow: _power,
}
