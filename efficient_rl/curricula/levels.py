"""Levels of difficulty, and curricula that are a probability for every level."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from efficient_rl.curricula.checks import check_pool, check_whole
from efficient_rl.curricula.order import Epochs
from efficient_rl.curricula.protocol import Curriculum


class Levels:
    """The pool by level, from easy to hard: distinct difficulties, or `most` quantile bins.

    `of[index]` is a problem's level, `members[level]` its problems, `names[level]` is for the log.
    Equal difficulties share a level, so there may be fewer bins than asked for; no level is empty.
    """

    def __init__(self, difficulties: Sequence[float], most: int) -> None:
        counts = Counter(difficulties)
        starts = sorted(counts) if len(counts) <= most else _quantile_starts(counts, most)
        self.of = [bisect_right(starts, difficulty) - 1 for difficulty in difficulties]
        self.members: list[list[int]] = [[] for _ in starts]
        for index, level in enumerate(self.of):
            self.members[level].append(index)
        self.names: list[str] = []
        for members in self.members:
            values = list(map(difficulties.__getitem__, members))
            self.names.append(_name(min(values), max(values)))

    def __len__(self) -> int:
        return len(self.members)

    def named(self, what: str, values: Sequence[float]) -> dict[str, float]:
        """A value for each level, for the log: `probability_level_3`."""
        return {f"{what}_{name}": value for name, value in zip(self.names, values, strict=True)}


def _quantile_starts(counts: Mapping[float, int], most: int) -> list[float]:
    """The lowest difficulty of every bin; the middle of its ranks decides about a difficulty."""
    size, below = sum(counts.values()), 0
    starts: dict[int, float] = {}
    for difficulty, count in sorted(counts.items()):
        starts.setdefault((2 * below + count) * most // (2 * size), difficulty)
        below += count
    return list(starts.values())


def _name(lowest: float, highest: float) -> str:
    """`level_3`, or `level_0.1_to_0.25` of a bin, without the plus sign, which MLflow refuses."""
    ends = dict.fromkeys([f"{lowest:g}", f"{highest:g}"])
    return f"level_{'_to_'.join(ends)}".replace("+", "")


class LevelMixture(Curriculum):
    """Draws a level for each problem by `probabilities`, then the level's next problem."""

    def __init__(self, levels: int = 8) -> None:
        check_whole("levels", levels, low=1)
        self.most_levels = levels

    def begin(self, difficulties: Sequence[float], seed: int, steps: int) -> None:
        self.seed, self.steps, self.step = seed, steps, 0
        self.levels = Levels(check_pool(difficulties, steps), self.most_levels)
        self.orders = [Epochs(members, f"{seed} level {level}") for level, members in enumerate(self.levels.members)]

    def probabilities(self, step: int) -> list[float]:
        """The probability of every level in the step, from easy to hard; they sum to 1."""
        raise NotImplementedError

    def draw(self, count: int, step: int) -> list[int]:
        self.step = step
        drawn = sum(order.drawn for order in self.orders)
        levels = Random(f"{self.seed} levels {drawn}").choices(self.orders, self.probabilities(step), k=count)
        return [order.take(1)[0] for order in levels]

    def beliefs(self) -> dict[str, float]:
        """The probability of every level."""
        return self.levels.named("probability", self.probabilities(self.step))

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "drawn": [order.drawn for order in self.orders]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        for order, drawn in zip(self.orders, state["drawn"], strict=True):
            order.drawn = drawn
