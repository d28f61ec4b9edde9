"""What a problem is, and which side of the train / held-out line it lies on."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, Protocol, TypeVar

from efficient_rl.errors import require

Split = Literal["train", "held_out"]
HELD_OUT_PER_MILLE = 100
Item = TypeVar("Item")


@dataclass(frozen=True)
class Problem:
    """One problem with a verifiable answer.

    `question` is English, `symbols` the same in the notation of the embedded model, or the question
    again where that has no notation for it. `check` names the checker in
    `efficient_rl.rewards.verify` that judges an answer with `gold`. `key` identifies the content:
    two wordings or orders of the same problem share it. `difficulty` is the task's own scale
    (operands, digits, levels), higher is harder. `free_text` marks questions that people wrote:
    only these are searched for shared passages. `solution` is an answer that the checker accepts,
    "" where none is known; `steps` lead to it.
    """

    question: str
    symbols: str
    check: str
    gold: dict[str, Any]
    difficulty: float
    source: str
    key: str
    steps: tuple[str, ...] = field(default=(), compare=False)
    solution: str = field(default="", compare=False)
    free_text: bool = field(default=False, compare=False)


class Task(Protocol):
    """A source of problems: `count` distinct ones of one side, decided by the seed.

    The first problems of a larger request are those of a smaller one.
    """

    def problems(self, split: Split, count: int, seed: int) -> list[Problem]: ...


class Generated(ABC):
    """A task that draws its problems at random, without end."""

    @abstractmethod
    def _draw(self, random: Random) -> Problem: ...

    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        """`count` problems of one split with different keys; ValueError where there are fewer."""
        random = Random(seed)
        return first_distinct((self._draw(random) for _ in range(attempts(count))), split, count)


def split_of(key: str) -> Split:
    """The side of the split that the content `key` lies on: by hash, a tenth is held out."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return "held_out" if int.from_bytes(digest, "big") % 1000 < HELD_OUT_PER_MILLE else "train"


def attempts(count: int) -> int:
    """How many draws `count` distinct problems may take before the task counts as exhausted."""
    return 1000 + 100 * count


def first_distinct(draws: Iterable[Problem], split: Split, count: int) -> list[Problem]:
    """The first `count` problems of the split with different keys; ValueError for too few."""
    require(count >= 1, "count", count, "must be at least 1: a generator has no last problem")
    found: dict[str, Problem] = {}
    for problem in draws:
        key = problem.key
        if key not in found and split_of(key) == split:
            found[key] = problem
            if len(found) == count:
                return list(found.values())
    raise ValueError(
        f"only {len(found)} of {count} distinct {split} problems found; ask for fewer or widen the task's ranges"
    )


def shuffled(items: Sequence[Item], count: int, seed: int, what: str) -> list[Item]:
    """The first `count` items in a random order, all for count=0; ValueError for too few."""
    if not 0 <= count <= len(items) or not items:
        raise ValueError(f"{count} problems asked, but there are only {len(items)} {what}; use at most {len(items)}")
    order = list(range(len(items)))
    Random(seed).shuffle(order)
    return [items[index] for index in order[: count or None]]


def below(random: Random, bound: int) -> int:
    """A whole number below the bound, as `random.randrange(bound)`, in a quarter of its time."""
    bits = bound.bit_length()
    number = random.getrandbits(bits)
    while number >= bound:
        number = random.getrandbits(bits)
    return number


def ranges(key: str, values: Sequence[int], low: int, high: int) -> tuple[int, ...]:
    """A task's option as a tuple; ValueError unless all are whole numbers within the bounds."""
    listed = [values] if isinstance(values, int) else list(values)
    inside = all(type(value) is int and low <= value <= high for value in listed)
    require(bool(listed) and inside, f"task.{key}", listed, f"must list numbers from {low} to {high}")
    return tuple(listed)


def subset(key: str, values: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    """The names of a task's option as a tuple; ValueError unless all are known ones."""
    listed = [values] if isinstance(values, str) else list(values)
    names = list(known)
    inside = bool(listed) and set(listed) <= set(names)
    require(inside, f"task.{key}", listed, f"must list some of {', '.join(names)}")
    return tuple(listed)
