"""Compares configurations on common seeds: differences, whether they are real, and what each accuracy costs to reach."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import inf, isfinite

import numpy as np

from analysis.data.load import ACCURACY, REWARD, SECONDS, TOKENS, Result, Run
from analysis.stats.aggregate import Group, accuracy_stratum, right_shares
from analysis.stats.intervals import (
    Estimate,
    Stratum,
    area_under_curve,
    crossed,
    first_reaching,
    holm,
    interquartile_mean,
    mean,
    mean_of,
    p_value,
    probability_of_improvement,
)

SIGNIFICANT = 0.05
REACHED_SHARE = 0.9  # of the best configuration's gain: the accuracy whose price is asked for


@dataclass(frozen=True)
class Difference:
    """`first` less `second` in accuracy, on the seeds that both finished; `holm_p` is corrected for all pairs of the family.

    `improvement` is the chance that a run of `first` beats one of `second`. `over_problems`: the
    interval covers the choice of the problems too, not of the seeds alone.
    """

    first: str
    second: str
    setting: str
    seeds: int
    accuracy: Estimate
    p: float
    holm_p: float
    improvement: Estimate
    over_problems: bool

    @property
    def decided(self) -> bool:
        """Whether the data tell the two apart."""
        return self.holm_p < SIGNIFICANT


@dataclass(frozen=True)
class Price:
    """What it took to reach an accuracy: medians over seeds, infinite where most seeds did not reach it."""

    label: str
    setting: str
    target: float
    tokens: float
    seconds: float
    reached: int
    seeds: int


@dataclass(frozen=True)
class Across:
    """One configuration over all settings of a sweep: tasks or models, each a stratum of its own."""

    label: str
    settings: int
    accuracy: Estimate
    robust_accuracy: Estimate


def differences(groups: Sequence[Group]) -> list[Difference]:
    """Every pair of configurations of one setting with at least two common seeds; p-values corrected within the setting."""
    found: list[Difference] = []
    for setting in dict.fromkeys(group.setting for group in groups):
        named = [(group.label, group.by_seed()) for group in groups if group.setting == setting]
        pairs = [compare(one, other, setting) for one, other in combinations(named, 2)]
        found += corrected([pair for pair in pairs if pair is not None])
    return found


def compare(
    first: tuple[str, Mapping[str, Result]], second: tuple[str, Mapping[str, Result]], setting: str = ""
) -> Difference | None:
    """Two configurations, each a name and results by seed; None with fewer than two common seeds. `holm_p` is still p."""
    seeds = sorted(first[1].keys() & second[1].keys())
    if len(seeds) < 2:
        return None
    ours, theirs = [first[1][seed] for seed in seeds], [second[1][seed] for seed in seeds]
    of_ours, of_theirs = right_shares(ours), right_shares(theirs)
    over_problems = of_ours is not None and of_theirs is not None and of_ours.shape == of_theirs.shape
    if of_ours is not None and of_theirs is not None and over_problems:
        stratum = crossed(of_ours - of_theirs)
    else:
        stratum = Stratum(np.array([one.accuracy - other.accuracy for one, other in zip(ours, theirs, strict=True)]))
    p = p_value([stratum])
    scores = [[np.array([result.accuracy for result in side])] for side in (ours, theirs)]
    improvement = probability_of_improvement(scores[0], scores[1])
    difference = mean([stratum]).within(-1.0, 1.0)
    return Difference(first[0], second[0], setting, len(seeds), difference, p, p, improvement, over_problems)


def corrected(family: Sequence[Difference]) -> list[Difference]:
    """The same differences with Holm's correction for all of them."""
    adjusted = holm([difference.p for difference in family])
    return [replace(difference, holm_p=p) for difference, p in zip(family, adjusted, strict=True)]


def across_settings(groups: Sequence[Group]) -> list[Across]:
    """Every configuration that finished in all of at least two settings, from high to low mean accuracy."""
    settings = {group.setting for group in groups}
    found = []
    for label in dict.fromkeys(group.label for group in groups):
        strata = [accuracy_stratum(group.results) for group in groups if group.label == label and group.results]
        if len(strata) == len(settings) > 1:
            robust = interquartile_mean(strata).within(0.0, 1.0)
            found.append(Across(label, len(strata), mean(strata).within(0.0, 1.0), robust))
    return sorted(found, key=lambda each: -each.accuracy.value)


def prices(groups: Sequence[Group], target: float | None = None) -> list[Price]:
    """Tokens and seconds of training until the first measurement of an accuracy; runs measure it every `eval.steps`.

    Without a target: in every setting what REACHED_SHARE of the best configuration's gain makes of
    the accuracy before.
    """
    found = []
    for setting in dict.fromkeys(group.setting for group in groups):
        members = [group for group in groups if group.setting == setting and group.results]
        if not members:
            continue
        best = max(members, key=lambda group: _average(group, "accuracy"))
        before, after = _average(best, "accuracy_before"), _average(best, "accuracy")
        wanted = before + REACHED_SHARE * (after - before) if target is None else target
        if after > before or target is not None:
            found += [_price(group, wanted) for group in members]
    return found


def reward_areas(groups: Sequence[Group]) -> dict[tuple[str, str], Estimate]:
    """Mean reward over the whole training (area under the curve by its length), by (label, setting)."""
    found = {}
    for group in groups:
        series = [run.series[REWARD] for run in group.runs if run.result is not None and REWARD in run.series]
        if series:
            areas = [area_under_curve(each.steps.astype(float), each.values) for each in series]
            found[group.label, group.setting] = mean_of(np.array(areas))
    return found


def _average(group: Group, name: str) -> float:
    return float(np.mean([getattr(result, name) for result in group.results]))


def _price(group: Group, target: float) -> Price:
    runs = [run for run in group.runs if run.result is not None]
    tokens = [_cost_until(run, TOKENS, target, running=False) for run in runs]
    seconds = [_cost_until(run, SECONDS, target, running=True) for run in runs]
    reached = sum(isfinite(each) for each in seconds)
    return Price(group.label, group.setting, target, _median(tokens), _median(seconds), reached, len(runs))


def _median(values: Sequence[float]) -> float:
    """The lower median, so that infinite values have no part in a mean."""
    return sorted(values)[(len(values) - 1) // 2]


def _cost_until(run: Run, metric: str, target: float, running: bool) -> float:
    """What a metric of the steps has come to (`running`: summed up) when the accuracy first reached the target."""
    if ACCURACY not in run.series or metric not in run.series:
        return inf
    measured, spent = run.series[ACCURACY], run.series[metric]
    totals = np.cumsum(spent.values) if running else spent.values
    places = np.searchsorted(spent.steps, measured.steps, side="right")
    return first_reaching(np.concatenate([[0.0], totals])[places], measured.values, target)
