"""The four schedules of E2H (arXiv:2506.06632): probabilities of K levels at step t of T."""

import math
from collections.abc import Sequence

from efficient_rl.curricula.checks import check_number
from efficient_rl.curricula.levels import LevelMixture
from efficient_rl.errors import require


class Classic(LevelMixture):
    """E2H's classic schedule: one level at a time, level min(floor(t K / T), K - 1)."""

    def probabilities(self, step: int) -> list[float]:
        count = len(self.levels)
        chances = [0.0] * count
        chances[min(step * count // self.steps, count - 1)] = 1.0
        return chances


class Balanced(LevelMixture):
    """E2H's balanced schedule: every level with probability 1 / K, however many problems it has."""

    def probabilities(self, step: int) -> list[float]:
        return [1 / len(self.levels)] * len(self.levels)


class Cosine(LevelMixture):
    """E2H's cosine schedule: from mostly easy to mostly hard.

    p_i = a (K - i) / S + (1 - a) (i + 1) / S with a = (1 + cos(pi t / T)) / 2, S = K (K + 1) / 2,
    and i = 0 the easiest level.
    """

    def probabilities(self, step: int) -> list[float]:
        count = len(self.levels)
        total = count * (count + 1) / 2
        easy = (1 + math.cos(math.pi * min(step / self.steps, 1))) / 2
        return [(easy * (count - level) + (1 - easy) * (level + 1)) / total for level in range(count)]


class Gaussian(LevelMixture):
    """E2H's Gaussian schedule: p_i = p_min + (1 - K p_min) q_i, a bell q around a moving centre.

    q_i is proportional to exp(-(i - mu)^2 / (2 sigma^2)).

    The centre mu = (t / T)^`mu_exponent` (K - 1) moves from the easiest level to the hardest, fast
    at first where the exponent is below 1. `p_min` is what every level keeps, at most 1 / K; null
    is the published 2 / (K (K + 1)).
    """

    def __init__(self, mu_exponent: float = 0.5, sigma: float = 0.5, p_min: float | None = None, levels: int = 8) -> None:
        super().__init__(levels)
        check_number("mu_exponent", mu_exponent, low=0, above=True)
        check_number("sigma", sigma, low=0, above=True)
        if p_min is not None:
            check_number("p_min", p_min, low=0, high=1)
        self.mu_exponent, self.sigma, self.p_min = mu_exponent, sigma, p_min

    def begin(self, difficulties: Sequence[float], seed: int, steps: int) -> None:
        """As in every curriculum; ValueError where the levels' floors sum to more than 1."""
        super().begin(difficulties, seed, steps)
        count = len(self.levels)
        self.floor = 2 / (count * (count + 1)) if self.p_min is None else self.p_min
        bound = f"exceeds 1/{count} of {count} levels; use at most {1 / count:g}"
        require(count * self.floor <= 1, "curriculum.p_min", self.floor, bound)

    def probabilities(self, step: int) -> list[float]:
        count = len(self.levels)
        centre = min(step / self.steps, 1) ** self.mu_exponent * (count - 1)
        squares = [(level - centre) ** 2 for level in range(count)]
        closest = min(squares)  # keeps the largest exponent at 0
        bell = [math.exp((closest - square) / (2 * self.sigma**2)) for square in squares]
        return [self.floor + (1 - count * self.floor) * height / sum(bell) for height in bell]
