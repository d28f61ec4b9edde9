"""What the constructors of curricula refuse, and what no pool may contain."""

import math
from collections.abc import Collection, Sequence
from typing import Any

from efficient_rl.errors import is_number, require, require_one_of, require_whole


def check_whole(name: str, value: Any, low: int) -> None:
    """Refuse all but whole numbers of at least `low`."""
    require_whole(f"curriculum.{name}", value, low, f"; use {low} or more")


def check_number(name: str, value: Any, low: float, high: float = math.inf, above: bool = False) -> None:
    """Refuse all but finite numbers from `low` (or, with `above`, just above it) to `high`."""
    inside = is_number(value) and math.isfinite(value) and low <= value <= high
    bound = f"must be a number of at least {low:g}"
    if above:
        inside, bound = inside and value > low, f"must be a number above {low:g}"
    if high < math.inf:
        bound += f" and at most {high:g}"
    require(inside, f"curriculum.{name}", value, f"{bound}; use one in that range")


def check_choice(name: str, value: Any, valid: Collection[str]) -> None:
    """Refuse all but the valid names."""
    require_one_of(f"curriculum.{name}", value, valid)


def check_flag(name: str, value: Any) -> None:
    """Refuse all but true and false."""
    flag = isinstance(value, bool)
    require(flag, f"curriculum.{name}", value, "must be true or false; use one of them")


def check_pool(difficulties: Sequence[float], steps: int) -> list[float]:
    """The pool's difficulties; refuses an empty pool, what is no finite number, and no steps."""
    if not difficulties:
        raise ValueError("the training pool has 0 problems; a curriculum needs at least 1, raise grpo.train_problems")
    require(steps >= 1, "steps", steps, "must be at least 1; raise grpo.max_steps")
    for index, difficulty in enumerate(difficulties):
        if not math.isfinite(difficulty):
            raise ValueError(
                f"problem {index} has difficulty {difficulty}, which cannot be ordered; give every problem a finite one"
            )
    return list(map(float, difficulties))
