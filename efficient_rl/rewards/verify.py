"""Verifies answers that a model wrote, without executing them: finds and checks the answer.

Every verdict is bounded in characters and time, is the same in threads and processes, and is wrong
where it is in doubt.
"""

import re
from collections.abc import Callable, Mapping
from math import gcd
from typing import Any

from efficient_rl.rewards.arithmetic import evaluate
from efficient_rl.rewards.extract import DEFAULT_PLACE, PLACES, extract_answer
from efficient_rl.rewards.math_check import math
from efficient_rl.rewards.notation import plain
from efficient_rl.rewards.numerals import MAX_CHARACTERS, answers, parse_number, read_quantity

__all__ = [
    "CHECKERS",
    "DEFAULT_PLACE",
    "PLACES",
    "choice",
    "countdown",
    "extract_answer",
    "is_correct",
    "math",
    "number",
    "parse_number",
]
CHOICE = re.compile(r"(?:option |choice )?\(?([A-E])\)?[.:]?", re.IGNORECASE | re.ASCII)


def countdown(answer: str, gold: Mapping[str, Any]) -> bool:
    """Whether the expression uses every given number exactly once and equals the target."""
    found = evaluate(answer, strict=True)
    if found is None:
        return False
    return sorted(found.numbers) == sorted(gold["numbers"]) and found.value == gold["target"]


def number(answer: str, gold: Mapping[str, Any]) -> bool:
    """Whether the answer is exactly one number (see `parse_number`), equal to `gold["answer"]`.

    With `gold["lowest"]` a fraction must be in lowest terms: 6/8 is no answer where 3/4 is wanted.
    """
    wanted = read_quantity(plain(str(gold["answer"])))
    if wanted is None or len(answer) > MAX_CHARACTERS:
        return False
    return answers(plain(answer), wanted) and not (gold.get("lowest") and _can_be_reduced(answer))


def _can_be_reduced(answer: str) -> bool:
    *_, upper, lower = map(int, ["0", "1", *re.findall(r"\d{1,30}", answer, re.ASCII)])
    return ("/" in answer or "frac" in answer) and gcd(upper, lower) > 1


def choice(answer: str, gold: Mapping[str, Any]) -> bool:
    """Whether the answer is the option letter `gold["answer"]` (A to E), of either case."""
    given = CHOICE.fullmatch(plain(answer)) if len(answer) <= MAX_CHARACTERS else None
    return given is not None and given[1].upper() == str(gold["answer"]).strip("() ").upper()


CHECKERS: dict[str, Callable[[str, Mapping[str, Any]], bool]] = {
    "countdown": countdown,
    "number": number,
    "math": math,
    "choice": choice,
}


def is_correct(completion: str, check: str, gold: Mapping[str, Any], place: str = DEFAULT_PLACE) -> bool:
    """Whether the answer at `place` passes the checker named `check`; no text makes it raise.

    ValueError for a checker or place that does not exist, before any text is read.
    """
    checker = CHECKERS.get(check)
    if checker is None:
        raise ValueError(f"check={check!r} is unknown; use one of {', '.join(CHECKERS)}")
    answer = extract_answer(completion, place)
    return answer is not None and checker(answer, gold)
