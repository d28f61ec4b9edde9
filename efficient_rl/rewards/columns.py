"""What rewards read from the trainer's columns, and from a completion's text."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import groupby, starmap
from typing import Any

from efficient_rl.rewards.verify import DEFAULT_PLACE, has_verdict, is_correct

ANSWER_TAG = "<answer>"
Texts = list[str]  # one a completion
Column = Texts | None  # of the data, where they have it
Completions = Sequence[Any]  # texts, or lists of messages


def text_of(completion: Any) -> str:
    """The text of a completion: itself, or what the model says in its messages, in their order.

    A message is a mapping with `content`: a text, a list of parts of which those with `text` count,
    or None as in calls of tools. Messages of another role than `assistant`, such as what a tool
    answered, are left out. TypeError for anything else.
    """
    if isinstance(completion, str):
        return completion
    if isinstance(completion, Mapping):
        own = completion.get("role", "assistant") == "assistant"
        return text_of(completion.get("content", completion.get("text")) or "") if own else ""
    if isinstance(completion, Sequence):
        return "\n".join(filter(None, map(text_of, completion)))
    raise TypeError(
        f"a completion is {completion!r:.60} of type {type(completion).__name__}; give a text or a list of messages"
    )


def whole_texts(completions: Completions, prefill: Sequence[str] | None = None) -> list[str]:
    """Each completion's text, with the beginning that its prompt wrote already (`<think>`)."""
    texts = list(map(text_of, completions))
    return texts if prefill is None else list(map("".join, zip(prefill, texts, strict=True)))


def reasoning(text: str) -> str:
    """What stands before the last answer tag; everything where there is none.

    Text between `</think>` and the answer belongs to it, so that empty think tags hide nothing from
    a reward.
    """
    end = text.rfind(ANSWER_TAG)
    return text if end < 0 else text[:end]


def verdicts(
    completions: Completions,
    check: Sequence[str],
    gold: Sequence[str],
    place: Sequence[str] | None,
    prefill: Sequence[str] | None = None,
) -> list[bool | None]:
    """Whether each completion's answer is right, None where no answer could match the gold one.

    `gold` is JSON, `place` None the default.
    """
    rows = zip(whole_texts(completions, prefill), check, gold, positions(place, len(completions)), strict=True)
    return list(starmap(_verdict, rows))


def positions(place: Sequence[str] | None, count: int) -> Sequence[str]:
    """Where each of `count` completions has its answer: as the data say, or the default."""
    return [DEFAULT_PLACE] * count if place is None else place


@lru_cache(maxsize=512)
def _verdict(completion: str, check: str, gold: str, place: str) -> bool | None:
    """Remembered, since several terms of one reward ask about the same completions."""
    read = json.loads(gold)
    right = is_correct(completion, check, read, place)
    return right if has_verdict(check, read) else None


def groups(prompts: Sequence[Any]) -> list[range]:
    """The rows of each group: neighbours whose prompts are equal."""
    found, start = [], 0
    for _, rows in groupby(prompts):
        stop = start + len(list(rows))
        found.append(range(start, stop))
        start = stop
    return found
