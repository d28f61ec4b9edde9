"""Differences problem by problem, prices of an accuracy, means over settings and areas under curves, worked out by hand."""

from dataclasses import replace
from math import inf

import pytest

from analysis.data.load import ACCURACY, SECONDS, TOKENS, Run, make_series
from analysis.stats.aggregate import group_runs, summarize
from analysis.stats.comparisons import across_settings, costs_to_target, differences
from tests.analysis_data import result, rewarded, runs_of


def solving(strategy: str, *right: tuple[int, ...]) -> list[Run]:
    """A run for each tuple of right samples (of 2) by problem, with seeds 0, 1, ..."""
    return [
        Run(
            f"{strategy}{seed}",
            {"strategy.name": strategy, "seed": seed},
            result(sum(each) / 2 / len(each), samples=2, right=each, problems=len(each)),
        )
        for seed, each in enumerate(right)
    ]


def test_differences_are_taken_problem_by_problem() -> None:
    # Both seeds of `full` solve problem 1 where `lora` does not, and nothing else differs: shares 1, 0, 0, 0 in both seeds.
    full, lora = solving("full", (2, 2, 0, 1), (2, 0, 2, 1)), solving("lora", (0, 2, 0, 1), (0, 0, 2, 1))
    [difference] = differences(group_runs([*full, *lora]))
    assert difference.over_problems
    assert difference.accuracy.value == 0.25
    # The seeds agree; problems 1, 0, 0, 0 have variance 0.25, over 4 problems 0.0625: error 0.25, t(3 free) = 3.182446.
    assert difference.accuracy.low == pytest.approx(0.25 - 3.182446 * 0.25)
    assert difference.p == pytest.approx(0.391002, abs=1e-6)  # t = 1 with 3 degrees of freedom
    assert not difference.decided


def test_runs_on_other_problems_are_compared_by_their_accuracies_alone() -> None:
    full, lora = solving("full", (2, 2), (2, 0)), solving("lora", (0, 2, 0, 1), (0, 0, 2, 1))
    [difference] = differences(group_runs([*full, *lora]))
    assert not difference.over_problems
    # 1 - 0.375 and 0.5 - 0.375
    assert difference.accuracy.value == pytest.approx(0.375)


def measured(run: Run, *accuracies: float) -> Run:
    """The run with these accuracies after 0, 2, 4 ... steps of 3 seconds and 100 tokens each."""
    steps = range(1, 2 * len(accuracies) - 1)
    series = {
        ACCURACY: make_series((2 * index, value) for index, value in enumerate(accuracies)),
        SECONDS: make_series((step, 3.0) for step in steps),
        TOKENS: make_series((step, 100.0 * step) for step in steps),
    }
    return replace(run, series=series)


def test_the_price_of_an_accuracy_is_what_was_spent_at_the_first_measurement_that_reaches_it() -> None:
    fast, slow, never = runs_of("full", [0.5, 0.5, 0.5])
    runs = [measured(fast, 0.2, 0.5, 0.5), measured(slow, 0.2, 0.3, 0.5), measured(never, 0.2, 0.3, 0.4)]
    [price] = costs_to_target(group_runs(runs), 0.45)
    # 2 steps, 4 steps, never: the median is 4 steps.
    assert (price.tokens, price.seconds, price.reached, price.seeds) == (400.0, 12.0, 2, 3)
    [price] = costs_to_target(group_runs(runs), 0.6)
    assert (price.tokens, price.seconds, price.reached) == (inf, inf, 0)
    # Without a target 90% of the gain of the best: 0.2 + 0.9 (0.5 - 0.2)
    assert costs_to_target(group_runs(runs))[0].target == pytest.approx(0.47)


def test_only_what_finished_in_every_setting_has_a_mean_over_settings() -> None:
    runs = [*runs_of("full", [0.3, 0.5]), *runs_of("full", [0.8, 0.8], model="large"), *runs_of("lora", [0.4, 0.4])]
    [found] = across_settings(group_runs(runs))
    assert (found.label, found.settings) == ("full", 2)
    assert found.accuracy.value == pytest.approx(0.6)  # 0.4 and 0.8
    assert found.robust_accuracy.value == pytest.approx(0.65)  # the middle two of 0.3, 0.5, 0.8, 0.8


def test_the_mean_reward_is_the_area_under_the_curve_by_its_length() -> None:
    one, other = runs_of("full", [0.5, 0.5])
    [summary] = summarize([rewarded(one, 0.0, 0.2, 0.4), rewarded(other, 0.4, 0.4, 0.4)])
    assert summary.reward_area is not None
    assert summary.reward_area.value == pytest.approx(0.3)  # 0.2 and 0.4
