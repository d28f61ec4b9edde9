"""Owns the contents of figures, apart from drawing: points, lines, bars, cells and intervals.

Units are `count`, `bytes`, `seconds`, `share` (of 1), `points` (of percent) and `number`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from analysis.stats.intervals import Estimate
from efficient_rl.metrics import METRICS

Pair: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Point:
    """One configuration: both values with intervals, and the probability of being on the front."""

    label: str
    x: Estimate
    y: Estimate
    on_front: bool
    front_probability: float | None
    shown: bool  # named and in colour


@dataclass(frozen=True)
class Scatter:
    """Costs against accuracies, the front from its cheapest point, and the accuracies before."""

    x_label: str
    x_unit: str
    y_label: str
    y_unit: str
    points: tuple[Point, ...]
    front: tuple[Pair, ...]
    before: Pair | None = None
    kind: str = "scatter"


@dataclass(frozen=True)
class Line:
    """One configuration's values with a band, where there are several seeds."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Lines:
    """Lines over numbers, or over `names` where x is a place in them."""

    x_label: str
    y_label: str
    y_unit: str
    lines: tuple[Line, ...]
    names: tuple[str, ...] = ()
    kind: str = "lines"


@dataclass(frozen=True)
class Bars:
    """A stacked bar for every label: parts by name, one value a label, and optional marks."""

    x_label: str
    x_unit: str
    labels: tuple[str, ...]
    parts: Mapping[str, tuple[float, ...]]
    marks: tuple[float, ...] = ()
    mark_label: str = ""
    kind: str = "bars"


@dataclass(frozen=True)
class Heat:
    """Shares (rows, steps): row by row from the top, column by column from the first step on."""

    x_label: str
    y_label: str
    steps: tuple[int, ...]
    rows: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    kind: str = "heat"


@dataclass(frozen=True)
class Intervals:
    """Differences with intervals, one a row; decided ones stand out."""

    x_label: str
    x_unit: str
    labels: tuple[str, ...]
    values: tuple[Estimate, ...]
    decided: tuple[bool, ...]
    kind: str = "intervals"


Data: TypeAlias = Scatter | Lines | Bars | Heat | Intervals


@dataclass(frozen=True)
class Figure:
    """One or more panels under one title; a panel's name distinguishes it, usually by setting."""

    name: str  # of its files
    title: str
    caption: str
    panels: Mapping[str, Data] = field(default_factory=dict)


def metric_words(name: str) -> tuple[str, str]:
    """Title and unit of a metric of a result; of any other objective of a search its name."""
    if name in METRICS:
        return METRICS[name].title, METRICS[name].unit
    return name, "number"
