"""Curricula whose choice depends on the training step alone."""

from collections.abc import Sequence
from random import Random
from typing import Any


class Uniform:
    """Every problem once, in a shuffled order, then all again in another: the control for every other curriculum."""

    def __init__(self) -> None:
        self.drawn = 0

    def draw(self, difficulties: Sequence[float], count: int, seed: int) -> list[int]:
        """Indices of the next `count` problems out of `len(difficulties)`; the same for the same seed and history."""
        indices = []
        size = len(difficulties)
        for position in range(self.drawn, self.drawn + count):
            epoch, offset = divmod(position, size)
            indices.append(self._order(size, seed, epoch)[offset])
        self.drawn += count
        return indices

    def _order(self, size: int, seed: int, epoch: int) -> list[int]:
        if getattr(self, "_key", None) != (size, seed, epoch):
            self._key = (size, seed, epoch)
            self._indices = Random(f"{seed} {epoch}").sample(range(size), size)
        return self._indices

    def state_dict(self) -> dict[str, Any]:
        """How many problems were drawn."""
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the state was taken."""
        self.drawn = state["drawn"]
