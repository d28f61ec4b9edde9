"""Rewards for the tagged answer: that there is one, and that it is right."""

import json
from dataclasses import dataclass
from typing import Any

from efficient_rl.rewards.verify import extract_answer, is_correct


@dataclass(frozen=True)
class Accuracy:
    """1 where the answer inside the last answer tags passes the problem's checker, else 0 (DeepSeek-R1's)."""

    __name__ = "accuracy"

    def __call__(self, completions: list[str], check: list[str], gold: list[str], **_: Any) -> list[float]:
        """One value a completion; `check` and `gold` (JSON) are columns of the training data."""
        return [
            float(is_correct(completion, name, json.loads(answer)))
            for completion, name, answer in zip(completions, check, gold, strict=True)
        ]


@dataclass(frozen=True)
class AnswerFormat:
    """1 where the completion has a pair of answer tags, whatever is inside, else 0 (TinyZero pays 0.1 for it)."""

    __name__ = "format"

    def __call__(self, completions: list[str], **_: Any) -> list[float]:
        """One value a completion."""
        return [float(extract_answer(completion) is not None) for completion in completions]
