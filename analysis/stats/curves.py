"""Statistics of curves: area under a curve, first crossing, a fit over sizes."""

from dataclasses import dataclass
from math import inf

import numpy as np
from scipy.integrate import trapezoid
from scipy.stats import linregress
from scipy.stats import t as student

from analysis.stats.intervals import LEVEL, Estimate, Floats


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
    """value = intercept + slope log10(size), by least squares.

    `slope` is per tenfold, `r_squared` the share of the variance that it explains.
    """

    slope: Estimate
    intercept: float
    r_squared: float
    points: int


def scaling_fit(sizes: Floats, values: Floats) -> Fit | None:
    """A line of values over log10 of sizes, both (configurations,); None below three sizes."""
    if len(np.unique(sizes)) < 3:
        return None
    found = linregress(np.log10(sizes), values)
    half = float(student.ppf((1 + LEVEL) / 2, len(sizes) - 2)) * float(found.stderr)
    slope = float(found.slope)
    r_squared = 0.0 if np.ptp(values) == 0 else float(found.rvalue) ** 2
    estimate = Estimate(slope, slope - half, slope + half)
    return Fit(estimate, float(found.intercept), r_squared, len(sizes))
