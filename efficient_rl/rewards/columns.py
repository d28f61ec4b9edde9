"""What the rewards read from the columns that the trainer hands them, and from a completion's text."""

import json
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any

from efficient_rl.rewards.verify import is_correct

ANSWER_TAG = "<answer>"


def whole_texts(completions: Sequence[str], prefill: Sequence[str] | None) -> list[str]:
    """Each completion with the beginning that its prompt had already written, such as `<think>`."""
    if prefill is None:
        return list(completions)
    return [start + completion for start, completion in zip(prefill, completions, strict=True)]


def reasoning(text: str) -> str:
    """What stands before the last answer tag; everything where there is none.

    Text between `</think>` and the answer belongs to it, so that empty think tags hide nothing from
    a reward.
    """
    end = text.rfind(ANSWER_TAG)
    return text if end < 0 else text[:end]


def verdicts(
    completions: Sequence[str],
    check: Sequence[str],
    gold: Sequence[str],
    place: Sequence[str] | None,
    prefill: Sequence[str] | None = None,
) -> list[bool]:
    """Whether each completion's answer is right; `gold` is JSON, `place` says where the answer stands (None: default)."""
    completions = whole_texts(completions, prefill)
    places: Sequence[str | None] = [None] * len(completions) if place is None else place
    return [_verdict(*row) for row in zip(completions, check, gold, places, strict=True)]


@lru_cache(maxsize=512)
def _verdict(completion: str, check: str, gold: str, place: str | None) -> bool:
    """Remembered, since several terms of one reward ask about the same completions."""
    arguments: Any = () if place is None else (place,)
    return is_correct(completion, check, json.loads(gold), *arguments)


def groups(prompts: Sequence[Any]) -> list[range]:
    """The rows of each group: neighbours whose prompts are equal."""
    found, start = [], 0
    for _, rows in groupby(prompts):
        stop = start + sum(1 for _ in rows)
        found.append(range(start, stop))
        start = stop
    return found


def require(condition: bool, name: str, value: object, bound: str) -> None:
    """Raise a ValueError that names the argument, its value and its bound, unless the condition holds."""
    if not condition:
        raise ValueError(f"{name}={value!r} {bound}")
