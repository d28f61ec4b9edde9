"""What the constructors of curricula refuse, and what no pool may contain."""

import math
from collections.abc import Collection, Sequence
from typing import Any


def check_whole(name: str, value: Any, low: int) -> None:
    """Raise ValueError unless the argument `name` is a whole number of at least `low`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"curriculum.{name}={value!r} must be a whole number of at least {low}; use {low} or more")


def check_number(name: str, value: Any, low: float, high: float = math.inf, above: bool = False) -> None:
    """Raise ValueError unless the argument is a finite number from `low` (or, with `above`, just above it) to `high`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or value > high or value < low or (above and value == low):
        bound = f"above {low:g}" if above else f"of at least {low:g}"
        ceiling = f" and at most {high:g}" if high < math.inf else ""
        raise ValueError(f"curriculum.{name}={value!r} must be a number {bound}{ceiling}; use one in that range")


def check_choice(name: str, value: Any, valid: Collection[str]) -> None:
    """Raise ValueError unless the argument is one of the valid names."""
    if value not in valid:
        raise ValueError(f"curriculum.{name}={value!r} is not known; use one of {', '.join(valid)}")


def check_flag(name: str, value: Any) -> None:
    """Raise ValueError unless the argument is true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"curriculum.{name}={value!r} must be true or false; use one of them")


def check_pool(difficulties: Sequence[float], steps: int) -> list[float]:
    """The pool's difficulties as a list. Raises ValueError for an empty pool, what is no finite number, and no steps."""
    if not difficulties:
        raise ValueError("the training pool has 0 problems; a curriculum needs at least 1, raise grpo.train_problems")
    if steps < 1:
        raise ValueError(f"steps={steps} must be at least 1; raise grpo.max_steps")
    for index, difficulty in enumerate(difficulties):
        if not math.isfinite(difficulty):
            raise ValueError(
                f"problem {index} has difficulty {difficulty}, which cannot be ordered; give every problem a finite one"
            )
    return [float(difficulty) for difficulty in difficulties]
