"""What a group's rewards say: the size of its advantages, the problem's success rate."""

import math
import statistics
from collections.abc import Sequence
from itertools import chain
from typing import Any

from efficient_rl.curricula.checks import check_number

TINY = 1e-4  # TRL's, added to the standard deviation
ROUNDING = 1e-6  # of sums of weighted rewards


def known(group: Sequence[float | None]) -> list[float]:
    """The rewards of a group that could be scored: no None, no NaN."""
    return [float(reward) for reward in group if reward is not None and math.isfinite(reward)]


def absolute_advantages(group: Sequence[float | None]) -> list[float]:
    """|A| of each scored completion: (reward - mean) / (sample deviation + 1e-4), as in TRL."""
    rewards = known(group)
    if len(rewards) < 2:
        return [0.0] * len(rewards)
    mean = statistics.fmean(rewards)
    gaps = [abs(reward - mean) for reward in rewards]
    deviation = math.sqrt(sum(gap**2 for gap in gaps) / (len(rewards) - 1))
    return [gap / (deviation + TINY) for gap in gaps]


class Success:
    """Rewards as a share of success in [0, 1].

    With `success_at`, a completion succeeds where its reward is at least that. Without it (null) a
    reward counts by its place between the smallest and the largest that the run has seen, a range
    that starts as [0, 1] and only widens: right at once for rewards whose weights sum to 1, and a
    first batch without any right answer does not make the best of the wrong ones a success. Where
    the best possible reward is below 1, or other rewards than correctness decide much of the sum,
    say `success_at`. No constant fits all: 1.0 would call nothing a success where weights sum to
    0.9.
    """

    def __init__(self, success_at: float | None) -> None:
        if success_at is not None:
            check_number("success_at", success_at, low=-math.inf)
        self.success_at = success_at
        self.low, self.high = 0.0, 1.0

    def see(self, rewards: Sequence[Sequence[float | None]]) -> None:
        """Widen the range by the rewards of a batch."""
        if self.success_at is None:
            seen = [self.low, self.high, *chain.from_iterable(map(known, rewards))]
            self.low, self.high = min(seen), max(seen)

    def scaled(self, group: Sequence[float | None]) -> list[float]:
        """The success of every scored completion, in [0, 1]; call `see` first."""
        if self.success_at is not None:
            return [float(reward >= self.success_at - ROUNDING) for reward in known(group)]
        return [(reward - self.low) / (self.high - self.low) for reward in known(group)]

    def rate(self, group: Sequence[float | None]) -> float | None:
        """The mean success of a group, or None where nothing could be scored."""
        scaled = self.scaled(group)
        return statistics.fmean(scaled) if scaled else None

    def deviation(self, group: Sequence[float | None]) -> float | None:
        """The (population) standard deviation of a group's successes, at most 1/2; else None."""
        scaled = self.scaled(group)
        if not scaled:
            return None
        mean = statistics.fmean(scaled)
        return math.sqrt(statistics.fmean((success - mean) ** 2 for success in scaled))

    def state_dict(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the state was taken."""
        self.low, self.high = state["low"], state["high"]
