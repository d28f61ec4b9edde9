"""Words and figures for evaluated claims."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from math import isfinite
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from analysis.claims.evaluate import CheckResult, ClaimResult
from analysis.claims.spec import Check
from analysis.figures.data import Data, Figure, Intervals, Line, Lines
from analysis.figures.numbers import points_text, written
from analysis.stats.intervals import Estimate, means_of_columns

if TYPE_CHECKING:
    from analysis.claims.weight_changes import WeightChanges

MARGINS = (  # panel, unit, kinds of checks
    ("Ratios, in percent of the bound", "share", ("ratio",)),
    ("Accuracies and shares, in points", "points", ("difference", "value")),
)
MARGINS_CAPTION = (
    "Every number with its 95% interval against its bound: right of the line is as claimed. Filled where it is decided."
)
CHANGED_CAPTION = (
    "Share of the weights that are others than before training, after full training. bfloat16: both "
    "were rounded to it before they were compared, which hides small steps."
)
Row = tuple[str, Estimate, bool]


def criterion(check: Check) -> str:
    """`accuracy: last quarter / full at least 0.9`."""
    bounds = {"at least": check.at_least, "above": check.above, "at most": check.at_most}
    said = []
    for word, bound in bounds.items():
        if bound is not None:
            said.append(f"{word} {_text(check, bound)}")
    return f"{check.measure}: {check.formula} {' and '.join(said)}"


def estimate_text(result: CheckResult) -> str:
    """`0.94 [0.91, 0.97]`, `+1.2 points [-0.3, +2.7]` where it is a difference of accuracies."""
    estimate, check = result.estimate, result.check
    if estimate is None:
        return "not run"
    if check.kind == "difference" and _is_share(check):
        text = points_text(estimate)
    else:
        text = _text(check, estimate.value)
        if estimate.interval is not None:
            text += f" [{', '.join(map(partial(_text, check), estimate.interval))}]"
    return f"{text} ({result.note})" if result.note else text


def margins(results: Sequence[ClaimResult]) -> list[Figure]:
    """How far every number is from its bound; right of the line it bears the claim out."""
    panels: dict[str, Data] = {}
    for name, unit, kinds in MARGINS:
        rows: list[Row] = []
        for claim in results:
            for each in claim.checks:
                if each.check.kind in kinds:
                    rows += _rows(claim.claim.name, each)
        if rows:
            labels, values, decided = zip(*rows, strict=True)
            panels[name] = Intervals("distance from the bound", unit, labels, values, decided)
    if not panels:
        return []
    return [Figure("margins", "How far from what was claimed", MARGINS_CAPTION, panels)]


def changed_figure(changes: "Sequence[WeightChanges]") -> Figure:
    """Share of changed weights by block, in float32 and in bfloat16; one WeightChanges a seed."""
    names = tuple(changes[0].by_part(changes[0].counted))
    x = tuple(map(float, range(len(names))))
    lines = []
    for label, pick in (("float32", "counted"), ("bfloat16", "rounded")):
        parts = [each.by_part(getattr(each, pick)) for each in changes]
        shares = np.array(list(map(list, map(dict.values, parts))))
        if len(changes) > 1:
            columns = np.array(means_of_columns(shares)).tolist()
            lines.append(Line(label, x, *map(tuple, columns)))
        else:
            lines.append(Line(label, x, tuple(shares[0].tolist())))
    panel = Lines("part of the model", "changed", "share", tuple(lines), names)
    return Figure("changed_weights", "Which weights changed", CHANGED_CAPTION, {"": panel})


def line_labels(figures: Iterable[Figure]) -> set[str]:
    """What their lines are called."""
    panels = chain.from_iterable(figure.panels.values() for figure in figures)
    lines = (data.lines for data in panels if isinstance(data, Lines))
    return set(map(attrgetter("label"), chain.from_iterable(lines)))


def _rows(claim: str, result: CheckResult) -> Iterator[Row]:
    check, estimate = result.check, result.estimate
    if estimate is None:
        return
    both_bounds = all(map(isfinite, check.bounds))
    for bound, sign, side in zip(check.bounds, (1.0, -1.0), ("least", "most"), strict=True):
        if isfinite(bound):
            margin = estimate.mapped(_from(bound, sign, check.kind == "ratio"))
            label = f"{claim}: {check.measure}, {check.formula}"
            if both_bounds:
                label += f", at {side}"
            yield label, margin, result.verdict != "undecided"


def _from(bound: float, sign: float, relative: bool) -> Callable[[float], float]:
    """How far a value lies on the claimed side of the bound, in percent of it or in points."""
    if relative:
        return lambda value: sign * (value / bound - 1.0)
    return lambda value: sign * 100 * (value - bound)


def _text(check: Check, value: float) -> str:
    """A bound or a value of the check with its unit."""
    if check.kind == "ratio":
        return f"{value:.3g}"
    if check.kind == "difference" and _is_share(check):
        return f"{100 * value:+g} points" if value else "0"
    return written(value, check.unit)


def _is_share(check: Check) -> bool:
    return check.measure.startswith(("accuracy", "gain", "changed"))
