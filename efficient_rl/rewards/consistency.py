"""The reward for reasoning whose equations are true and whose answer follows from them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import starmap
from operator import attrgetter
from typing import Any

from efficient_rl.rewards.arithmetic import evaluate
from efficient_rl.rewards.columns import Column, Completions, Texts, positions, reasoning, whole_texts
from efficient_rl.rewards.equations import Equation, find_equations, in_ascii
from efficient_rl.rewards.verify import extract_answer

NUMBER = re.compile(r"-?[0-9]++(?:,[0-9]{3}(?![0-9]))*+(?:\.[0-9]++)?+(?:/[0-9]++)?+")


@dataclass(frozen=True)
class LogicalConsistency:
    """The share of true equations in the reasoning; 0 where the answer does not follow from them.

    Every different `a op b = c` counts once, by exact fractions (`10 / 3 = 3.33` is false). An
    answer follows if it is the value of the last equation's right side; an answer that is itself an
    expression (countdown) follows if each of its operations stands in a true equation. No gold is
    used: consistent reasoning may still be wrong. Where there is no equation there is no verdict.
    """

    __name__ = "consistency"

    def __call__(
        self, completions: Completions, check: Texts, place: Column = None, prefill: Column = None, **_: Any
    ) -> list[float | None]:
        """One value in 0 to 1 a completion, None without equations."""
        texts = whole_texts(completions, prefill)
        rows = zip(texts, check, positions(place, len(texts)), strict=True)
        return list(starmap(_value, rows))


def _value(text: str, check: str, place: str) -> float | None:
    equations = list(find_equations(reasoning(text)).values())
    if not equations:
        return None
    answer = extract_answer(text, place)
    follows = _is_made_of if check == "countdown" else _is_last_value
    if answer is None or not follows(answer, equations):
        return 0.0
    return sum(equation.true for equation in equations) / len(equations)


def _is_made_of(answer: str, equations: Sequence[Equation]) -> bool:
    """Whether all operations of an expression stand in true equations."""
    written = evaluate(in_ascii(answer).strip())
    if written is None or not written.operations:
        return False
    true = filter(attrgetter("true"), equations)
    return written.operations <= frozenset().union(*map(attrgetter("operations"), true))


def _is_last_value(answer: str, equations: Sequence[Equation]) -> bool:
    """Whether the answer, or the only number in it, is the value of the last equation."""
    plain = in_ascii(answer[:1000])
    numbers = NUMBER.findall(plain)
    written = evaluate(plain.strip())
    if written is None and len(numbers) == 1:
        written = evaluate(numbers[0])
    return written is not None and written.value == equations[-1].value
