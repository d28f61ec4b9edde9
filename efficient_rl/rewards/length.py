"""Rewards for the length of a completion and for repetition, all counted in tokens."""

import math
from dataclasses import dataclass
from itertools import starmap
from typing import Any, ClassVar

from efficient_rl.errors import require
from efficient_rl.rewards.columns import Completions, groups, verdicts


@dataclass(frozen=True)
class KimiLength:
    """Shorter is better among one prompt's right completions (Kimi k1.5, arXiv:2501.12599).

    With lambda = 0.5 - (tokens - min) / (max - min) over the group: lambda where the answer is
    right, min(0, lambda) where it is wrong, 0 for all where all are equally long, None where no
    answer could match the gold one.
    """

    whole_groups: ClassVar[bool] = True  # compares the completions of one prompt, so none may lie in another process
    __name__ = "length"

    def __call__(
        self,
        completions: Completions,
        completion_ids: list[list[int]],
        prompts: list[Any],
        check: list[str],
        gold: list[str],
        place: list[str] | None = None,
        prefill: list[str] | None = None,
        **_: Any,
    ) -> list[float | None]:
        """One value in -0.5 to 0.5 a completion; neighbours with equal prompts are a group."""
        right = verdicts(completions, check, gold, place, prefill)
        values = [None if known is None else 0.0 for known in right]
        for rows in groups(prompts):
            lengths = list(map(len, completion_ids[rows.start : rows.stop]))
            low, high = min(lengths), max(lengths)
            if low < high:
                for row, length in zip(rows, lengths, strict=True):
                    bonus = 0.5 - (length - low) / (high - low)
                    if right[row] is not None:
                        values[row] = bonus if right[row] else min(0.0, bonus)
        return values


@dataclass(frozen=True)
class Cosine:
    """Right answers pay more when short, wrong ones cost less when long (arXiv:2502.03373, C.1).

    long + (short - long) (1 + cos(pi t / T)) / 2 for t of at most T = `max_tokens` tokens, where
    short and long are the values at 0 and at T tokens; beyond T it stays at long. `exceeded`
    replaces it from T tokens on, where it is set. The bounds are those of Open-R1 with the order
    among wrong answers that the paper means. None where no answer could match the gold one.
    """

    max_tokens: int
    right_short: float = 1.0
    right_long: float = 0.5
    wrong_short: float = -1.0
    wrong_long: float = -0.5
    exceeded: float | None = None

    __name__ = "cosine"

    def __post_init__(self) -> None:
        require(self.max_tokens >= 1, "reward.cosine.max_tokens", self.max_tokens, "must be at least 1 token")
        bounds = (self.right_short, self.right_long, self.wrong_short, self.wrong_long, self.exceeded or 0.0)
        require(all(map(math.isfinite, bounds)), "reward.cosine", bounds, "must have finite bounds")
        require(
            self.right_short >= self.right_long > self.wrong_long >= self.wrong_short, "reward.cosine", bounds[:4],
            "must fall: right_short >= right_long > wrong_long >= wrong_short",
        )  # fmt: skip

    def __call__(
        self,
        completions: Completions,
        completion_ids: list[list[int]],
        check: list[str],
        gold: list[str],
        place: list[str] | None = None,
        prefill: list[str] | None = None,
        **_: Any,
    ) -> list[float | None]:
        """One value between the bounds a completion; its length is the number of its token ids."""
        right = verdicts(completions, check, gold, place, prefill)
        return list(starmap(self._value, zip(map(len, completion_ids), right, strict=True)))

    def _value(self, tokens: int, right: bool | None) -> float | None:
        if right is None:
            return None
        if tokens >= self.max_tokens and self.exceeded is not None:
            return float(self.exceeded)
        short, long = self.wrong_short, self.wrong_long
        if right:
            short, long = self.right_short, self.right_long
        return long + (short - long) * (1 + math.cos(math.pi * min(1.0, tokens / self.max_tokens))) / 2


@dataclass(frozen=True)
class SoftOverlong:
    """0 up to L - c tokens, then falling to -1 at L tokens (DAPO, arXiv:2503.14476, equation 13).

    L is `max_tokens`, c is `cache_tokens`; without one it is a fifth of L, as in the paper (4,096
    of 20,480).
    """

    max_tokens: int
    cache_tokens: int | None = None

    __name__ = "soft_overlong"

    def __post_init__(self) -> None:
        require(self.max_tokens >= 1, "reward.soft_overlong.max_tokens", self.max_tokens, "must be at least 1 token")
        if self.cache_tokens is None:
            object.__setattr__(self, "cache_tokens", self.max_tokens // 5)
        require(
            0 <= (self.cache_tokens or 0) <= self.max_tokens, "reward.soft_overlong.cache_tokens", self.cache_tokens,
            f"must lie in 0 to max_tokens={self.max_tokens}",
        )  # fmt: skip

    def __call__(self, completion_ids: list[list[int]], **_: Any) -> list[float]:
        """One value in -1 to 0 a completion."""
        return list(map(self._value, map(len, completion_ids)))

    def _value(self, tokens: int) -> float:
        cache = self.cache_tokens or 0
        over = tokens - (self.max_tokens - cache)
        if over <= 0:
            return 0.0
        return -min(1.0, over / cache) if cache else -1.0


@dataclass(frozen=True)
class Repetition:
    """(1 - different / all) x `max_penalty` over n-grams of tokens (arXiv:2502.03373, C.2)."""

    ngram: int = 3
    max_penalty: float = -1.0

    __name__ = "repetition"

    def __post_init__(self) -> None:
        require(self.ngram >= 1, "reward.repetition.ngram", self.ngram, "must be at least 1 token; Open-R1 takes 3")
        bound = "must be a finite number of at most 0: a penalty"
        require(-math.inf < self.max_penalty <= 0, "reward.repetition.max_penalty", self.max_penalty, bound)

    def __call__(self, completion_ids: list[list[int]], **_: Any) -> list[float]:
        """One value in `max_penalty` to 0 a completion."""
        return list(map(self._value, completion_ids))

    def _value(self, ids: list[int]) -> float:
        count = len(ids) - self.ngram + 1
        if count < 1:
            return 0.0
        different = len(set(zip(*(ids[start : start + count] for start in range(self.ngram)), strict=True)))
        return self.max_penalty * (1 - different / count) + 0.0
