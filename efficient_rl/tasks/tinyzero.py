"""TinyZero's data (https://github.com/Jiayi-Pan/TinyZero): countdown and multiplication."""

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, starmap
from random import Random

from efficient_rl.errors import require, require_one_of
from efficient_rl.tasks.arithmetic import arithmetic_problem
from efficient_rl.tasks.countdown import Countdown, countdown_problem
from efficient_rl.tasks.problem import Problem, Split, below, shuffled, split_of
from efficient_rl.tasks.rows import Location

logger = logging.getLogger(__name__)
COUNTDOWN = "Jiayi-Pan/Countdown-Tasks-3to4"
SOURCES = ("published", "generate")
Numbers = tuple[tuple[int, ...], int]  # the numbers of a countdown problem and its target


@dataclass(frozen=True)
class TinyZeroCountdown:
    """Countdown with three and four numbers as in TinyZero; difficulty = how many numbers.

    `source=published` reads rows of `nums` and `target` from the hub, or from a local file or
    folder `path`: the first `train_rows` train, the next `held_out_rows` are held out. The
    published split cuts between orders of the same numbers; here a training row that a held-out one
    repeats in another order is left out. No solutions are published. `source=generate` needs no
    data: `countdown` with numbers up to `max_number` and targets up to `max_target`, split by
    content, every problem built from a solution (TinyZero's own generator checks none).
    """

    source: str = "published"
    dataset: str = COUNTDOWN
    path: str | None = None
    train_rows: int = 327_680
    held_out_rows: int = 1_024
    max_number: int = 100
    max_target: int = 100

    def __post_init__(self) -> None:
        require_one_of("task.source", self.source, SOURCES)
        for key in ("train_rows", "held_out_rows"):
            value = getattr(self, key)
            require(value >= 1, f"task.{key}", value, "must be at least 1")
        self._generator()

    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        """`count` problems of one side, ordered by the seed; count=0 is all published ones."""
        if self.source == "generate":
            return self._generator().problems(split, count, seed)
        location = Location(dataset=self.dataset, path=self.path)
        rows = _published(location, location.state(), self.train_rows, self.held_out_rows)[split]
        chosen = shuffled(rows, count, seed, f"{split} problems of {location}")
        return list(starmap(countdown_problem, chosen))

    def _generator(self) -> Countdown:
        return Countdown((3, 4), self.max_number, self.max_target)


@functools.lru_cache(maxsize=2)
def _published(
    location: Location, state: tuple[int, int] | None, train_rows: int, held_out_rows: int
) -> Mapping[Split, Sequence[Numbers]]:
    """Both sides of the published split; `state` tells states of the same file apart."""
    wanted = train_rows + held_out_rows
    rows = [_numbers(row, location) for row in islice(location.rows(("nums", "target")), wanted)]
    if len(rows) < wanted:
        raise ValueError(
            f"{location} has {len(rows)} rows, fewer than task.train_rows={train_rows} + "
            f"task.held_out_rows={held_out_rows}; make these smaller"
        )
    kept: dict[Numbers, Numbers] = {}
    for numbers, target in rows[train_rows:]:
        kept[tuple(sorted(numbers)), target] = numbers, target
    train: dict[Numbers, Numbers] = {}
    for numbers, target in rows[:train_rows]:
        key = tuple(sorted(numbers)), target
        if key not in kept:  # the first order of the numbers, at the place of their last
            train[key] = train.pop(key, (numbers, target))
    if lost := train_rows - len(train):
        logger.warning("%d of %d training rows are repeated or held out; they are left out", lost, train_rows)
    return {"train": list(train.values()), "held_out": list(kept.values())}


def _numbers(row: Mapping[str, object], location: Location) -> Numbers:
    numbers, target = row.get("nums"), row.get("target")
    if not isinstance(numbers, Sequence) or isinstance(numbers, str) or type(target) is not int:
        raise ValueError(f"a row of {location} is {dict(row)}; it must have nums, a list of whole numbers, and target, one")
    return tuple(map(int, numbers)), target


@dataclass(frozen=True)
class Multiplication:
    """Products of two factors as TinyZero draws them; difficulty = digits of the longer factor.

    Each factor lies below 100 with probability 1/3 and below 1,000 else, evenly. Of `pairs` draws
    with a seed of its own, repeats left out (a*b and b*a are one problem), the first
    `train_problems` of the training side and the last `held_out_problems` of the other are the
    task. Sides are drawn by content, as everywhere, not by position.
    """

    pairs: int = 100_000
    train_problems: int = 32_768
    held_out_problems: int = 4_096

    def __post_init__(self) -> None:
        for key in ("train_problems", "held_out_problems"):
            value = getattr(self, key)
            require(value >= 1, f"task.{key}", value, "must be at least 1")
        require(1 <= self.pairs <= 1_000_000, "task.pairs", self.pairs, "must lie in 1 to 1000000")

    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        """`count` problems of one side, ordered by the seed, all of them for count=0."""
        factors = _factors(self.pairs)[split]
        wanted = self.train_problems if split == "train" else self.held_out_problems
        if wanted > len(factors):
            raise ValueError(
                f"task.{split}_problems={wanted} exceeds the {len(factors)} that task.pairs={self.pairs} draws hold; "
                "use fewer or raise task.pairs"
            )
        side = factors[:wanted] if split == "train" else factors[-wanted:]
        return list(starmap(_product, shuffled(side, count, seed, f"{split} problems of multiplication")))


@functools.lru_cache(maxsize=2)
def _factors(pairs: int) -> Mapping[Split, Sequence[tuple[int, int]]]:
    random = Random(1)
    drawn: dict[tuple[int, int], tuple[int, int]] = {}
    for _ in range(pairs):
        a, b = (below(random, 100 if below(random, 3) == 0 else 1000) for _ in "ab")
        drawn.setdefault((min(a, b), max(a, b)), (a, b))
    sides: dict[Split, list[tuple[int, int]]] = {"train": [], "held_out": []}
    for (first, second), pair in drawn.items():
        sides[split_of(f"arithmetic {first}*{second}")].append(pair)
    return sides


def _product(a: int, b: int) -> Problem:
    return arithmetic_problem(a, "*", b, max(len(str(a)), len(str(b))), source="multiplication")
