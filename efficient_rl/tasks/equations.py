"""Linear equations in one unknown with a whole solution."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from efficient_rl.tasks.problem import Generated, Problem, below, ranges


@dataclass(frozen=True)
class Equations(Generated):
    """`a*x+b=c` for x; difficulty = the bound of a, b and x, which may all be negative.

    `sizes` lists the bounds to draw from, evenly.
    """

    sizes: Sequence[int] = (5, 10, 20)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", ranges("sizes", self.sizes, 2, 10_000))

    def _draw(self, random: Random) -> Problem:
        size = self.sizes[below(random, len(self.sizes))]
        a, b = _nonzero(random, size), _nonzero(random, size)
        x = below(random, 2 * size + 1) - size
        product, c = a * x, a * x + b
        left = f"{a}*x{b:+d}"
        return Problem(
            question=f"Solve for x: {left.replace('+', ' + ').replace('x-', 'x - ')} = {c}",
            symbols=f"{left}={c};x:",
            check="number",
            gold={"answer": str(x)},
            difficulty=float(size),
            source="equations",
            key=f"equations {left}={c}",
            steps=(f"{a}*x={c}{-b:+d}", f"{a}*x={product}", f"x={product}/({a})" if a < 0 else f"x={product}/{a}", f"x={x}"),
            solution=str(x),
        )


def _nonzero(random: Random, size: int) -> int:
    """From -size to size without zero."""
    number = below(random, 2 * size) - size
    return number if number < 0 else number + 1
