"""Computes the figures of accuracies: against costs, over steps, by difficulty, as differences."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, repeat
from operator import attrgetter

import numpy as np

from analysis.figures.data import Data, Figure, Intervals, Line, Lines, Point, Scatter
from analysis.stats.aggregate import COSTS, Curve, Group, Summary, by_setting
from analysis.stats.comparisons import Difference
from analysis.stats.intervals import mean_of
from analysis.stats.pareto import front_probabilities, pareto_front

MOST_SHOWN = 10  # configurations in one plot; more cannot be told apart
ACTIVE = "mean_active_params"
FILES = {
    "trainable_params": "pareto",
    ACTIVE: "pareto_active",
    "peak_memory_bytes": "pareto_memory",
    "train_seconds": "pareto_seconds",
    "tokens": "pareto_tokens",
}
PARETO_CAPTION = (
    "Held-out accuracy against {title}, means over seeds with 95% intervals. The step line is the "
    "front: nothing else is cheaper and at least as accurate, not even the model before training, "
    "which costs nothing. A percentage beside a name says how "
    "often the configuration is on the front when its seeds are drawn anew."
)
DIFFICULTY_CAPTION = "Accuracy by difficulty of the held-out problems, means over seeds with 95% intervals over seeds."
SETS_CAPTION = "Accuracy on the further evaluation sets, means over seeds with 95% intervals over seeds."
DIFFERENCES_CAPTION = (
    "Differences to the most accurate configuration on common seeds and problems, with 95% "
    "intervals. Filled: told apart after Holm's correction for all pairs."
)
MakePanel = Callable[[list[Summary]], Data | None]


def shown(summaries: Sequence[Summary]) -> list[Summary]:
    """The ones of a setting that the plots name: those on a front first, then the most accurate."""
    fronts = chain.from_iterable(map(pareto_front, repeat(summaries), COSTS))
    on_front = set(map(attrgetter("label"), fronts))
    ranked = sorted(summaries, key=lambda s: (s.label not in on_front, -s.accuracy, s.label))
    return ranked[:MOST_SHOWN]


def named_labels(summaries: Iterable[Summary]) -> set[str]:
    """What the plots of any setting name: only these labels need a style of their own."""
    named = chain.from_iterable(map(shown, by_setting(summaries).values()))
    return set(map(attrgetter("label"), named))


def panels_of(summaries: Iterable[Summary], make: MakePanel) -> dict[str, Data]:
    """A panel for every setting that has something to show."""
    panels = {}
    for setting, members in by_setting(summaries).items():
        data = make(members)
        if data is not None:
            panels[setting] = data
    return panels


def make_figure(summaries: Sequence[Summary], name: str, title: str, caption: str, make: MakePanel) -> Figure | None:
    """The figure of the shown configurations; None where no setting has something to show."""
    panels = panels_of(summaries, make)
    if not panels:
        return None
    most = max(map(len, by_setting(summaries).values()))
    if most > MOST_SHOWN:
        caption += f" Shown: {MOST_SHOWN} of {most}, those on a front first."
    return Figure(name, title, caption, panels)


def pareto_figures(summaries: Sequence[Summary], clock: str) -> tuple[list[Figure], list[str]]:
    """A figure for every cost that differs, and a sentence on each that does not.

    `clock` is what the seconds are.
    """
    figures, left_out = [], []
    for cost, metric in COSTS.items():
        title = f"{metric.title} ({clock})" if metric.unit == "seconds" else metric.title
        panels = panels_of(summaries, partial(_scatter, cost, title))
        if panels:
            caption = PARETO_CAPTION.format(title=title)
            figures.append(Figure(FILES[cost], f"Accuracy against {title}", caption, panels))
        for setting, members in by_setting(summaries).items():
            if _is_constant(cost, members):
                where = f" ({setting})" if setting else ""
                all_same = f"All configurations have the same {title}{where}"
                left_out.append(f"{all_same}: that axis is left out.")
    return figures, left_out


def curve_figure(
    name: str,
    title: str,
    y_label: str,
    caption: str,
    found: Sequence[Curve],
    summaries: Sequence[Summary],
) -> Figure | None:
    """A metric over steps for the shown configurations; None where no run recorded it."""
    curves = {(curve.label, curve.setting): curve for curve in found}

    def panel(members: list[Summary]) -> Data | None:
        keys = map(attrgetter("label", "setting"), shown(members))
        drawn = list(filter(None, map(curves.get, keys)))
        window = max(map(attrgetter("window"), drawn), default=1)
        label = y_label if window == 1 else f"{y_label}, mean of the last {window} steps"
        lines = tuple(map(_curve_line, drawn))
        return Lines("training step", label, "number", lines) if lines else None

    return make_figure(summaries, name, title, caption, panel)


def difference_figure(summaries: Sequence[Summary], found: Sequence[Difference]) -> Figure | None:
    """Every shown configuration against the most accurate; None where nothing can be compared."""
    own = by_setting(found)

    def panel(members: list[Summary]) -> Data | None:
        return _difference_panel(members, own.get(members[0].setting, []))

    return make_figure(summaries, "differences", "Differences", DIFFERENCES_CAPTION, panel)


def _is_constant(cost: str, summaries: Sequence[Summary]) -> bool:
    """Whether several configurations have one cost, as far as a reader could tell."""
    written = {f"{summary.costs[cost].value:.6g}" for summary in summaries}
    return len(written) == 1 < len(summaries)


def _scatter(cost: str, title: str, summaries: Sequence[Summary]) -> Scatter | None:
    """None where the cost says nothing: it is constant, or all parameters train in every step."""
    active = map(attrgetter("mean_active_params"), summaries)
    trained = list(map(attrgetter("trainable_params"), summaries))
    if _is_constant(cost, summaries) or (cost == ACTIVE and list(active) == trained):
        return None
    metric, front = COSTS[cost], pareto_front(summaries, cost)
    before = list(map(attrgetter("accuracy_before"), summaries))
    groups = list(map(attrgetter("group"), summaries))
    costs = list(map(Group.values, groups, repeat(metric.attribute)))
    chances = front_probabilities(costs, list(map(Group.values, groups, repeat("accuracy"))), max(before))
    named = set(map(attrgetter("label"), shown(summaries)))
    points = []
    for index, summary in enumerate(summaries):
        chance = None if chances is None else float(chances[index])
        x, y = summary.costs[cost], summary.accuracy_estimate
        is_named = summary.label in named
        points.append(Point(summary.label, x, y, summary in front, chance, is_named))
    line = tuple((summary.costs[cost].value, summary.accuracy) for summary in front)
    span = min(before), max(before)
    y_label = "held-out accuracy"
    return Scatter(title, metric.unit, y_label, "share", tuple(points), line, span)


def _curve_line(curve: Curve) -> Line:
    x, y = tuple(map(float, curve.steps)), tuple(map(float, curve.mean))
    if curve.low is None or curve.high is None:
        return Line(curve.label, x, y)
    return Line(curve.label, x, y, tuple(map(float, curve.low)), tuple(map(float, curve.high)))


def _difficulty_panel(members: list[Summary]) -> Lines | None:
    drawn = shown(members)
    levels: set[str] = set()
    for summary in drawn:
        levels = levels.union(*map(attrgetter("by_difficulty"), summary.group.results))
    if len(levels) < 2:
        return None
    ordered = sorted(levels, key=_level_value)
    lines = [_shares_line(summary, "by_difficulty", ordered) for summary in drawn]
    before = drawn[0].group.results[0].by_difficulty_before
    if levels <= before.keys():
        places = tuple(map(float, range(len(ordered))))
        lines.append(Line("before training", places, tuple(map(before.__getitem__, ordered))))
    names = [level.replace("up_to_", "\N{LESS-THAN OR EQUAL TO} ") for level in ordered]
    return Lines("difficulty", "held-out accuracy", "share", tuple(lines), tuple(names))


def _sets_panel(members: list[Summary]) -> Lines | None:
    drawn, names = shown(members), dict[str, None]()
    for summary in drawn:
        for sets in map(attrgetter("sets"), summary.group.results):
            names |= dict.fromkeys(sets)
    if not names:
        return None
    lines = map(partial(_shares_line, attribute="sets", names=list(names)), drawn)
    kept = tuple(filter(attrgetter("x"), lines))
    return Lines("evaluation set", "held-out accuracy", "share", kept, tuple(names))


def _difference_panel(members: list[Summary], found: Iterable[Difference]) -> Intervals | None:
    best, named = members[0].label, set(map(attrgetter("label"), shown(members)))
    rows = []
    for difference in found:
        other, gap = difference.against(best)
        if best in (difference.first, difference.second) and other in named:
            rows.append((other, gap, difference.decided))
    if not rows:
        return None
    rows.sort(key=lambda row: -row[1].value)
    labels, values, decided = zip(*rows, strict=True)
    x_label = f"accuracy less that of {best}, in points"
    return Intervals(x_label, "points", labels, values, decided)


def _level_value(level: str) -> float:
    """The number in the name of a level of difficulty: `3`, `up_to_12`."""
    return float(level.removeprefix("up_to_"))


def _shares_line(summary: Summary, attribute: str, names: Sequence[str]) -> Line:
    """The mean share over the seeds that have a name, with an interval where several have it."""
    by_seed: list[Mapping[str, float]] = list(map(attrgetter(attribute), summary.group.results))
    places, means = [], []
    for place, name in enumerate(names):
        values = [shares[name] for shares in by_seed if name in shares]
        if values:
            places.append(float(place))
            means.append(mean_of(np.array(values)).within(0.0, 1.0))
    if not means:
        return Line(summary.label, (), ())
    low, high = zip(*map(attrgetter("ends"), means), strict=True)
    return Line(summary.label, tuple(places), tuple(map(attrgetter("value"), means)), low, high)


# Name, title, caption, and what makes a panel.
FIGURES = (
    ("accuracy_by_difficulty", "Accuracy by difficulty", DIFFICULTY_CAPTION, _difficulty_panel),
    ("sets", "Further evaluation sets", SETS_CAPTION, _sets_panel),
)
