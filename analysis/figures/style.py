"""How things look and are written in every drawing: colours of configurations, numbers with their units."""

from collections.abc import Iterable
from dataclasses import dataclass

# Okabe and Ito's palette, which colour-blind readers can tell apart (https://jfly.uni-koeln.de/color), without its yellow.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
GREY = "#555555"  # of what is no configuration
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")
LINES = ("-", "--", ":", "-.")
PREFIXES = ((1e9, "B"), (1e6, "M"), (1e3, "k"))  # parameters are counted in billions
BYTES = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"))
TIMES = ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"))


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
    variants: dict[str, list[str]] = {}
    for name in sorted(set(labels)):
        variants.setdefault(name.partition(" ")[0], []).append(name)
    names = [name for own in variants.values() for name in own]
    if 1 < len(variants) <= len(PALETTE) and max(map(len, variants.values())) <= len(LINES):
        looks = [(color, line) for color, own in enumerate(variants.values()) for line in range(len(own))]
    else:
        looks = [(index % len(PALETTE), index // len(PALETTE) % len(LINES)) for index in range(len(names))]
    return {
        name: Style(color, index % len(MARKERS), line)
        for index, (name, (color, line)) in enumerate(zip(names, looks, strict=True))
    }


def written(value: float, unit: str) -> str:
    """A value on an axis or in a sentence: `107k`, `63 MiB`, `1.5 min`, `45%`."""
    match unit:
        case "share":
            return f"{100 * value:.4g}%"
        case "count":
            return _scaled(value, PREFIXES, "")
        case "bytes":
            return _scaled(value, BYTES, " ") if abs(value) >= BYTES[-1][0] else f"{value:.4g} B"
        case "seconds":
            return _scaled(value, TIMES, " ")
        case _:
            return f"{value:.4g}"


def _scaled(value: float, scales: Iterable[tuple[float, str]], gap: str) -> str:
    for size, name in scales:
        if abs(value) >= 0.9995 * size:  # 999.9 would be written as 1000
            return f"{value / size:.3g}{gap}{name}"
    return f"{value:.3g}"
