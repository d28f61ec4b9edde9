"""Pools of hard, normal and easy problems, by how their latest group went."""

from bisect import bisect_left
from collections.abc import Sequence
from random import Random
from typing import Any

from efficient_rl.curricula.checks import check_number, check_pool
from efficient_rl.curricula.order import Epochs
from efficient_rl.curricula.protocol import Curriculum
from efficient_rl.curricula.signals import Success

HARD, NORMAL, EASY, UNSEEN = "hard", "normal", "easy", "unseen"


class DifficultyPools(Curriculum):
    """prime-rl's pools (https://github.com/PrimeIntellect-ai/prime-rl): problems by pool weight.

    A problem is hard where the mean success of its latest group is at most `hard_until`, normal
    where it is at most `normal_until`, else easy; one without a group is unseen and weighs 1. The
    chance of a pool is its weight times the number of its problems. If everything left weighs 0,
    all problems weigh the same.
    """

    def __init__(
        self,
        hard_until: float = 0.25,
        normal_until: float = 0.75,
        hard_weight: float = 0.2,
        normal_weight: float = 1.0,
        easy_weight: float = 0.2,
        success_at: float | None = None,
    ) -> None:
        check_number("hard_until", hard_until, low=0, high=1)
        check_number("normal_until", normal_until, low=hard_until, high=1)
        self.weights = {HARD: hard_weight, NORMAL: normal_weight, EASY: easy_weight, UNSEEN: 1.0}
        for pool in (HARD, NORMAL, EASY):
            check_number(f"{pool}_weight", self.weights[pool], low=0)
        self.hard_until, self.normal_until = hard_until, normal_until
        self.success = Success(success_at)

    def begin(self, difficulties: Sequence[float], seed: int, steps: int) -> None:
        self.seed, self.size, self.drawn = seed, len(check_pool(difficulties, steps)), 0
        self.unseen = Epochs(range(self.size), f"{seed}")  # in this order they are drawn for the first time
        self.pools: dict[str, list[int]] = {HARD: [], NORMAL: [], EASY: []}
        self.places: dict[int, tuple[str, int]] = {}  # of those that were drawn: their pool, and where in it

    def sizes(self) -> dict[str, int]:
        """How many problems each pool has."""
        sizes = dict(zip(self.pools, map(len, self.pools.values()), strict=True))
        return sizes | {UNSEEN: self.size - self.unseen.drawn}

    def draw(self, count: int, step: int) -> list[int]:
        random = Random(f"{self.seed} pools {self.drawn}")
        self.drawn += count
        return [self._one(random) for _ in range(count)]

    def _one(self, random: Random) -> int:
        sizes = self.sizes()
        chances = [self.weights[pool] * size for pool, size in sizes.items()]
        if not any(chances):
            chances = list(sizes.values())
        pool = random.choices(list(sizes), chances)[0]
        if pool != UNSEEN:
            return random.choice(self.pools[pool])
        index = self.unseen.take(1)[0]
        self._move(index, NORMAL)  # until its group is in; weighed like an unseen one by default
        return index

    def _move(self, index: int, pool: str) -> None:
        if index in self.places:
            old, place = self.places.pop(index)
            last = self.pools[old].pop()
            if last != index:
                self.pools[old][place] = last
                self.places[last] = (old, place)
        self.places[index] = (pool, len(self.pools[pool]))
        self.pools[pool].append(index)

    def observe(self, indices: Sequence[int], rewards: Sequence[Sequence[float]], step: int) -> None:
        self.success.see(rewards)
        for index, group in zip(indices, rewards, strict=True):
            rate = self.success.rate(group)
            if rate is not None:
                bounds = [self.hard_until, self.normal_until]
                self._move(index, (HARD, NORMAL, EASY)[bisect_left(bounds, rate)])

    def beliefs(self) -> dict[str, float]:
        """The share of the problems that is in each pool."""
        return {pool: size / self.size for pool, size in self.sizes().items()}

    def state_dict(self) -> dict[str, Any]:
        pools, success = _copied(self.pools), self.success.state_dict()
        return {"drawn": self.drawn, "met": self.unseen.drawn, "pools": pools, "success": success}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.drawn, self.unseen.drawn = state["drawn"], state["met"]
        self.pools, self.places = _copied(state["pools"]), {}
        for pool, members in self.pools.items():
            self.places |= {index: (pool, place) for place, index in enumerate(members)}
        self.success.load_state_dict(state["success"])


def _copied(pools: dict[str, list[int]]) -> dict[str, list[int]]:
    return dict(zip(pools, map(list, pools.values()), strict=True))
