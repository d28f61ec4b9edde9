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
from efficient_rl.rewards.math_check import MAX_ANSWER_CHARACTERS, math
from efficient_rl.rewards.notation import is_word, plain
from efficient_rl.rewards.numerals import MAX_CHARACTERS, answers, parse_number, read_quantity
from efficient_rl.rewards.units import NUMBER_WORDS

__all__ = [
    "CHECKERS",
    "DEFAULT_PLACE",
    "PLACES",
    "choice",
    "countdown",
    "extract_answer",
    "has_verdict",
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


def _is_number(gold: Mapping[str, Any]) -> bool:
    return parse_number(str(gold["answer"])) is not None


def _is_option(gold: Mapping[str, Any]) -> bool:
    return CHOICE.fullmatch(str(gold["answer"]).strip()) is not None


def _is_readable(gold: Mapping[str, Any]) -> bool:
    """Whether a gold answer is neither empty, nor too long, nor a number in words: forty two."""
    text = plain(str(gold["answer"])[: MAX_ANSWER_CHARACTERS + 1])
    spelled = is_word(text) and ("_" in text or not NUMBER_WORDS.isdisjoint(re.split(r"[\W_]+", text.lower())))
    return 0 < len(text) <= MAX_ANSWER_CHARACTERS and not spelled


def _is_target(gold: Mapping[str, Any]) -> bool:
    return bool(gold["numbers"]) and isinstance(gold["target"], int)


CHECKERS: dict[str, Callable[[str, Mapping[str, Any]], bool]] = {
    "countdown": countdown,
    "number": number,
    "math": math,
    "choice": choice,
}
READABLE: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "countdown": _is_target,
    "number": _is_number,
    "math": _is_readable,
    "choice": _is_option,
}


def _named(table: Mapping[str, Callable[..., bool]], check: str) -> Callable[..., bool]:
    try:
        return table[check]
    except KeyError:
        raise ValueError(f"check={check!r} is unknown; use one of {', '.join(CHECKERS)}") from None


def has_verdict(check: str, gold: Mapping[str, Any]) -> bool:
    """Whether some answer could match the gold one: a number that can be read, an option letter.

    Where none could, `is_correct` is False for every answer, and rewards that ask for it are None.
    ValueError for a checker that does not exist.
    """
    return _named(READABLE, check)(gold)


def is_correct(completion: str, check: str, gold: Mapping[str, Any], place: str = DEFAULT_PLACE) -> bool:
    """Whether the answer at `place` passes the checker named `check`; no text makes it raise.

    ValueError for a checker or place that does not exist, before any text is read.
    """
    checker = _named(CHECKERS, check)
    answer = extract_answer(completion, place)
    return answer is not None and checker(answer, gold)
