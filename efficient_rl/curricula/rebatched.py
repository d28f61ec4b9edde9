"""Batches from easy to hard whose inner order is measured anew while training goes on."""

import statistics
from collections.abc import Sequence
from random import Random
from typing import Any

from efficient_rl.curricula.checks import check_number, check_pool, check_whole
from efficient_rl.curricula.levels import Levels
from efficient_rl.curricula.order import Epochs, easy_first, pick
from efficient_rl.curricula.protocol import Curriculum
from efficient_rl.curricula.signals import Success


class ADCL(Curriculum):
    """ADCL (arXiv:2505.08364): K batches from easy to hard; once batch k is over, batch k + 1 alone is sorted anew.

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
        ahead = self.batches[batch + 1] if batch + 1 < len(self.batches) else []
        self.ahead = frozenset(ahead)
        self.probes = Epochs(ahead, f"{self.seed} probes {batch}")
        self.probed = {}

    def draw(self, count: int, step: int) -> list[int]:
        batch = min(step * len(self.batches) // self.steps, len(self.batches) - 1)
        if batch != self.batch:
            self._enter(batch, self.probed if batch == self.batch + 1 else {})
        probes = round(count * self.lookahead) if self.ahead else 0
        start, stop = self._stretch(count - probes, step)
        places = pick(range(start, stop), count - probes, Random(f"{self.seed} batch {self.drawn}"))
        self.drawn += count
        return [self.order[place] for place in places] + self.probes.take(probes)

    def _stretch(self, count: int, step: int) -> tuple[int, int]:
        """The part of the sorted batch whose turn it is: one of as many equal parts as the batch has steps."""
        size, batches = len(self.order), len(self.batches)
        first, end = (-(-part * self.steps // batches) for part in (self.batch, self.batch + 1))
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
        """The batch, counted from 0, how many of the next one were probed, and how often those were solved."""
        found = {"batch": float(self.batch), "probed": float(len(self.probed))}
        return found | ({"next_batch_success": statistics.fmean(self.probed.values())} if self.probed else {})

    def state_dict(self) -> dict[str, Any]:
        """The batch, the success that sorted it, and what is known of the next."""
        return {
            "drawn": self.drawn,
            "batch": self.batch,
            "seen": {str(index): rate for index, rate in self.seen.items()},
            "probed": {str(index): rate for index, rate in self.probed.items()},
            "probes": self.probes.drawn,
            "success": self.success.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._enter(state["batch"], {int(index): rate for index, rate in state["seen"].items()})
        self.probed = {int(index): rate for index, rate in state["probed"].items()}
        self.drawn, self.probes.drawn = state["drawn"], state["probes"]
        self.success.load_state_dict(state["success"])


def resorted(members: Sequence[int], difficulties: Sequence[float], seen: dict[int, float], most_levels: int) -> list[int]:
    """The members (given from easy to hard) from the most to the least successful, by their own success or their level's."""
    if not seen:
        return list(members)
    levels = Levels([difficulties[index] for index in members], most_levels)
    by_level: dict[int, list[float]] = {}
    for place, index in enumerate(members):
        if index in seen:
            by_level.setdefault(levels.of[place], []).append(seen[index])
    known = {level: statistics.fmean(rates) for level, rates in by_level.items()}
    means = [known[min(known, key=lambda other: abs(other - level))] for level in range(len(levels))]
    success = [seen.get(index, means[levels.of[place]]) for place, index in enumerate(members)]
    return [members[place] for place in sorted(range(len(members)), key=lambda place: -success[place])]
