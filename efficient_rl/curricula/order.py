"""Orders in which problems come: shuffled epochs, and the pool from easy to hard."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from random import Random


class Epochs:
    """Every member once in a shuffled order, then all again; decided by key and number drawn."""

    def __init__(self, members: Sequence[int], key: str) -> None:
        self.members, self.key = members, key
        self.drawn = 0
        self._order = self._shuffled(0)
        self._epoch = 0

    def take(self, count: int) -> list[int]:
        """The next `count` members."""
        taken: list[int] = []
        while len(taken) < count:
            epoch, offset = divmod(self.drawn, len(self.members))
            if epoch != self._epoch:
                self._order, self._epoch = self._shuffled(epoch), epoch
            part = self._order[offset : offset + count - len(taken)]
            taken += part
            self.drawn += len(part)
        return taken

    def _shuffled(self, epoch: int) -> list[int]:
        return Random(f"{self.key} {epoch}").sample(self.members, len(self.members))


def easy_first(difficulties: Sequence[float], seed: int) -> list[int]:
    """All indices from the easiest problem to the hardest, equals in random order."""
    size = len(difficulties)
    return sorted(Random(f"{seed} ties").sample(range(size), size), key=difficulties.__getitem__)


def pick(members: Sequence[int], count: int, random: Random) -> list[int]:
    """`count` of the members at random; none comes again before all came as often."""
    rounds, rest = divmod(count, len(members))
    picked = [index for _ in range(rounds) for index in random.sample(members, len(members))]
    return picked + random.sample(members, rest)


def nearest(ascending: Sequence[float], target: float, count: int) -> tuple[int, int]:
    """Start and stop of the `count` values nearest to the target, and of their equals."""
    low, high = 0, len(ascending) - count
    while low < high:  # the first start whose value is no farther from the target than the one after its window
        middle = (low + high) // 2
        if target - ascending[middle] > ascending[middle + count] - target:
            low = middle + 1
        else:
            high = middle
    first, last = ascending[low], ascending[low + count - 1]
    radius = max(target - first, last - target)
    return bisect_left(ascending, min(first, target - radius)), bisect_right(ascending, max(last, target + radius))
