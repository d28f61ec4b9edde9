"""Computes the figures of a search: what its trials reached, and which parameters mattered."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate
from math import inf
from operator import itemgetter
from typing import Any

import numpy as np

from analysis.figures.data import Bars, Data, Figure, Line, Lines, Point, Scatter, metric_words
from analysis.stats.intervals import Estimate

Trial = Mapping[str, Any]
FRONT_CAPTION = "All {count} finished trials of the search; named are those that no other beats in every objective."
HISTORY_CAPTION = "The objective of all {count} finished trials of the search, and the best up to each."
IMPORTANCES_CAPTION = (
    "Which share of an objective's variance each parameter explains, by fANOVA, over the parameters "
    "that all trials have. It says nothing about parameters that were not searched, and little with "
    "few trials."
)
TUNING_CAPTION = "One run of each learning rate on the validation split; the highest of each was tested."


def trial_figures(content: Mapping[str, Any]) -> list[Figure]:
    """Objectives against each other with the front, or the best so far; and the importances."""
    trials = list(filter(_is_measured, content["trials"]))
    objectives: Mapping[str, str] = content["objectives"]
    if not trials:
        return []
    draw = _front if len(objectives) > 1 else _history
    figures = draw(trials, objectives, content["front"]), _importances(content)
    return [figure for figure in figures if figure.panels]


def tuning_figures(names: Sequence[str], arms: Sequence[Trial], objective: str) -> list[Figure]:
    """What every arm reached, by multiples of its own centre; nothing without common multiples."""
    curves = list(map(_by_multiple, arms))
    multiples = sorted(set().union(*curves))
    most = max(arm["trials"] + arm["failed"] for arm in arms)
    if len(multiples) < 2 or len(multiples) > most:
        return []
    lines = []
    for name, curve in zip(names, curves, strict=True):
        tried = sorted(curve)
        x = tuple(map(float, map(multiples.index, tried)))
        lines.append(Line(name, x, tuple(map(curve.__getitem__, tried))))
    ticks = tuple(map("{:g}".format, multiples))
    x_label = "learning rate, in multiples of each configuration's centre"
    panel = Lines(x_label, *metric_words(objective), tuple(lines), ticks)
    return [Figure("tuning", "Tuning of the learning rate", TUNING_CAPTION, {"": panel})]


def _is_measured(trial: Trial) -> bool:
    """Whether the trial finished and was no repetition: that was told the same again."""
    return trial["values"] is not None and trial.get("repeat_of") is None


def _by_multiple(arm: Trial) -> dict[float, float]:
    """What the arm reached by its learning rate, in multiples of its centre."""
    reached = {}
    for trial in arm["tried"]:
        multiple = float(f"{trial['learning_rate'] / arm['centre']:.2g}")
        reached[multiple] = float(trial["value"])
    return reached


def _front(trials: Sequence[Trial], objectives: Mapping[str, str], front: Sequence[int]) -> Figure:
    """Every further objective against the first one, with the front where the step line fits."""
    first, *others = objectives
    stepped = list(objectives.values()) == ["maximize", "minimize"]
    y_label, y_unit = metric_words(first)
    panels: dict[str, Data] = {}
    for index, name in enumerate(others, 1):
        x_label, x_unit = metric_words(name)
        # The axis is logarithmic.
        positive = [trial for trial in trials if trial["values"][index] > 0]
        points = tuple(map(partial(_point, index, set(front)), positive))
        best = ((point.x.value, point.y.value) for point in points if point.on_front)
        line = tuple(sorted(best)) if stepped else ()
        if points:
            panel = "" if len(others) == 1 else x_label
            panels[panel] = Scatter(x_label, x_unit, y_label, y_unit, points, line)
    caption = FRONT_CAPTION.format(count=len(trials))
    return Figure("search_front", "What the search found", caption, panels)


def _point(index: int, front: set[int], trial: Trial) -> Point:
    x, y = Estimate(float(trial["values"][index])), Estimate(float(trial["values"][0]))
    best = trial["number"] in front
    return Point(f"trial {trial['number']}", x, y, best, None, best)


def _history(trials: Sequence[Trial], objectives: Mapping[str, str], front: Sequence[int]) -> Figure:
    """The objective trial by trial; what breaks a constraint is never best."""
    ((name, direction),) = objectives.items()
    better = max if direction == "maximize" else min
    ordered = sorted(trials, key=itemgetter("number"))
    x, values = tuple(float(each["number"]) for each in ordered), list(map(_objective, ordered))
    lines = [Line("each trial", x, tuple(values))]
    kept = list(map(_keeps_constraints, ordered))
    if any(kept):
        worst = -inf if direction == "maximize" else inf
        first, allowed = kept.index(True), np.where(kept, values, worst)
        best = tuple(accumulate(allowed.tolist(), better))
        lines.insert(0, Line("best so far", x[first:], best[first:]))
    panel = Lines("trial", *metric_words(name), tuple(lines))
    caption = HISTORY_CAPTION.format(count=len(trials))
    return Figure("search_history", "How the search went", caption, {"": panel})


def _importances(content: Mapping[str, Any]) -> Figure:
    panels: dict[str, Data] = {}
    for objective, shares in content.get("importances", {}).items():
        parts = {"importance": tuple(map(float, shares.values()))}
        panels[metric_words(objective)[0]] = Bars("importance", "share", tuple(shares), parts)
    return Figure("search_importances", "Which parameters mattered", IMPORTANCES_CAPTION, panels)


def _objective(trial: Trial) -> float:
    return float(trial["values"][0])


def _keeps_constraints(trial: Trial) -> bool:
    return max(trial.get("constraints", {}).values(), default=0) <= 0
