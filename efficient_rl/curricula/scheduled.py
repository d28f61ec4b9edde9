"""Curricula whose choice depends on the training step alone."""

import math
from collections.abc import Sequence
from random import Random
from typing import Any

from efficient_rl.curricula.checks import check_choice, check_flag, check_number, check_pool, check_whole
from efficient_rl.curricula.order import Epochs, easy_first, pick
from efficient_rl.curricula.protocol import Curriculum


class Uniform(Curriculum):
    """Every problem once in a shuffled order, then all again: the control for other curricula."""

    def begin(self, difficulties: Sequence[float], seed: int, steps: int) -> None:
        self.order = Epochs(range(len(check_pool(difficulties, steps))), f"{seed}")

    def draw(self, count: int, step: int) -> list[int]:
        return self.order.take(count)

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.order.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.order.drawn = state["drawn"]


class DynamicSampling(Uniform):
    """DAPO's dynamic sampling (arXiv:2503.14476): groups without a signal are replaced.

    The problems come as from `uniform`. Groups whose completions all earned the same have no
    advantage; the trainer generates others in their place, at most `refills` times in a step, and
    keeps what then still has no signal. Every refill costs the tokens of its completions: compare
    at equal tokens, not at equal steps.
    """

    def __init__(self, refills: int = 3) -> None:
        check_whole("refills", refills, low=1)
        self.refills = refills


class Windowed(Curriculum):
    """Draws at random from a stretch of the pool sorted from easy to hard."""

    def begin(self, difficulties: Sequence[float], seed: int, steps: int) -> None:
        self.seed, self.steps = seed, steps
        pool = check_pool(difficulties, steps)
        self.order = easy_first(pool, seed)
        self.ascending = [pool[index] for index in self.order]
        self.drawn = 0
        self.stretch = (0, len(pool))

    def window(self, count: int, step: int) -> tuple[int, int]:
        """Start and stop of the stretch to draw from, by rank from 0, the easiest; never empty."""
        raise NotImplementedError

    def draw(self, count: int, step: int) -> list[int]:
        self.stretch = self.window(count, step)
        places = pick(range(*self.stretch), count, Random(f"{self.seed} window {self.drawn}"))
        self.drawn += count
        return list(map(self.order.__getitem__, places))

    def beliefs(self) -> dict[str, float]:
        """The difficulties that were to choose from, and their share of the pool."""
        start, stop = self.stretch
        return {
            "lowest_difficulty": self.ascending[start],
            "highest_difficulty": self.ascending[stop - 1],
            "share_of_pool": (stop - start) / len(self.order),
        }

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn, "stretch": list(self.stretch)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.drawn = state["drawn"]
        self.stretch = (state["stretch"][0], state["stretch"][1])


class Staged(Windowed):
    """From easy to hard in `stages` equal parts of the pool (arXiv:1611.06204), equally long.

    With `keep_easier` a stage adds its part to those before it (Baby Steps); without, it replaces
    them (One Pass). Unlike E2H's `classic`, the parts are equally large, whatever the difficulties
    are.
    """

    def __init__(self, stages: int = 3, keep_easier: bool = True) -> None:
        check_whole("stages", stages, low=1)
        check_flag("keep_easier", keep_easier)
        self.stages, self.keep_easier = stages, keep_easier

    def window(self, count: int, step: int) -> tuple[int, int]:
        size = len(self.order)
        stage = min(step * self.stages // self.steps, self.stages - 1)
        start = 0 if self.keep_easier else stage * size // self.stages
        return start, -(-(stage + 1) * size // self.stages)


class Competence(Windowed):
    """Competence-based curriculum (arXiv:1903.09848): the easiest share c(t), growing to all.

    With T = `duration` x steps, root is c(t) = min(1, sqrt(t (1 - c0^2) / T + c0^2)) and linear
    min(1, t (1 - c0) / T + c0). A problem's place is its rank over the size of the pool; equally
    difficult ones are ranked at random. Never fewer problems than a batch needs.
    """

    def __init__(self, shape: str = "root", c0: float = 0.01, duration: float = 0.5) -> None:
        check_choice("shape", shape, ("root", "linear"))
        check_number("c0", c0, low=0, high=1, above=True)
        check_number("duration", duration, low=0, high=1, above=True)
        self.shape, self.c0, self.duration = shape, c0, duration

    def competence(self, step: int) -> float:
        """c(t), the share of the pool to draw from."""
        begun = step / (self.duration * self.steps)
        if self.shape == "linear":
            return min(1.0, begun * (1 - self.c0) + self.c0)
        return min(1.0, math.sqrt(begun * (1 - self.c0**2) + self.c0**2))

    def window(self, count: int, step: int) -> tuple[int, int]:
        size = len(self.order)
        eligible = math.ceil(round(self.competence(step) * size, 6))
        return 0, min(size, max(eligible, count))
