"""The Pareto front is exactly what neither another configuration nor the untrained model dominates."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.stats.aggregate import Summary
from analysis.stats.pareto import front_probabilities, pareto_front
from tests.analysis_data import RESULT, summaries_at

UNTRAINED = RESULT["accuracy_before"]


def places(summaries: Sequence[Summary]) -> list[tuple[int, float]]:
    return [(summary.trainable_params, summary.accuracy) for summary in summaries]


def test_the_front_of_a_worked_example() -> None:
    found = pareto_front(summaries_at((10, 0.5), (20, 0.4), (20, 0.6), (30, 0.6), (40, 0.7), (50, 0.1)))
    assert places(found) == [(10, 0.5), (20, 0.6), (40, 0.7)]


def test_equal_configurations_stay_on_the_front_together() -> None:
    assert places(pareto_front(summaries_at((10, 0.5), (10, 0.5), (20, 0.5)))) == [(10, 0.5), (10, 0.5)]


def test_no_configuration_on_the_front_is_worse_than_no_training() -> None:
    assert places(pareto_front(summaries_at((10, 0.1), (20, 0.2), (30, 0.3)))) == [(30, 0.3)]
    assert pareto_front(summaries_at((10, 0.1), (20, 0.2))) == []
    assert pareto_front(summaries_at((10, 0.1)), "train_seconds") == []


def test_draws_of_the_seeds_that_are_worse_than_no_training_are_not_on_the_front() -> None:
    costs = [np.full(4, 10.0), np.full(4, 20.0)]
    values = [np.array([0.0, 0.1, 0.1, 0.0]), np.array([0.6, 0.7, 0.6, 0.7])]
    chances = front_probabilities(costs, values, before=0.2)
    assert chances is not None
    assert chances.tolist() == [0.0, 1.0]


def dominates(one: Summary, other: Summary) -> bool:
    cheaper, better = other.trainable_params - one.trainable_params, one.accuracy - other.accuracy
    return cheaper >= 0 and better >= 0 and (cheaper > 0 or better > 0)


clouds = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6).map(lambda n: n / 6)), max_size=10)


@given(clouds)
@settings(deadline=None)
def test_the_front_is_exactly_what_no_other_dominates(cloud: list[tuple[int, float]]) -> None:
    summaries = summaries_at(*cloud)
    front = pareto_front(summaries)
    better = [summary for summary in summaries if summary.accuracy > UNTRAINED]
    expected = [summary for summary in better if not any(dominates(other, summary) for other in summaries)]
    assert sorted(s.label for s in front) == sorted(s.label for s in expected)
    assert places(front) == sorted(places(front))


@given(clouds.flatmap(lambda cloud: st.tuples(st.just(cloud), st.permutations(range(len(cloud))))))
@settings(deadline=None)
def test_the_front_does_not_depend_on_the_order(case: tuple[list[tuple[int, float]], list[int]]) -> None:
    cloud, order = case
    summaries = summaries_at(*cloud)
    assert pareto_front([summaries[index] for index in order]) == pareto_front(summaries)
