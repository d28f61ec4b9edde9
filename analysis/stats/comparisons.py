"""Compares configurations on common seeds: differences, p-values, costs to a target."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, starmap
from math import inf, isfinite
from operator import attrgetter
from statistics import median_low

import numpy as np

from analysis.data.load import ACCURACY, SECONDS, TOKENS, Run, finished_runs
from analysis.stats import intervals
from analysis.stats.aggregate import Group, accuracy_stratum, by_setting, paired, right_shares, values_of
from analysis.stats.curves import first_reaching
from analysis.stats.intervals import Estimate, Stratum
from efficient_rl.rundir.result import RunResult

SIGNIFICANT = 0.05
REACHED_SHARE = 0.9  # of the best configuration's gain: the target whose cost is asked for


@dataclass(frozen=True)
class Difference:
    """`first` less `second` in accuracy, on the seeds that both finished.

    `holm_p` is corrected for all pairs of the family. `improvement` is the chance that a run of
    `first` beats one of `second`. `over_problems`: the interval covers the choice of the problems
    too, not of the seeds alone.
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

    def against(self, label: str) -> tuple[str, Estimate]:
        """The other of the pair, and its accuracy less that of `label` in percentage points."""
        if self.second == label:
            return self.first, self.accuracy.mapped(lambda share: 100 * share)
        return self.second, self.accuracy.mapped(lambda share: -100 * share)


@dataclass(frozen=True)
class CostToTarget:
    """Costs to reach an accuracy: medians over seeds, infinite if most did not reach it."""

    label: str
    setting: str
    target: float
    tokens: float
    seconds: float
    reached: int
    seeds: int


@dataclass(frozen=True)
class AcrossSettings:
    """One configuration over all settings (tasks or models) of a sweep, each a stratum."""

    label: str
    settings: int
    accuracy: Estimate
    robust_accuracy: Estimate


def differences(groups: Iterable[Group]) -> list[Difference]:
    """Every pair of a setting with at least two common seeds, corrected within the setting."""
    found: list[Difference] = []
    for members in by_setting(groups).values():
        pairs = starmap(compare, combinations(members, 2))
        found += corrected(list(filter(None, pairs)))
    return found


def compare(first: Group, second: Group) -> Difference | None:
    """Two configurations; None with fewer than two common seeds. `holm_p` is still p."""
    ours, theirs = common_results(first, second)
    if len(ours) < 2:
        return None
    accuracies, others = values_of(ours, "accuracy"), values_of(theirs, "accuracy")
    by_problem = paired(right_shares(ours), right_shares(theirs))
    stratum = by_problem or Stratum(accuracies - others)
    p = intervals.p_value([stratum])
    return Difference(
        first=first.label,
        second=second.label,
        setting=first.setting,
        seeds=len(ours),
        accuracy=intervals.mean([stratum]).within(-1.0, 1.0),
        p=p,
        holm_p=p,
        improvement=intervals.probability_of_improvement([accuracies], [others]),
        over_problems=by_problem is not None,
    )


def common_results(first: Group, second: Group) -> tuple[list[RunResult], list[RunResult]]:
    """The results of both on the seeds that both finished, in the same order."""
    seeds = sorted(first.by_seed.keys() & second.by_seed.keys())
    ours, theirs = map(first.by_seed.__getitem__, seeds), map(second.by_seed.__getitem__, seeds)
    return list(ours), list(theirs)


def corrected(family: Sequence[Difference]) -> list[Difference]:
    """The same differences with Holm's correction for all of them."""
    adjusted = intervals.holm(list(map(attrgetter("p"), family)))
    return [replace(each, holm_p=p) for each, p in zip(family, adjusted, strict=True)]


def across_settings(groups: Sequence[Group]) -> list[AcrossSettings]:
    """Every configuration finished in all of two settings or more, by falling mean accuracy."""
    settings = len(by_setting(groups))
    strata = defaultdict(list)
    for group in groups:
        if group.results:
            strata[group.label].append(accuracy_stratum(group.results))
    found = []
    for label, own in strata.items():
        if len(own) == settings > 1:
            accuracy, robust = intervals.mean(own), intervals.interquartile_mean(own)
            ends = accuracy.within(0.0, 1.0), robust.within(0.0, 1.0)
            found.append(AcrossSettings(label, settings, *ends))
    return sorted(found, key=lambda each: -each.accuracy.value)


def costs_to_target(groups: Iterable[Group], target: float | None = None) -> list[CostToTarget]:
    """Tokens and seconds until the first measurement of an accuracy, one each `eval.steps`.

    Without a target: in every setting what REACHED_SHARE of the best configuration's gain makes of
    the accuracy before.
    """
    found: list[CostToTarget] = []
    for members in by_setting(filter(attrgetter("results"), groups)).values():
        best = max(members, key=lambda group: group.average("accuracy"))
        before, gain = best.average("accuracy_before"), best.average("gain")
        wanted = before + REACHED_SHARE * gain if target is None else target
        if gain > 0 or target is not None:
            found += [_cost_to_target(group, wanted) for group in members]
    return found


def _cost_to_target(group: Group, target: float) -> CostToTarget:
    runs = finished_runs(group.runs)
    tokens = [_cost_until(run, TOKENS, target) for run in runs]
    seconds = [_cost_until(run, SECONDS, target) for run in runs]
    # The lower median, so that infinite values have no part in a mean.
    medians = median_low(tokens), median_low(seconds)
    reached = sum(map(isfinite, seconds))
    return CostToTarget(group.label, group.setting, target, *medians, reached, len(runs))


def _cost_until(run: Run, metric: str, target: float) -> float:
    """What a metric of the steps has come to when the accuracy first reached the target."""
    if ACCURACY not in run.series or metric not in run.series:
        return inf
    measured, spent = run.series[ACCURACY], run.series[metric]
    totals = np.cumsum(spent.values) if metric == SECONDS else spent.values  # tokens are a total
    places = np.searchsorted(spent.steps, measured.steps, side="right")
    return first_reaching(np.concatenate([[0.0], totals])[places], measured.values, target)
