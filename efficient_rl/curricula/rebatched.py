"""Batches from easy to hard whose inner order is measured again during training."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, TypeVar

from efficient_rl.curricula.checks import check_number, check_pool, check_whole
from efficient_rl.curricula.levels import Levels
from efficient_rl.curricula.order import Epochs, easy_first, pick
from efficient_rl.curricula.protocol import Curriculum
from efficient_rl.curricula.signals import Success

Key = TypeVar("Key", int, str)


class ADCL(Curriculum):
    """ADCL (arXiv:2505.08364): K batches from easy to hard; each is sorted anew before its turn.

    Every batch is an equal part of the pool and of the steps, and is gone through from its easy end
    to its hard end. The paper measures all of batch k + 1 with generations made for that; here
    nothing is generated but for training: in batch k a share `lookahead` of every draw comes from
    batch k + 1 at random, and their success sorts it. A problem that was not drawn counts as its
    level (of at most `levels` in the batch), or as the nearest level that was. Where nothing was
    seen, the given order stays, as it does among equals.
    """

    def __init__(self, batches: int = 4, lookahead: float = 0.25, levels: int = 8, success_at: float | None = None) -> None:
        check_whole("batches", batches, low=1)
        check_number("lookahead", lookahead, low=0, high=0.9)
        check_whole("levels", levels, low=1)
        self.most_batches, self.lookahead, self.most_levels = batches, lookahead, levels
        self.success = Success(success_at)

    def begin(self, difficulties: Sequence[float], seed: int, steps: int) -> None:
        self.difficulties, self.seed, self.steps = check_pool(difficulties, steps), seed, steps
        order, size = easy_first(self.difficulties, seed), len(difficulties)
        count = min(self.most_batches, size, steps)
        self.batches = [order[part * size // count : (part + 1) * size // count] for part in range(count)]
        self.drawn = 0
        self.probed: dict[int, float] = {}
        self._enter(0, {})

    def _enter(self, batch: int, seen: dict[int, float]) -> None:
        """Sort the batch by the success of those that were seen, and look out for the next one."""
        self.batch, self.seen = batch, seen
        self.order = resorted(self.batches[batch], self.difficulties, seen, self.most_levels)
        ahead = [*self.batches, []][batch + 1]
        self.ahead = frozenset(ahead)
        self.probes = Epochs(ahead, f"{self.seed} probes {batch}")
        self.probed = {}

    def draw(self, count: int, step: int) -> list[int]:
        batch = min(step * len(self.batches) // self.steps, len(self.batches) - 1)
        if batch == self.batch + 1:
            self._enter(batch, self.probed)
        elif batch != self.batch:
            self._enter(batch, {})
        probes = round(count * self.lookahead) if self.ahead else 0
        start, stop = self._stretch(count - probes, step)
        places = pick(range(start, stop), count - probes, Random(f"{self.seed} batch {self.drawn}"))
        self.drawn += count
        return [*map(self.order.__getitem__, places), *self.probes.take(probes)]

    def _stretch(self, count: int, step: int) -> tuple[int, int]:
        """The part of the sorted batch whose turn it is, one of as many as the batch has steps."""
        size, batches = len(self.order), len(self.batches)
        first, end = -(-self.batch * self.steps // batches), -(-(self.batch + 1) * self.steps // batches)
        turn, turns = min(step, end - 1) - first, end - first
        stop = min(size, max(-(-(turn + 1) * size // turns), turn * size // turns + count))
        return max(0, min(turn * size // turns, stop - count)), stop

    def observe(self, indices: Sequence[int], rewards: Sequence[Sequence[float]], step: int) -> None:
        self.success.see(rewards)
        for index, group in zip(indices, rewards, strict=True):
            rate = self.success.rate(group)
            if index in self.ahead and rate is not None:
                self.probed[index] = rate

    def beliefs(self) -> dict[str, float]:
        """The batch, from 0, how many of the next one were probed, and their success."""
        found = {"batch": float(self.batch), "probed": float(len(self.probed))}
        if self.probed:
            found["next_batch_success"] = statistics.fmean(self.probed.values())
        return found

    def state_dict(self) -> dict[str, Any]:
        return {
            "drawn": self.drawn,
            "batch": self.batch,
            "seen": _with_keys(str, self.seen),
            "probed": _with_keys(str, self.probed),
            "probes": self.probes.drawn,
            "success": self.success.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._enter(state["batch"], _with_keys(int, state["seen"]))
        self.probed = _with_keys(int, state["probed"])
        self.drawn, self.probes.drawn = state["drawn"], state["probes"]
        self.success.load_state_dict(state["success"])


def _with_keys(kind: Callable[[Any], Key], rates: Mapping[Any, float]) -> dict[Key, float]:
    """The same values under keys that JSON can write, or as they were before."""
    return dict(zip(map(kind, rates), rates.values(), strict=True))


def resorted(members: Sequence[int], difficulties: Sequence[float], seen: dict[int, float], most_levels: int) -> list[int]:
    """The members (easy first) by falling success, their own or their level's."""
    if not seen:
        return list(members)
    levels = Levels(list(map(difficulties.__getitem__, members)), most_levels)
    level_of = dict(zip(members, levels.of, strict=True))
    by_level: dict[int, list[float]] = defaultdict(list)
    for index in members:
        if index in seen:
            by_level[level_of[index]].append(seen[index])
    known = dict(zip(by_level, map(statistics.fmean, by_level.values()), strict=True))

    def success(index: int) -> float:
        level = level_of[index]
        nearest = min(known, key=lambda other: abs(other - level))
        return seen.get(index, known[nearest])

    return sorted(members, key=success, reverse=True)
