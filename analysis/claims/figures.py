"""Words and figures for measured claims."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis.claims.evaluate import Judged, Measured
from analysis.claims.spec import Check
from analysis.figures.data import Data, Figure, Intervals, Line, Lines
from analysis.figures.style import written
from analysis.report.sentences import points_text
from analysis.stats.intervals import Estimate, means_of_columns

if TYPE_CHECKING:
    from analysis.claims.weight_changes import Changes


def criterion(check: Check) -> str:
    """`accuracy: last quarter / full at least 0.9`."""
    operator = {"ratio": " / ", "difference": " - ", "value": ""}[check.kind]
    what = check.first + (operator + check.second if check.second is not None else "")
    bounds = [("at least", check.at_least), ("above", check.above), ("at most", check.at_most)]
    said = " and ".join(f"{word} {_text(check, bound)}" for word, bound in bounds if bound is not None)
    return f"{check.measure}: {what} {said}"


def measured_text(measured: Measured) -> str:
    """`0.94 [0.91, 0.97]`, `+1.2 points [-0.3, +2.7]` where it is a difference of accuracies."""
    estimate, check = measured.estimate, measured.check
    if estimate is None:
        return "not run"
    if check.kind == "difference" and _is_share(check):
        text = points_text(estimate)
    elif estimate.low is None or estimate.high is None:
        text = _text(check, estimate.value)
    else:
        text = f"{_text(check, estimate.value)} [{_text(check, estimate.low)}, {_text(check, estimate.high)}]"
    return f"{text} ({measured.note})" if measured.note else text


def margins(judged: Sequence[Judged]) -> list[Figure]:
    """How far every measured number is from its bound; right of the line it bears the claim out."""
    panels: dict[str, Data] = {}
    for name, unit, kinds in (
        ("Ratios, in percent of the bound", "share", ("ratio",)),
        ("Accuracies and shares, in points", "points", ("difference", "value")),
    ):
        rows = [row for each in judged for found in each.measured if found.check.kind in kinds for row in _rows(each, found)]
        if rows:
            labels, values, decided = zip(*rows, strict=True)
            panels[name] = Intervals("distance from the bound", unit, labels, values, decided)
    caption = (
        "Every number with its 95% interval against its bound: right of the line is as claimed. Filled where it is decided."
    )
    return [Figure("margins", "How far from what was claimed", caption, panels)] if panels else []


def _rows(judged: Judged, measured: Measured) -> list[tuple[str, Estimate, bool]]:
    check, estimate = measured.check, measured.estimate
    if estimate is None:
        return []
    arms = check.first if check.second is None else f"{check.first}{' / ' if check.kind == 'ratio' else ' - '}{check.second}"
    rows = []
    for bound, sign in zip(check.bounds, (1.0, -1.0), strict=True):
        if bound is not None:
            both = "" if None in check.bounds else ", at least" if sign > 0 else ", at most"
            place = _from(bound, sign, check.kind == "ratio")
            rows.append(
                (
                    f"{judged.claim.name}: {check.measure}, {arms}{both}",
                    _mapped(estimate, place, sign),
                    measured.verdict != "undecided",
                )
            )
    return rows


def _from(bound: float, sign: float, relative: bool) -> Callable[[float], float]:
    return lambda value: sign * (value / bound - 1.0) if relative else sign * 100 * (value - bound)


def _mapped(estimate: Estimate, place: Callable[[float], float], sign: float) -> Estimate:
    if estimate.low is None or estimate.high is None:
        return Estimate(place(estimate.value))
    low, high = (estimate.low, estimate.high) if sign > 0 else (estimate.high, estimate.low)
    return Estimate(place(estimate.value), place(low), place(high))


def changed_figure(changes: "Sequence[Changes]") -> Figure:
    """Share of changed weights by block, in float32 and in bfloat16; one Changes a seed."""
    lines, names = [], tuple(changes[0].by_part(changes[0].counted))
    for label, pick in (("float32", "counted"), ("bfloat16", "rounded")):
        shares = np.array([list(each.by_part(getattr(each, pick)).values()) for each in changes])
        places = tuple(float(place) for place in range(len(names)))
        if len(changes) > 1:
            centre, low, high = (tuple(map(float, column)) for column in means_of_columns(shares))
            lines.append(Line(label, places, centre, low, high))
        else:
            lines.append(Line(label, places, tuple(map(float, shares[0]))))
    caption = (
        "Share of the weights that are others than before training, after full training. bfloat16: both were rounded to it "
        "before they were compared, which hides small steps."
    )
    return Figure(
        "changed_weights",
        "Which weights changed",
        caption,
        {"": Lines("part of the model", "changed", "share", tuple(lines), names)},
    )


def line_labels(figure: Figure) -> list[str]:
    """What its lines are called."""
    return [line.label for data in figure.panels.values() if isinstance(data, Lines) for line in data.lines]


def _text(check: Check, value: float) -> str:
    """A bound or a value of the check with its unit."""
    if check.kind == "ratio":
        return f"{value:.3g}"
    if check.kind == "difference" and _is_share(check):
        return f"{100 * value:+g} points" if value else "0"
    return written(value, "seconds" if "seconds" in check.measure else "bytes" if "memory" in check.measure else "share")


def _is_share(check: Check) -> bool:
    return check.measure.startswith(("accuracy", "gain", "changed"))
