"""Rewards for the tagged answer: that there is one, and that it is right."""

from dataclasses import dataclass
from typing import Any

from efficient_rl.rewards.columns import Column, Texts, verdicts, whole_texts
from efficient_rl.rewards.verify import extract_answer


@dataclass(frozen=True)
class Accuracy:
    """1 where the answer passes the problem's checker, else 0 (DeepSeek-R1, arXiv:2501.12948)."""

    __name__ = "accuracy"

    def __call__(
        self, completions: Texts, check: Texts, gold: Texts, place: Column = None, prefill: Column = None, **_: Any
    ) -> list[float]:
        """One value a completion; `check`, `gold` (JSON) and `place` are columns of the data."""
        return [float(right) for right in verdicts(completions, check, gold, place, prefill)]


@dataclass(frozen=True)
class AnswerFormat:
    """1 where there is a pair of answer tags, else 0 (TinyZero pays 0.1 for it)."""

    __name__ = "format"

    def __call__(self, completions: list[str], prefill: Column = None, **_: Any) -> list[float]:
        """One value a completion; `prefill` is a column."""
        return [float(extract_answer(text, "tags") is not None) for text in whole_texts(completions, prefill)]
