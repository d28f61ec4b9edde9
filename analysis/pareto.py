"""Finds the configurations that no other one beats: fewer trained parameters, higher accuracy."""

from collections.abc import Sequence
from itertools import groupby

from analysis.aggregate import Summary


def pareto_front(summaries: Sequence[Summary]) -> list[Summary]:
    """The summaries that no other dominates, cheapest first; equal ones stay together.

    One dominates another if it trains no more parameters and is no less accurate, and is better in one of the two.
    """
    front: list[Summary] = []
    ordered = sorted(summaries, key=lambda summary: (summary.trainable_params, summary.label))
    for _, group in groupby(ordered, key=lambda summary: summary.trainable_params):
        equally_cheap = list(group)
        best = max(summary.accuracy for summary in equally_cheap)
        if not front or best > front[-1].accuracy:
            front += [summary for summary in equally_cheap if summary.accuracy == best]
    return front
