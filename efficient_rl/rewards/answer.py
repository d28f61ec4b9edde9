"""Rewards for the tagged answer: that there is one, and that it is right."""

from dataclasses import dataclass
from typing import Any

from efficient_rl.rewards.columns import Column, Completions, Texts, verdicts, whole_texts
from efficient_rl.rewards.verify import extract_answer


@dataclass(frozen=True)
class Accuracy:
    """1 where the answer passes the problem's checker, else 0 (DeepSeek-R1, arXiv:2501.12948).

    None where no answer could match the gold one.
    """

    __name__ = "accuracy"

    def __call__(
        self, completions: Completions, check: Texts, gold: Texts, place: Column = None, prefill: Column = None, **_: Any
    ) -> list[float | None]:
        """One value a completion; `check`, `gold` (JSON) and `place` are columns of the data."""
        found = verdicts(completions, check, gold, place, prefill)
        return [None if right is None else float(right) for right in found]


@dataclass(frozen=True)
class AnswerFormat:
    """1 where there is a pair of answer tags, else 0 (TinyZero pays 0.1 for it)."""

    __name__ = "format"

    def __call__(self, completions: Completions, prefill: Column = None, **_: Any) -> list[float]:
        """One value a completion; `prefill` is a column."""
        return [float(extract_answer(text, "tags") is not None) for text in whole_texts(completions, prefill)]
