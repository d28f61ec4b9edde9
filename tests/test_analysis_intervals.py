"""The statistics against scipy, rliable, optuna and numbers worked out by hand; how often intervals hold the truth."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from rliable import metrics

from analysis.stats.curves import area_under_curve, first_reaching, scaling_fit
from analysis.stats.intervals import (
    Estimate,
    Floats,
    Stratum,
    crossed,
    holm,
    interquartile_mean,
    mean,
    mean_of,
    means_of_columns,
    p_value,
    probability_of_improvement,
    ratio_of_means,
)
from analysis.stats.pareto import front_probabilities, hypervolume, on_front

SCORES = np.array([0.41, 0.44, 0.45, 0.47, 0.52, 0.55, 0.61, 0.72])
OTHERS = np.array([0.40, 0.45, 0.39, 0.49, 0.50, 0.51, 0.58, 0.60])
DRAWS = 1500


def ends(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high


def coverage(truth: float, estimate: Callable[[], Estimate], draws: int = DRAWS) -> float:
    """How often an interval held the truth; its own error is about half a point."""
    found = [ends(estimate()) for _ in range(draws)]
    return sum(low <= truth <= high for low, high in found) / draws


# Against scipy and rliable, on fixed data


def test_the_interval_of_a_mean_is_scipys_t_interval() -> None:
    theirs = scipy.stats.ttest_1samp(SCORES, 0.0).confidence_interval(0.95)
    assert ends(mean_of(SCORES)) == (pytest.approx(theirs.low), pytest.approx(theirs.high))


def test_the_mean_of_equal_strata_is_rliables_and_the_interval_that_of_welch() -> None:
    found = mean([Stratum(SCORES), Stratum(-OTHERS)])
    assert found.value == pytest.approx(metrics.aggregate_mean(np.stack([SCORES, -OTHERS], axis=1)))
    # The mean of SCORES and -OTHERS is half their difference.
    theirs = scipy.stats.ttest_ind(SCORES, OTHERS, equal_var=False).confidence_interval(0.95)
    assert ends(found) == (pytest.approx(theirs.low / 2), pytest.approx(theirs.high / 2))


def test_p_values_of_differences_are_those_of_scipys_paired_test() -> None:
    assert p_value([Stratum(SCORES - OTHERS)]) == pytest.approx(scipy.stats.ttest_rel(SCORES, OTHERS).pvalue)
    assert p_value([Stratum(np.zeros(3))]) == 1.0
    assert p_value([Stratum(np.full(3, 0.5))]) == 0.0
    assert p_value([Stratum(np.array([0.5]))]) == 1.0


def test_the_interquartile_mean_is_rliables() -> None:
    scores = np.stack([SCORES, OTHERS, SCORES**2], axis=1)
    found = interquartile_mean([Stratum(column) for column in scores.T])
    assert found.value == pytest.approx(metrics.aggregate_iqm(scores))
    low, high = ends(found)
    assert low < found.value < high


def test_the_interval_of_one_stratums_interquartile_mean_is_scipys_with_more_variance() -> None:
    low, high = scipy.stats.mstats.trimmed_mean_ci(SCORES, limits=(0.25, 0.25))
    half = (8 / 7) ** 0.5 * float(high - low) / 2
    found = interquartile_mean([Stratum(SCORES)])
    assert ends(found) == (pytest.approx(found.value - half), pytest.approx(found.value + half))


def test_the_probability_of_improvement_is_rliables() -> None:
    first, second = np.stack([SCORES, OTHERS], axis=1), np.stack([OTHERS, SCORES - 0.02], axis=1)
    found = probability_of_improvement(list(first.T), list(second.T))
    assert found.value == pytest.approx(metrics.probability_of_improvement(first, second))
    low, high = ends(found)
    assert low < found.value < high


def test_a_certain_improvement_still_has_an_interval() -> None:
    low, high = ends(probability_of_improvement([SCORES + 1], [OTHERS]))
    assert high == 1.0
    assert 0.6 < low < 0.9
    assert ends(probability_of_improvement([OTHERS], [SCORES + 1])) == (0.0, pytest.approx(1 - low))


def test_holms_correction_is_that_of_a_worked_example() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04: times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.04, and never less than the one before.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_columns_have_the_intervals_that_they_have_alone() -> None:
    values = np.stack([SCORES, OTHERS], axis=1)
    centre, low, high = means_of_columns(values)
    for column, own in enumerate((SCORES, OTHERS)):
        assert (low[column], high[column]) == (pytest.approx(ends(mean_of(own))[0]), pytest.approx(ends(mean_of(own))[1]))
        assert centre[column] == pytest.approx(own.mean())
    with pytest.raises(ValueError, match="at least 2"):
        means_of_columns(values[:1])


def test_a_scaling_fit_is_scipys_line_over_the_logarithm() -> None:
    sizes = np.array([10.0, 100.0, 1000.0, 10_000.0])
    values = np.array([0.1, 0.25, 0.28, 0.45])
    found = scaling_fit(sizes, values)
    assert found is not None
    theirs = scipy.stats.linregress([1, 2, 3, 4], values)
    half = 4.302653 * theirs.stderr  # t with 2 degrees of freedom
    assert found.slope.value == pytest.approx(theirs.slope)
    assert ends(found.slope) == (pytest.approx(theirs.slope - half), pytest.approx(theirs.slope + half))
    assert (found.intercept, found.r_squared) == (pytest.approx(theirs.intercept), pytest.approx(theirs.rvalue**2))
    assert scaling_fit(sizes[[0, 1, 1]], values[:3]) is None  # two sizes


# By hand


def test_the_variance_over_crossed_seeds_and_problems_is_that_of_a_worked_example() -> None:
    # Rows 1, 0, 0, 0 and 1, 1, 0, 0. Means over problems 0.25, 0.5; over seeds 1, 0.5, 0, 0; of all 0.375.
    found = crossed(np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]))
    assert found.scores == pytest.approx([0.25, 0.5])
    # MS of problems 2 (0.390625 + 0.015625 + 2 * 0.140625) / 3 = 0.458333. Residuals +-0.125 but -+0.375 for the second
    # problem: MS (6 * 0.015625 + 2 * 0.140625) / 3 = 0.125. (0.458333 - 0.125) / 8 = 0.0416667.
    assert found.problem_variance == pytest.approx(0.0416667, abs=1e-6)
    assert found.problems == 4


def test_problems_add_nothing_where_their_differences_are_those_of_chance() -> None:
    assert crossed(np.array([[1.0, 0.0], [0.0, 1.0]])).problem_variance == 0.0


def test_the_front_and_its_hypervolume_are_those_of_a_worked_example() -> None:
    costs, values = np.array([10.0, 20.0, 100.0, 50.0]), np.array([0.5, 0.4, 0.7, 0.7])
    assert on_front(costs[None], values[None]).tolist() == [[True, False, False, True]]
    # Worst point: 1000 parameters at 0.2. From 10: (0.5 - 0.2) 2 decades; from 50: (0.7 - 0.5) log10(20)
    assert hypervolume(costs, values, 1000.0, 0.2) == pytest.approx(0.3 * 2 + 0.2 * np.log10(20))
    assert hypervolume(costs, values, 10.0, 0.2) == 0.0


def test_the_hypervolume_is_optunas() -> None:
    from optuna._hypervolume import compute_hypervolume

    rng = np.random.default_rng(3)
    costs, values = 10 ** rng.uniform(1, 4, 30), rng.uniform(0, 1, 30)
    losses = np.stack([np.log10(costs), -values], axis=1)
    theirs = compute_hypervolume(losses, np.array([5.0, 0.0]))
    assert hypervolume(costs, values, 10.0**5, 0.0) == pytest.approx(theirs)


points = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)), min_size=1, max_size=9)


@given(st.lists(points, min_size=1, max_size=3).filter(lambda rows: len({len(row) for row in rows}) == 1))
def test_the_front_of_every_row_is_what_no_other_dominates(rows: list[list[tuple[int, int]]]) -> None:
    cloud = np.array(rows, dtype=float)
    found = on_front(cloud[..., 0], cloud[..., 1])
    for row, flags in zip(rows, found, strict=True):
        beaten = [any(c <= x and v >= y and (c, v) != (x, y) for c, v in row) for x, y in row]
        assert flags.tolist() == [not each for each in beaten]


def test_the_probability_to_be_on_the_front_is_that_of_redrawn_seeds() -> None:
    # The cheap one is always on it. The dear one scores 0 or 2 by the draw against 1: above it only if the mean of two draws
    # is 2 (a quarter), equal at 1 (half), which is not enough.
    costs = [np.array([1.0, 1.0]), np.array([2.0, 2.0])]
    found = front_probabilities(costs, [np.array([1.0, 1.0]), np.array([0.0, 2.0])], 0.5, 20_000)
    assert found is not None
    assert found[0] == 1.0
    assert found[1] == pytest.approx(0.25, abs=0.01)
    assert front_probabilities([c[:1] for c in costs], [np.ones(1), np.ones(1)], 0.5) is None


def test_the_area_under_a_curve_is_its_mean_height() -> None:
    # 0.2 to 0.6 over one step (0.4), 0.6 to 0.6 over two (1.2): 1.6 over 3 steps
    assert area_under_curve(np.array([1.0, 2.0, 4.0]), np.array([0.2, 0.6, 0.6])) == pytest.approx(1.6 / 3)
    assert area_under_curve(np.array([5.0]), np.array([0.3])) == 0.3


def test_the_first_measurement_that_reaches_a_target_counts() -> None:
    costs, values = np.array([0.0, 10.0, 20.0, 30.0]), np.array([0.1, 0.5, 0.4, 0.6])
    assert first_reaching(costs, values, 0.5) == 10.0
    assert first_reaching(costs, values, 0.55) == 30.0
    assert first_reaching(costs, values, 0.61) == float("inf")


def test_one_seed_has_no_interval_anywhere() -> None:
    one = np.array([0.5])
    for found in (
        mean_of(one),
        mean([Stratum(SCORES), Stratum(one)]),
        interquartile_mean([Stratum(one)]),
        probability_of_improvement([one], [one]),
    ):
        assert (found.low, found.high) == (None, None)


# How often 95% intervals hold the truth


def solved(rng: np.random.Generator, seeds: int, scatter: float) -> Floats:
    """Shares (seeds, problems) of 4 samples: problems from easy to hard, seeds of different luck, and both together."""
    problems, own = rng.normal(0, 2, (1, 100)), rng.normal(0, 0.3, (seeds, 100))
    chance = 1 / (1 + np.exp(-(problems + rng.normal(0, scatter, (seeds, 1)) + own)))
    shares: Floats = rng.binomial(4, chance) / 4
    return shares


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("scatter", [0.0, 0.2])
def test_intervals_over_seeds_and_problems_hold_the_truth_as_often_as_they_say(seeds: int, scatter: float) -> None:
    rng = np.random.default_rng(seeds)
    assert 0.93 <= coverage(0.5, lambda: mean([crossed(solved(rng, seeds, scatter))])) <= 0.97


def test_without_the_problems_an_interval_holds_the_truth_far_too_rarely() -> None:
    rng = np.random.default_rng(0)
    assert coverage(0.5, lambda: mean_of(solved(rng, 5, 0.2).mean(axis=1)), 400) < 0.85


@pytest.mark.parametrize("seeds", [5, 10])
def test_intervals_of_robust_means_hold_the_truth_as_often_as_they_say(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    assert 0.93 <= coverage(0.5, lambda: interquartile_mean([Stratum(rng.normal(0.5, 0.03, seeds))])) <= 0.97
    several = coverage(0.5, lambda: interquartile_mean([Stratum(rng.normal(0.5, 0.03, seeds)) for _ in range(3)], 500), 600)
    assert 0.92 <= several <= 0.98


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("gap", [0.0, 1.0, 2.5])
def test_intervals_of_improvement_hold_the_truth_as_often_as_they_say(seeds: int, gap: float) -> None:
    rng = np.random.default_rng(seeds)
    truth = float(scipy.stats.norm.cdf(gap / np.sqrt(2)))
    draw = lambda: probability_of_improvement([rng.normal(gap, 1, seeds)], [rng.normal(0, 1, seeds)])  # noqa: E731
    assert 0.93 <= coverage(truth, draw) <= 0.97


# Ratios


def test_the_interval_of_a_ratio_is_fiellers() -> None:
    count, t = len(SCORES), float(scipy.stats.t.ppf(0.975, len(SCORES) - 1))
    (a, cov), (_, b) = np.cov(SCORES, OTHERS) / count
    x, y = SCORES.mean(), OTHERS.mean()
    roots = np.roots([y**2 - t**2 * b, -2 * (x * y - t**2 * cov), x**2 - t**2 * a])
    found = ratio_of_means(SCORES, OTHERS)
    assert found.value == pytest.approx(x / y)
    assert ends(found) == (pytest.approx(roots.min()), pytest.approx(roots.max()))


def test_a_ratio_to_nothing_or_of_one_seed_has_no_interval() -> None:
    assert ratio_of_means(SCORES, np.zeros(8)) == Estimate(float("inf"))
    assert ratio_of_means(SCORES[:1], OTHERS[:1]) == Estimate(SCORES[0] / OTHERS[0])
    assert ratio_of_means(np.zeros(8), OTHERS) == Estimate(0.0, 0.0, pytest.approx(0.0, abs=1e-8))


def test_a_ratio_with_a_denominator_near_zero_is_unbounded() -> None:
    assert ends(ratio_of_means(SCORES, np.array([-1.0, 1.1, -0.9, 1.0, 1.0, -1.0, 0.9, -0.8])))[1] == float("inf")


def test_intervals_of_ratios_hold_the_truth_with_five_seeds_and_forty_problems() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(0.0, 0.1, 10_000)

    def drawn() -> Estimate:
        problems = rng.choice(hard, 40)
        seeds = rng.normal(0.0, 0.03, (2, 5, 1))
        shares = np.array([0.5, 0.6])[:, None, None] + seeds + problems * np.array([0.5, 1.0])[:, None, None]
        shares = shares + rng.normal(0.0, 0.2, (2, 5, 40))
        return ratio_of_means(shares[0], shares[1])

    assert 0.93 <= coverage(0.5 / 0.6, drawn, 800) <= 0.98
