"""Levels as the arms of a bandit whose reward is how large the advantages of training are."""

import math
import statistics
from collections import deque
from collections.abc import Sequence
from typing import Any

from efficient_rl.curricula.checks import check_number, check_whole
from efficient_rl.curricula.levels import LevelMixture
from efficient_rl.curricula.signals import absolute_advantages


def softmax(values: Sequence[float], temperature: float) -> list[float]:
    """Probabilities proportional to exp(value / temperature)."""
    largest = max(values)
    weights = [math.exp((value - largest) / temperature) for value in values]
    total = sum(weights)
    return [weight / total for weight in weights]


class LevelBandit(LevelMixture):
    """Draws levels by a softmax of their values, and sorts the advantages of a batch by level."""

    def __init__(self, temperature: float, levels: int) -> None:
        super().__init__(levels)
        check_number("temperature", temperature, low=0, above=True)
        self.temperature = temperature

    def values(self) -> list[float]:
        """What each level is worth now."""
        raise NotImplementedError

    def learn(self, level: int, advantages: list[float]) -> None:
        """Take in |A| of all scored completions of a batch that belong to the level."""
        raise NotImplementedError

    def probabilities(self, step: int) -> list[float]:
        return softmax(self.values(), self.temperature)

    def observe(self, indices: Sequence[int], rewards: Sequence[Sequence[float]], step: int) -> None:
        by_level: dict[int, list[float]] = {}
        for index, group in zip(indices, rewards, strict=True):
            by_level.setdefault(self.levels.of[index], []).extend(absolute_advantages(group))
        for level, advantages in sorted(by_level.items()):
            if advantages:
                self.learn(level, advantages)

    def beliefs(self) -> dict[str, float]:
        """Probability and value of every level."""
        return super().beliefs() | self.levels.named("value", self.values())


class SEC(LevelBandit):
    """Self-evolving curriculum (arXiv:2505.14970): Q <- Q + alpha (mean |A| - Q) of drawn levels.

    `rate` is alpha; `temperature` is tau, published as 1.0 for countdown, 0.4 for mathematics, 0.2
    with two dimensions of levels. Every Q starts at 0.
    """

    def __init__(self, rate: float = 0.5, temperature: float = 1.0, levels: int = 8) -> None:
        super().__init__(temperature, levels)
        check_number("rate", rate, low=0, high=1, above=True)
        self.rate = rate

    def begin(self, difficulties: Sequence[float], seed: int, steps: int) -> None:
        super().begin(difficulties, seed, steps)
        self.quality = [0.0] * len(self.levels)

    def values(self) -> list[float]:
        return self.quality

    def learn(self, level: int, advantages: list[float]) -> None:
        self.quality[level] += self.rate * (statistics.fmean(advantages) - self.quality[level])

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"quality": list(self.quality)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.quality = list(state["quality"])


class DUMP(LevelBandit):
    """DUMP (arXiv:2504.09710): value = mean |A| of `window` completions + sqrt(2 ln(N+1) / (n+1)).

    p is proportional to exp(value / `temperature`). n counts all completions of the level, N those
    of all levels; the mean of a level without any is 0. It learns from training rewards alone; the
    released trainer takes in those of its validation too, and so lets the test choose the training.
    """

    def __init__(self, window: int = 300, temperature: float = 0.1, levels: int = 8) -> None:
        super().__init__(temperature, levels)
        check_whole("window", window, low=1)
        self.window = window

    def begin(self, difficulties: Sequence[float], seed: int, steps: int) -> None:
        super().begin(difficulties, seed, steps)
        self.seen = [0] * len(self.levels)
        self.recent: list[deque[float]] = [deque(maxlen=self.window) for _ in self.seen]

    def values(self) -> list[float]:
        spread = 2 * math.log(sum(self.seen) + 1)
        return [
            statistics.fmean(recent or [0.0]) + math.sqrt(spread / (seen + 1))
            for recent, seen in zip(self.recent, self.seen, strict=True)
        ]

    def learn(self, level: int, advantages: list[float]) -> None:
        self.recent[level].extend(advantages)
        self.seen[level] += len(advantages)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"recent": list(map(list, self.recent)), "seen": list(self.seen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.seen = list(state["seen"])
        self.recent = [deque(recent, maxlen=self.window) for recent in state["recent"]]
