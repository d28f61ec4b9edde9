"""Formats numbers for people: with units, as points, with intervals."""

from collections.abc import Iterable

from analysis.stats.intervals import Estimate

PREFIXES = ((1e9, "B"), (1e6, "M"), (1e3, "k"))  # parameters are counted in billions
BYTES = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"))
TIMES = ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"))


def written(value: float, unit: str) -> str:
    """A value on an axis or in a sentence: `107k`, `63 MiB`, `1.5 min`, `45%`."""
    match unit:
        case "share":
            return f"{100 * value:.4g}%"
        case "count":
            return _scaled(value, PREFIXES, "")
        case "bytes" if abs(value) >= BYTES[-1][0]:
            return _scaled(value, BYTES, " ")
        case "bytes":
            return f"{value:.4g} B"
        case "seconds":
            return _scaled(value, TIMES, " ")
        case _:
            return f"{value:.4g}"


def points(share: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"  # adding 0.0 turns -0.0 into 0.0


def points_text(share: Estimate) -> str:
    """`+3.1 points [-0.4, +6.6]`; without an interval where there is none."""
    interval = "" if share.interval is None else f" [{', '.join(map(points, share.interval))}]"
    return f"{points(share.value)} points{interval}"


def percent_interval(share: Estimate) -> str:
    """` [43.1%, 47.0%]`, "" where there is no interval."""
    return "" if share.interval is None else " [{:.1%}, {:.1%}]".format(*share.interval)


def share_text(share: float) -> str:
    """A share to three digits: adapters of a large model train far less than 0.1%."""
    return f"{100 * share:.3g}%"


def _scaled(value: float, scales: Iterable[tuple[float, str]], gap: str) -> str:
    for size, name in scales:
        if abs(value) >= 0.9995 * size:  # 999.9 would be written as 1000
            return f"{value / size:.3g}{gap}{name}"
    return f"{value:.3g}"
