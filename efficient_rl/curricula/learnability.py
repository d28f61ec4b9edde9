"""Problems that are neither always nor never solved, by estimates from earlier visits."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from efficient_rl.curricula.checks import check_choice, check_number, check_pool, check_whole
from efficient_rl.curricula.levels import Levels
from efficient_rl.curricula.order import Epochs
from efficient_rl.curricula.protocol import Curriculum
from efficient_rl.curricula.signals import Success

UNKNOWN = 0.5  # the most learnable success rate, and the largest standard deviation in [0, 1]
DIGITS = 6  # of an estimate: a checkpoint holds whole millionths, which are small and quickly written
SCALE = 10**DIGITS


class Learnability(Curriculum):
    """Trains on the share `top` of the candidates with the highest score.

    `score=variance` is LILO (arXiv:2502.12272): p (1 - p) of the estimated success p.
    `score=deviation` is RAGEN's filter (arXiv:2504.20073): the estimated standard deviation of the
    rewards in a group, top quarter. The papers generate for all candidates and throw the rest away;
    here the estimates come from earlier visits and nothing is generated in vain.

    Of count / `top` candidates (all of the pool before any again) the first `explore` x count are
    taken as they come, so that no estimate grows stale for good, and the best of the others. A
    visit moves a problem's estimate by `rate` of the way to what its group showed, and its level's
    by `rate` of the way to the mean of the level's groups in the batch. A problem that was never
    visited counts as its level, and a level without visits as the best possible: 1/2.
    """

    def __init__(
        self,
        score: str = "variance",
        top: float = 0.25,
        explore: float = 0.25,
        rate: float = 0.5,
        levels: int = 8,
        success_at: float | None = None,
    ) -> None:
        check_choice("score", score, ("variance", "deviation"))
        check_number("top", top, low=0, high=1, above=True)
        check_number("explore", explore, low=0, high=1)
        check_number("rate", rate, low=0, high=1, above=True)
        check_whole("levels", levels, low=1)
        self.by_variance, self.top, self.explore, self.rate = score == "variance", top, explore, rate
        self.most_levels = levels
        self.success = Success(success_at)

    def begin(self, difficulties: Sequence[float], seed: int, steps: int) -> None:
        self.levels = Levels(check_pool(difficulties, steps), self.most_levels)
        self.candidates = Epochs(range(len(difficulties)), f"{seed}")
        self.level_estimates = [UNKNOWN] * len(self.levels)
        self.estimates: dict[int, float] = {}

    def estimate(self, index: int) -> float:
        """The success, or the deviation, that is expected of the problem."""
        return self.estimates.get(index, self.level_estimates[self.levels.of[index]])

    def score(self, index: int) -> float:
        """How much the problem should teach: p (1 - p), or the deviation."""
        expected = self.estimate(index)
        return expected * (1 - expected) if self.by_variance else expected

    def draw(self, count: int, step: int) -> list[int]:
        size = len(self.levels.of)
        wanted = max(count, min(size, math.ceil(round(count / self.top, 6))))
        candidates = self.candidates.take(wanted)
        explored = round(count * self.explore)
        ranked = sorted(candidates[explored:], key=self.score, reverse=True)  # stable: equals as they come
        return candidates[:explored] + ranked[: count - explored]

    def observe(self, indices: Sequence[int], rewards: Sequence[Sequence[float]], step: int) -> None:
        self.success.see(rewards)
        by_level: dict[int, list[float]] = {}
        for index, group in zip(indices, rewards, strict=True):
            shown = self.success.rate(group) if self.by_variance else self.success.deviation(group)
            if shown is not None:
                self.estimates[index] = self._moved(self.estimate(index), shown)
                by_level.setdefault(self.levels.of[index], []).append(shown)
        for level, found in by_level.items():
            self.level_estimates[level] = self._moved(self.level_estimates[level], statistics.fmean(found))

    def _moved(self, old: float, shown: float) -> float:
        return round(old + self.rate * (shown - old), DIGITS)

    def beliefs(self) -> dict[str, float]:
        """The success (or deviation) of every level, and how many problems were visited."""
        kind = "success" if self.by_variance else "deviation"
        found = self.levels.named(kind, self.level_estimates)
        return found | {"visited": float(len(self.estimates))}

    def state_dict(self) -> dict[str, Any]:
        return {
            "drawn": self.candidates.drawn,
            "levels": list(self.level_estimates),
            "visited": list(self.estimates),
            "millionths": [round(value * SCALE) for value in self.estimates.values()],
            "success": self.success.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.candidates.drawn = state["drawn"]
        self.level_estimates = list(state["levels"])
        shares = (millionths / SCALE for millionths in state["millionths"])
        self.estimates = dict(zip(state["visited"], shares, strict=True))
        self.success.load_state_dict(state["success"])
