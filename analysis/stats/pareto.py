"""Finds the Pareto front of low cost and high accuracy, and its uncertainty."""

from collections.abc import Sequence
from itertools import compress
from math import inf
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from analysis.stats.aggregate import Summary
from analysis.stats.intervals import RESAMPLES, Floats


def pareto_front(summaries: Sequence[Summary], cost: str = "trainable_params") -> list[Summary]:
    """Those that no other dominates, cheapest first; equal ones stay. `cost` is a key of COSTS.

    The others are the rest, and the model before training, which costs nothing: none is on the
    front that is no more accurate than without training.
    """
    if not summaries:
        return []
    costs = np.array([[summary.costs[cost].value for summary in summaries]])
    accuracies = np.array([list(map(attrgetter("accuracy"), summaries))])
    before = max(map(attrgetter("accuracy_before"), summaries))
    front = compress(summaries, _above(before, costs, accuracies)[0])
    return sorted(front, key=lambda summary: (summary.costs[cost].value, summary.label))


def on_front(costs: Floats, values: Floats) -> NDArray[np.bool_]:
    """Which are on the front of low cost and high value, per row of (draws, configurations).

    One is off the front if another costs no more, is worth no less, and is better in one of the
    two.
    """
    order = np.lexsort((-values, costs))
    rows = np.arange(len(costs))
    sorted_on = np.zeros(costs.shape, dtype=bool)
    best = np.full(len(costs), -inf)
    for place in range(costs.shape[1]):
        column = order[:, place]
        cost, value = costs[rows, column], values[rows, column]
        sorted_on[:, place] = value > best
        if place:
            before = order[:, place - 1]
            equal = (cost == costs[rows, before]) & (value == values[rows, before])
            sorted_on[:, place] |= equal & sorted_on[:, place - 1]
        best = np.maximum(best, value)
    found = np.zeros(costs.shape, dtype=bool)
    np.put_along_axis(found, order, sorted_on, axis=1)
    return found


def _above(before: float, costs: Floats, values: Floats) -> NDArray[np.bool_]:
    """As `on_front`, with something that costs nothing and is worth `before` among the others."""
    rows = len(costs)
    free, worth = np.full((rows, 1), -inf), np.full((rows, 1), before)
    return on_front(np.hstack([free, costs]), np.hstack([worth, values]))[:, 1:]


def front_probabilities(
    costs: Sequence[Floats], values: Sequence[Floats], before: float, resamples: int = RESAMPLES
) -> Floats | None:
    """How often each configuration is on the front when its seeds are resampled.

    Arrays (seeds,) for each configuration; `before` is the value without training. Cost and value
    are drawn together. None where every configuration has one seed.
    """
    if max(map(len, values)) < 2:
        return None
    rng = np.random.default_rng(0)
    drawn_costs, drawn_values = np.empty((2, resamples, len(values)))
    for column, (cost, value) in enumerate(zip(costs, values, strict=True)):
        draws = rng.integers(0, len(value), (resamples, len(value)))
        drawn_costs[:, column] = cost[draws].mean(axis=1)
        drawn_values[:, column] = value[draws].mean(axis=1)
    share: Floats = _above(before, drawn_costs, drawn_values).mean(axis=0)
    return share


def hypervolume(costs: Floats, values: Floats, most_cost: float, least_value: float) -> float:
    """Area between the front and a worst point: powers of ten in cost times value.

    costs and values (configurations,); what is no better than the worst point in either adds
    nothing.
    """
    order = np.lexsort((-values, costs))
    area, best = 0.0, least_value
    for cost, value in zip(costs[order], values[order], strict=True):
        if value > best and cost < most_cost:
            area += (value - best) * float(np.log10(most_cost / cost))
            best = value
    return float(area)
