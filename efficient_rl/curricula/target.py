"""A target difficulty that follows the reward."""

import math
import statistics
from collections.abc import Sequence
from itertools import chain
from typing import Any

from efficient_rl.curricula.checks import check_number
from efficient_rl.curricula.order import nearest
from efficient_rl.curricula.scheduled import Windowed
from efficient_rl.curricula.signals import Success

SCALE = 100  # the paper's difficulties run from 0 to 100


class AdaRFT(Windowed):
    """AdaRFT (arXiv:2504.05520): T <- clip(T + eta tanh(alpha (R - beta)), d_min, d_max).

    R is the mean success of the batch. `eta` and `start` are on the paper's scale, on which the
    pool runs from 0 to 100. The paper takes the nearest batch, and so the same problems again and
    again while T rests; here a batch is drawn at random from the nearest `band` of the pool (a
    share, never less than a batch), with all that are as near as the farthest of them.
    """

    def __init__(
        self,
        eta: float = 50.0,
        alpha: float = 2.0,
        beta: float = 0.5,
        start: float = 0.0,
        band: float = 0.1,
        success_at: float | None = None,
    ) -> None:
        check_number("eta", eta, low=0, above=True)
        check_number("alpha", alpha, low=0, above=True)
        check_number("beta", beta, low=0, high=1)
        check_number("start", start, low=0, high=SCALE)
        check_number("band", band, low=0, high=1, above=True)
        self.eta, self.alpha, self.beta, self.start, self.band = eta, alpha, beta, start, band
        self.success = Success(success_at)

    def begin(self, difficulties: Sequence[float], seed: int, steps: int) -> None:
        super().begin(difficulties, seed, steps)
        self.easiest, self.hardest = self.ascending[0], self.ascending[-1]
        self.unit = (self.hardest - self.easiest) / SCALE
        self.target = self.easiest + self.start * self.unit

    def window(self, count: int, step: int) -> tuple[int, int]:
        size = len(self.order)
        return nearest(self.ascending, self.target, min(size, max(count, math.ceil(self.band * size))))

    def observe(self, indices: Sequence[int], rewards: Sequence[Sequence[float]], step: int) -> None:
        self.success.see(rewards)
        scaled = list(chain.from_iterable(map(self.success.scaled, rewards)))
        if scaled:
            change = self.eta * math.tanh(self.alpha * (statistics.fmean(scaled) - self.beta))
            self.target = min(self.hardest, max(self.easiest, self.target + change * self.unit))

    def beliefs(self) -> dict[str, float]:
        """The target in the task's own difficulty, and the last batch's stretch."""
        return {"target_difficulty": self.target, **super().beliefs()}

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"target": self.target, "success": self.success.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.target = state["target"]
        self.success.load_state_dict(state["success"])
