"""What a curriculum is: it chooses the next problems, and may learn from their rewards."""

from collections.abc import Sequence
from typing import Any


class Curriculum:
    """Chooses problems by their index in the training pool; everything but `draw` has a default.

    `begin` is called once before the first draw, with the whole pool; `observe` after every batch,
    with the rewards that training saw, never with those of an evaluation. All state that a resumed
    run needs goes through `state_dict`, as JSON.
    """

    refills: int = 0  # how often groups without a signal may be replaced by new ones within one step (DAPO)

    def begin(self, difficulties: Sequence[float], seed: int, steps: int) -> None:
        """Take the pool's difficulties, in the order of its problems, and the number of steps."""
        raise NotImplementedError

    def draw(self, count: int, step: int) -> list[int]:
        """Indices of `count` problems for the step, from 0; decided by seed and history."""
        raise NotImplementedError

    def observe(self, indices: Sequence[int], rewards: Sequence[Sequence[float]], step: int) -> None:
        """Take in the rewards, shape (problems, num_generations), of the step's problems."""

    def beliefs(self) -> dict[str, float]:
        """What it believes, for the log, by level or name: {"level_3": 0.4}; empty by default."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The state that a resumed run needs to continue exactly."""
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the state was taken; `begin` was called before."""
        raise NotImplementedError
