"""Assigns colour, marker and line to each configuration, the same in every drawing."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

# Okabe and Ito's palette, which colour-blind readers can tell apart, without its yellow
# (https://jfly.uni-koeln.de/color).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
GREY = "#555555"  # of what is no configuration
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")
LINES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Style:
    """How one configuration looks in every plot: places in PALETTE, MARKERS and LINES."""

    color: int
    marker: int
    line: int


def styles(labels: Iterable[str]) -> dict[str, Style]:
    """A style for every label, which depends on nothing but the set of labels.

    Strategies differ in colour and their variants in line; where there are too many for that, all
    differ in colour first.
    """
    variants = defaultdict(list)
    for name in sorted(set(labels)):
        variants[name.partition(" ")[0]].append(name)
    if 1 < len(variants) <= len(PALETTE) and max(map(len, variants.values())) <= len(LINES):
        rows = list(variants.values())
    else:
        names = list(chain.from_iterable(variants.values()))
        rows = [names[color :: len(PALETTE)] for color in range(len(PALETTE))]
    places = {name: (color, line) for color, row in enumerate(rows) for line, name in enumerate(row)}
    found = {}
    for index, name in enumerate(chain.from_iterable(variants.values())):
        color, line = places[name]
        found[name] = Style(color, index % len(MARKERS), line % len(LINES))
    return found
