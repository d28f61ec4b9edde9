"""What rewards read from the trainer's columns, and from a completion's text."""

import json
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby, starmap
from typing import Any

from efficient_rl.rewards.verify import DEFAULT_PLACE, is_correct

ANSWER_TAG = "<answer>"
Texts = list[str]  # one a completion
Column = Texts | None  # of the data, where they have it


def whole_texts(completions: Sequence[str], prefill: Sequence[str] | None) -> list[str]:
    """Each completion with the beginning that its prompt had already written, such as `<think>`."""
    if prefill is None:
        return list(completions)
    return list(map("".join, zip(prefill, completions, strict=True)))


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
    """Whether each completion's answer is right; `gold` is JSON, `place` None the default."""
    rows = zip(whole_texts(completions, prefill), check, gold, positions(place, len(completions)), strict=True)
    return list(starmap(_verdict, rows))


def positions(place: Sequence[str] | None, count: int) -> Sequence[str]:
    """Where each of `count` completions has its answer: as the data say, or the default."""
    return [DEFAULT_PLACE] * count if place is None else place


@lru_cache(maxsize=512)
def _verdict(completion: str, check: str, gold: str, place: str) -> bool:
    """Remembered, since several terms of one reward ask about the same completions."""
    return is_correct(completion, check, json.loads(gold), place)


def groups(prompts: Sequence[Any]) -> list[range]:
    """The rows of each group: neighbours whose prompts are equal."""
    found, start = [], 0
    for _, rows in groupby(prompts):
        stop = start + len(list(rows))
        found.append(range(start, stop))
        start = stop
    return found
