"""Computes the figures of a report from its summaries and runs."""

from collections.abc import Mapping, Sequence

import numpy as np

from analysis.figures.data import Data, Figure, Intervals, Line, Lines, Point, Scatter
from analysis.stats.aggregate import COSTS, Curve, Group, Summary
from analysis.stats.comparisons import Difference
from analysis.stats.intervals import Estimate, mean_of
from analysis.stats.pareto import front_probabilities, pareto_front

MOST_SHOWN = 10  # configurations in one plot; more cannot be told apart
COST_TITLES = {  # key of COSTS -> (name, unit, file)
    "trainable_params": ("trained parameters", "count", "pareto"),
    "mean_active_params": ("parameters trained in a step, on average", "count", "pareto_active"),
    "peak_memory_bytes": ("peak memory", "bytes", "pareto_memory"),
    "train_seconds": ("training time", "seconds", "pareto_seconds"),
    "tokens": ("training tokens", "count", "pareto_tokens"),
}


def shown_labels(summaries: Sequence[Summary]) -> list[str]:
    """The configurations of one setting that the plots name: those on a front first, then the most accurate."""
    on_front = {s.label for cost in COSTS for s in pareto_front(summaries, cost)}
    ranked = sorted(summaries, key=lambda s: (s.label not in on_front, -s.accuracy, s.label))
    return [summary.label for summary in ranked[:MOST_SHOWN]]


def named_labels(summaries: Sequence[Summary]) -> set[str]:
    """The configurations that the plots of any setting name: only they need a look of their own."""
    return {label for members in by_setting(summaries).values() for label in shown_labels(members)}


def pareto_figures(summaries: Sequence[Summary], groups: Sequence[Group]) -> tuple[list[Figure], list[str]]:
    """A figure for every cost that differs between configurations, and a sentence on each that does not."""
    figures, left_out = [], []
    for cost, (title, unit, name) in COST_TITLES.items():
        panels = {}
        for setting, members in by_setting(summaries).items():
            if len(members) > 1 and len({f"{s.costs[cost].value:.6g}" for s in members}) == 1:
                where = f" ({setting})" if setting else ""
                left_out.append(f"All configurations have the same {title}{where}: that axis is left out.")
            elif cost != "mean_active_params" or any(s.mean_active_params != s.trainable_params for s in members):
                panels[setting] = _scatter(cost, title, unit, members, groups)
        if panels:
            caption = (
                f"Held-out accuracy against {title}, means over seeds with 95% intervals. The step line is the front: "
                "nothing else is cheaper and at least as accurate. A percentage beside a name says how often the "
                "configuration is on the front when its seeds are drawn anew."
            )
            figures.append(Figure(name, f"Accuracy against {title}", caption, panels))
    return figures, left_out


def _scatter(cost: str, title: str, unit: str, summaries: Sequence[Summary], groups: Sequence[Group]) -> Scatter:
    results = {(group.label, group.setting): group.results for group in groups}
    own = [results[summary.label, summary.setting] for summary in summaries]
    costs = [np.array([COSTS[cost](result) for result in each]) for each in own]
    chances = front_probabilities(costs, [np.array([result.accuracy for result in each]) for each in own])
    front, named = pareto_front(summaries, cost), set(shown_labels(summaries))
    points = [
        Point(
            summary.label,
            summary.costs[cost],
            Estimate(summary.accuracy, summary.accuracy_low, summary.accuracy_high),
            summary in front,
            None if chances is None else float(chances[index]),
            summary.label in named,
        )
        for index, summary in enumerate(summaries)
    ]
    before = [summary.accuracy_before for summary in summaries]
    line = tuple((summary.costs[cost].value, summary.accuracy) for summary in front)
    return Scatter(title, unit, "held-out accuracy", "share", tuple(points), line, (min(before), max(before)))


def curve_figure(
    name: str, title: str, y_label: str, caption: str, found: Sequence[Curve], summaries: Sequence[Summary]
) -> Figure | None:
    """A metric over steps for the shown configurations of every setting; None where no run recorded it."""
    panels: dict[str, Data] = {}
    for setting, members in by_setting(summaries).items():
        own = {curve.label: curve for curve in found if curve.setting == setting}
        drawn = [own[label] for label in shown_labels(members) if label in own]
        if drawn:
            window = max(curve.window for curve in drawn)
            label = y_label if window == 1 else f"{y_label}, mean of the last {window} steps"
            panels[setting] = Lines("training step", label, "number", tuple(map(_line, drawn)))
    return Figure(name, title, caption + left_out_text(summaries), panels) if panels else None


def difficulty_figure(summaries: Sequence[Summary], groups: Sequence[Group]) -> Figure | None:
    """Accuracy at every level of difficulty after training, and before; None where there is one level."""
    panels: dict[str, Data] = {}
    for setting, members in by_setting(summaries).items():
        own = {group.label: group for group in groups if group.setting == setting}
        drawn = [own[label] for label in shown_labels(members)]
        levels = sorted({level for group in drawn for r in group.results for level in r.by_difficulty}, key=level_value)
        if len(levels) > 1:
            before = drawn[0].results[0].by_difficulty_before
            lines = [
                _shares_line(group.label, [result.by_difficulty for result in group.results], levels) for group in drawn
            ]
            if all(level in before for level in levels):
                places = tuple(float(place) for place in range(len(levels)))
                lines.append(Line("before training", places, tuple(before[level] for level in levels)))
            names = tuple(level.replace("up_to_", "\N{LESS-THAN OR EQUAL TO} ") for level in levels)
            panels[setting] = Lines("difficulty", "held-out accuracy", "share", tuple(lines), names)
    caption = "Accuracy by difficulty of the held-out problems, means over seeds with 95% intervals over seeds."
    if not panels:
        return None
    return Figure("accuracy_by_difficulty", "Accuracy by difficulty", caption + left_out_text(summaries), panels)


def sets_figure(summaries: Sequence[Summary], groups: Sequence[Group]) -> Figure | None:
    """Accuracy on the further evaluation sets (`eval.sets`); None where no run had any."""
    panels: dict[str, Data] = {}
    for setting, members in by_setting(summaries).items():
        own = {group.label: group for group in groups if group.setting == setting}
        drawn = [own[label] for label in shown_labels(members)]
        names = tuple(dict.fromkeys(name for group in drawn for result in group.results for name in result.sets))
        if names:
            lines = [_shares_line(group.label, [result.sets for result in group.results], names) for group in drawn]
            panels[setting] = Lines(
                "evaluation set", "held-out accuracy", "share", tuple(each for each in lines if each.x), names
            )
    caption = "Accuracy on the further evaluation sets, means over seeds with 95% intervals over seeds."
    return Figure("sets", "Further evaluation sets", caption + left_out_text(summaries), panels) if panels else None


def difference_figure(summaries: Sequence[Summary], found: Sequence[Difference]) -> Figure | None:
    """Every shown configuration against the most accurate one of its setting; None where nothing can be compared."""
    panels: dict[str, Data] = {}
    for setting, members in by_setting(summaries).items():
        best, named = members[0].label, set(shown_labels(members))
        drawn = [
            (difference, 1.0 if difference.second == best else -1.0)
            for difference in found
            if difference.setting == setting and best in (difference.first, difference.second)
        ]
        rows = [
            (each.first if sign > 0 else each.second, in_points(each.accuracy, sign), each.decided) for each, sign in drawn
        ]
        rows = sorted((row for row in rows if row[0] in named), key=lambda row: -row[1].value)
        if rows:
            labels, values, decided = (tuple(column) for column in zip(*rows, strict=True))
            panels[setting] = Intervals(f"accuracy less that of {best}, in points", "points", labels, values, decided)
    caption = (
        "Differences to the most accurate configuration on common seeds and problems, with 95% intervals. Filled: told "
        "apart after Holm's correction for all pairs."
    )
    return Figure("differences", "Differences", caption + left_out_text(summaries), panels) if panels else None


def by_setting(summaries: Sequence[Summary]) -> dict[str, list[Summary]]:
    """The summaries of every setting, in their order."""
    settings = dict.fromkeys(summary.setting for summary in summaries)
    return {setting: [s for s in summaries if s.setting == setting] for setting in settings}


def left_out_text(summaries: Sequence[Summary]) -> str:
    """A sentence where a plot cannot show all configurations."""
    most = max((len(members) for members in by_setting(summaries).values()), default=0)
    return f" Shown: {MOST_SHOWN} of {most}, those on a front first." if most > MOST_SHOWN else ""


def in_points(share: Estimate, sign: float = 1.0) -> Estimate:
    """A difference of shares in percentage points, turned round for a sign of -1."""
    ends = [None if end is None else 100 * sign * end for end in (share.low, share.high)]
    low, high = ends if sign > 0 else ends[::-1]
    return Estimate(100 * sign * share.value, low, high)


def level_value(level: str) -> float:
    """The number in the name of a level of difficulty: `3`, `up_to_12`."""
    return float(level.removeprefix("up_to_"))


def _line(curve: Curve) -> Line:
    low, high = (None if each is None else tuple(map(float, each)) for each in (curve.low, curve.high))
    return Line(curve.label, tuple(map(float, curve.steps)), tuple(map(float, curve.mean)), low, high)


def _shares_line(label: str, by_seed: Sequence[Mapping[str, float]], names: Sequence[str]) -> Line:
    """The mean share over seeds of every name that some seed has, with intervals where several have it."""
    found = [
        (float(place), mean_of(np.array(values)).within(0.0, 1.0))
        for place, name in enumerate(names)
        if (values := [shares[name] for shares in by_seed if name in shares])
    ]
    low = tuple(each.value if each.low is None else each.low for _, each in found)
    high = tuple(each.value if each.high is None else each.high for _, each in found)
    return Line(label, tuple(place for place, _ in found), tuple(each.value for _, each in found), low, high)
