"""What a problem is, and which side of the train / held-out line it lies on."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, Protocol

Split = Literal["train", "held_out"]
HELD_OUT_PER_MILLE = 100


@dataclass(frozen=True)
class Problem:
    """One problem with a verifiable answer.

    `question` is English, `symbols` the same in the notation of the embedded model. `check` names the checker in
    `efficient_rl.rewards.verify` that judges an answer with `gold`. `key` identifies the content: two wordings or orders of
    the same problem share it, and it alone decides the split. `difficulty` is the task's own scale (operands, digits).
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


class Task(Protocol):
    """A source of problems; `problems` gives `count` distinct ones of one side of the split, the same for the same seed."""

    def problems(self, split: Split, count: int, seed: int) -> list[Problem]: ...


def split_of(key: str) -> Split:
    """The side of the split that the content `key` lies on: a tenth of all content is held out, by hash."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return "held_out" if int.from_bytes(digest, "big") % 1000 < HELD_OUT_PER_MILLE else "train"


def distinct(draw: Callable[[Random], Problem], split: Split, count: int, seed: int) -> list[Problem]:
    """Draw `count` problems with different keys of one split, or say how few there seem to be."""
    found: dict[str, Problem] = {}
    for problem in _draws(draw, seed, attempts=1000 + 100 * count):
        if problem.key not in found and split_of(problem.key) == split:
            found[problem.key] = problem
            if len(found) == count:
                return list(found.values())
    raise ValueError(
        f"only {len(found)} of {count} distinct {split} problems found; ask for fewer or widen the task's ranges"
    )


def _draws(draw: Callable[[Random], Problem], seed: int, attempts: int) -> Iterator[Problem]:
    random = Random(seed)
    return (draw(random) for _ in range(attempts))
