"""Rewards for the form of a completion: think and answer tags, marked steps."""

import re
from dataclasses import dataclass
from typing import Any

from efficient_rl.errors import require
from efficient_rl.rewards.columns import Completions, whole_texts

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
STEP_LINE = re.compile(
    r"^[ \t]{0,8}(?:step[ ]\d{1,4}\b[ \t]?[:.)-]?|\d{1,4}[.)](?!\d)|[-*\u2022](?=[ \t]))(.*)$", re.I | re.M
)
STEP_WORD = re.compile(r"\b(first(?:ly)?|second(?:ly)?|third(?:ly)?|next|then|finally|lastly),([^\n.]*)", re.I)


@dataclass(frozen=True)
class ThinkFormat:
    """1 for exactly `<think>...</think><answer>...</answer>`, else 0 (R1, arXiv:2501.12948).

    Each tag stands once; only white space may stand between the two pairs and around them. What the
    prompt already wrote of the completion counts.
    """

    __name__ = "think_format"

    def __call__(self, completions: Completions, prefill: list[str] | None = None, **_: Any) -> list[float]:
        """One value a completion; `prefill` is a column."""
        return list(map(_is_tagged, whole_texts(completions, prefill)))


def _counts(text: str) -> list[int]:
    return list(map(text.count, TAGS))


def _is_tagged(text: str) -> float:
    text = text.strip()
    if not (text.startswith(TAGS[0]) and text.endswith(TAGS[3]) and _counts(text) == [1] * 4):
        return 0.0
    closed, opened = text.find(TAGS[1]), text.find(TAGS[2])
    return float(closed < opened and not text[closed + len(TAGS[1]) : opened].strip())


@dataclass(frozen=True)
class TagCount:
    """0.25 for each think or answer tag that occurs exactly once (as Open-R1, any line breaks)."""

    __name__ = "tag_count"

    def __call__(self, completions: Completions, prefill: list[str] | None = None, **_: Any) -> list[float]:
        """One value of 0, 0.25, 0.5, 0.75 or 1 a completion; `prefill` is a column."""
        return [_counts(text).count(1) / 4 for text in whole_texts(completions, prefill)]


@dataclass(frozen=True)
class ReasoningSteps:
    """min(1, steps / `wanted`), after Open-R1; steps begin `Step 2:`, `2.`, `-` or `First,`.

    Only steps that say something, and different things, count. It still pays for form alone: give
    it a small weight.
    """

    wanted: int = 3

    __name__ = "reasoning_steps"

    def __post_init__(self) -> None:
        require(self.wanted >= 1, "reward.reasoning_steps.wanted", self.wanted, "must be at least 1; Open-R1 wants 3")

    def __call__(self, completions: Completions, **_: Any) -> list[float]:
        """One value in 0 to 1 a completion."""
        return [min(1.0, len(_steps(text)) / self.wanted) for text in whole_texts(completions)]


def _steps(text: str) -> set[str]:
    """What the marked steps say; a numbered line that begins with `First,` is one step."""
    lines = {match[1].strip() for match in STEP_LINE.finditer(text)}
    words = {match[2].strip() for match in STEP_WORD.finditer(STEP_LINE.sub("", text))}
    return (lines | words) - {""}
