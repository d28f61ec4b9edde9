"""The statistics of the report: arrays of scores in, estimates with 95% intervals out.

Seeds are few, and the percentile bootstrap is too narrow for few (5 seeds: about 85% instead of
95%). Means therefore have Student's interval, robust means that of Tukey and McLaughlin or, over
several strata, a stratified bootstrap with widened percentiles. `python -m benchmarks.reporting`
counts how often each holds the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from scipy.optimize import brentq
from scipy.stats import linregress, norm, trim_mean
from scipy.stats import t as student

LEVEL = 0.95
RESAMPLES = 2_000
TRIM = 0.25
EDGE = 1e-9
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval; without one where the data cannot give it (one seed)."""

    value: float
    low: float | None = None
    high: float | None = None

    def within(self, least: float, most: float) -> "Estimate":
        """The same with an interval that ends at the bounds of what is measured."""
        if self.low is None or self.high is None:
            return self
        return Estimate(self.value, max(least, self.low), min(most, self.high))


@dataclass(frozen=True, eq=False)
class Stratum:
    """Scores of runs that differ in the seed alone, shape (seeds,), on one set of problems that all of them share.

    `problem_variance` is what the choice of the problems adds to the variance of the mean, which
    the scores cannot show; 0 where it is not known. `problems` is how many there are.
    """

    scores: Floats
    problem_variance: float = 0.0
    problems: int = 0

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return float(self.scores.mean())


def crossed(shares: Floats) -> Stratum:
    """The stratum of shares (seeds, problems): every seed met the same problems.

    The variance of a mean over two crossed random factors is (MS_seeds + MS_problems - MS_residual)
    / (seeds problems); the first term is that of the scores. At least 0 each. Source: Cornfield and
    Tukey 1956.
    """
    seeds, problems = shares.shape
    scores = shares.mean(axis=1)
    if seeds < 2 or problems < 2:
        return Stratum(scores, 0.0, problems)
    by_problem = shares.mean(axis=0)
    residual = shares - scores[:, None] - by_problem[None, :] + shares.mean()
    of_problems = seeds * by_problem.var(ddof=1)
    of_residual = float((residual**2).sum()) / ((seeds - 1) * (problems - 1))
    return Stratum(scores, max(0.0, float(of_problems - of_residual)) / (seeds * problems), problems)


def mean(strata: Sequence[Stratum]) -> Estimate:
    """The mean of the strata's means with Student's interval; degrees of freedom by Welch and Satterthwaite."""
    centre = float(np.mean([stratum.mean for stratum in strata]))
    parts = _parts(strata)
    return Estimate(centre) if parts is None else _with_interval(centre, parts)


def mean_of(values: Floats) -> Estimate:
    """The mean of values (seeds,) with Student's interval."""
    return mean([Stratum(values)])


def p_value(strata: Sequence[Stratum]) -> float:
    """Two-sided p-value of a mean of 0; with differences of pairs this is the paired t-test. 1 with one seed."""
    centre = float(np.mean([stratum.mean for stratum in strata]))
    parts = _parts(strata)
    if parts is None or centre == 0.0:
        return 1.0
    error, freedom = _error(parts)
    return 0.0 if error == 0.0 else float(2 * student.sf(abs(centre) / error, freedom))


def ratio_of_means(numerators: Floats, denominators: Floats) -> Estimate:
    """Mean of one over the mean of the other, pair by pair of the same seeds, with Fieller's interval (1954).

    Both (seeds,), or (seeds, problems) with the same problems. The interval holds the ratios r for
    which the mean of numerator - r denominator may be 0; it ends at 0 and at infinity where the
    data exclude nothing further.
    """
    if denominators.mean() <= 0:
        return Estimate(inf)
    value = float(numerators.mean() / denominators.mean())

    def rest(ratio: float) -> tuple[float, float]:
        left = numerators - ratio * denominators
        found = mean([crossed(left) if left.ndim > 1 else Stratum(left)])
        return (found.value if found.low is None else found.low, found.value if found.high is None else found.high)

    if len(numerators) < 2:
        return Estimate(value)
    low, high = value, max(value, EDGE)
    while low > EDGE and rest(low)[0] <= 0:
        low /= 2
    while high < 1 / EDGE and rest(high)[1] >= 0:
        high *= 2
    return Estimate(
        value,
        brentq(lambda ratio: rest(ratio)[0], low, value) if low > EDGE else 0.0,
        brentq(lambda ratio: rest(ratio)[1], value, high) if high < 1 / EDGE else inf,
    )


def means_of_columns(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean, low and high of every column of values (seeds, columns) by Student; ValueError with fewer than 2 seeds."""
    count = len(values)
    if count < 2:
        raise ValueError(f"{count} value has no spread; an interval needs at least 2")
    centre = values.mean(axis=0)
    half = float(student.ppf((1 + LEVEL) / 2, count - 1)) * values.std(axis=0, ddof=1) / sqrt(count)
    return centre, centre - half, centre + half


def interquartile_mean(strata: Sequence[Stratum], resamples: int = RESAMPLES) -> Estimate:
    """Mean of the middle half of all scores together (arXiv:2108.13264).

    Of one stratum with the interval of Tukey and McLaughlin (1963), its variance times n / (n - 1),
    without which it holds the truth of 5 seeds in 92.8% of cases. Of several with a stratified
    bootstrap whose percentiles are those that give a mean Student's width (Hesterberg,
    arXiv:1411.5279).
    """
    scores = [stratum.scores for stratum in strata]
    value = float(trim_mean(np.concatenate(scores), TRIM))
    if min(map(len, scores)) < 2:
        return Estimate(value)
    if len(strata) == 1:
        count, cut = len(scores[0]), int(TRIM * len(scores[0]))
        ordered = np.sort(scores[0])
        winsorized = np.clip(ordered, ordered[cut], ordered[-cut - 1])
        variance = float(winsorized.var(ddof=1)) / count / (1 - 2 * cut / count) ** 2
        if cut:
            variance *= count / (count - 1)
        return _with_interval(value, [(variance, count - 2 * cut - 1), *_problem_parts(strata)])
    rng = np.random.default_rng(0)
    drawn = [
        s.scores[rng.integers(0, len(s.scores), (resamples, len(s.scores)))]
        + rng.normal(0.0, sqrt(s.problem_variance), (resamples, 1))
        for s in strata
    ]
    means = trim_mean(np.concatenate(drawn, axis=1), TRIM, axis=1)
    low, high = np.quantile(means, _widened_tails(list(map(len, scores))))
    return Estimate(value, float(low), float(high))


def probability_of_improvement(better: Sequence[Floats], worse: Sequence[Floats]) -> Estimate:
    """Chance that a run of one beats a run of the other, ties half, averaged over strata (arXiv:2108.13264).

    Arrays (seeds,) by stratum. A bootstrap's interval is a point where the two are apart, so it is
    Newcombe's score interval instead (2006, method 5), at all seeds together.
    """
    pairs = [np.sign(x[:, None] - y[None, :]) for x, y in zip(better, worse, strict=True)]
    value = float(np.mean([(1 + signs.mean()) / 2 for signs in pairs]))
    first, second = sum(map(len, better)), sum(map(len, worse))
    if min(first, second) < 2:
        return Estimate(value)
    z = float(norm.ppf((1 + LEVEL) / 2))
    spare = (first + second) / 2 - 1

    def beyond(theta: float) -> float:
        variance = theta * (1 - theta) * (1 + spare * ((1 - theta) / (2 - theta) + theta / (1 + theta))) / (first * second)
        return (value - theta) ** 2 - z**2 * variance

    inside = min(max(value, EDGE), 1 - EDGE)  # at the very ends the variance is 0, which is a root of its own
    low = brentq(beyond, 0.0, inside) if value > 0 else 0.0
    high = brentq(beyond, inside, 1.0) if value < 1 else 1.0
    return Estimate(value, float(low), float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values after Holm's correction (1979) for asking so many questions at once, in the same order."""
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def area_under_curve(steps: Floats, values: Floats) -> float:
    """Mean height of a curve over its steps (trapezoids); its one value where there is one step."""
    if len(steps) == 1:
        return float(values[0])
    return float(trapezoid(values, steps) / (steps[-1] - steps[0]))


def first_reaching(costs: Floats, values: Floats, target: float) -> float:
    """The cost at the first measurement of at least the target; infinite where there is none."""
    reached = np.flatnonzero(values >= target)
    return float(costs[reached[0]]) if len(reached) else inf


@dataclass(frozen=True)
class Fit:
    """value = intercept + slope log10(size), by least squares; `slope` is per tenfold, `r_squared` the share explained."""

    slope: Estimate
    intercept: float
    r_squared: float
    points: int


def scaling_fit(sizes: Floats, values: Floats) -> Fit | None:
    """A line of values against the logarithm of sizes, both (configurations,); None with fewer than three sizes."""
    if len(np.unique(sizes)) < 3:
        return None
    found = linregress(np.log10(sizes), values)
    half = float(student.ppf((1 + LEVEL) / 2, len(sizes) - 2)) * float(found.stderr)
    slope = float(found.slope)
    r_squared = 0.0 if np.ptp(values) == 0 else float(found.rvalue) ** 2
    return Fit(Estimate(slope, slope - half, slope + half), float(found.intercept), r_squared, len(sizes))


def _parts(strata: Sequence[Stratum]) -> list[tuple[float, float]] | None:
    """What the variance of the mean of means is made of, each with its degrees of freedom; None with one seed somewhere."""
    if min(len(stratum.scores) for stratum in strata) < 2:
        return None
    of_seeds = [(float(s.scores.var(ddof=1)) / len(s.scores) / len(strata) ** 2, float(len(s.scores) - 1)) for s in strata]
    return of_seeds + _problem_parts(strata)


def _problem_parts(strata: Sequence[Stratum]) -> list[tuple[float, float]]:
    return [(s.problem_variance / len(strata) ** 2, float(s.problems - 1)) for s in strata if s.problem_variance > 0]


def _error(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Standard error and degrees of freedom (Welch and Satterthwaite) of a sum of variances."""
    variance = sum(part for part, _ in parts)
    return (sqrt(variance), variance**2 / sum(part**2 / free for part, free in parts)) if variance > 0 else (0.0, inf)


def _with_interval(centre: float, parts: Sequence[tuple[float, float]]) -> Estimate:
    error, freedom = _error(parts)
    half = float(student.ppf((1 + LEVEL) / 2, freedom)) * error
    return Estimate(centre, centre - half, centre + half)


def _widened_tails(counts: Sequence[int]) -> tuple[float, float]:
    """The percentiles between which a bootstrap of means has the width of Student's interval."""
    freedom = sum(count - 1 for count in counts)
    widened = float(student.ppf((1 + LEVEL) / 2, freedom)) * sqrt(sum(counts) / freedom)
    tail = float(norm.sf(widened))
    return tail, 1 - tail
