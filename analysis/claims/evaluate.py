"""Judges claims by finished runs: an estimate with its 95% interval for every check, and what follows from it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import exp, log
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from analysis.claims.spec import AT_DIFFICULTY, BEST, Check, Claim
from analysis.data.load import ReportError, Result, Run
from analysis.stats.intervals import Estimate, Floats, Stratum, crossed, mean, mean_of, ratio_of_means
from efficient_rl.config.filters import keeps

if TYPE_CHECKING:
    from analysis.claims.weight_changes import Changes

Verdict = Literal["holds", "does not hold", "undecided"]
FEWEST_SEEDS = 5  # with fewer nothing is decided
Seeds = Mapping[str, Run]  # the finished runs of one arm
WeightChanges: TypeAlias = "Callable[[str], Changes]"  # of a run, by its hash

PLAIN: Mapping[str, Callable[[Result], float]] = {
    "accuracy": lambda result: result.accuracy,
    "gain": lambda result: result.accuracy - result.accuracy_before,
    "training seconds": lambda result: result.train_seconds,
    "peak memory": lambda result: result.peak_memory_bytes,
    "tokens": lambda result: result.tokens,
}
CHANGED: "Mapping[str, Callable[[Changes], float]]" = {
    "changed weights": lambda changes: changes.share,
    "changed weights in bfloat16": lambda changes: changes.rounded_share,
    "changed matrices": lambda changes: changes.matrices,
}


@dataclass(frozen=True)
class Measured:
    """A check and what the runs say: None where an arm has no finished run. `note` says what limits the estimate."""

    check: Check
    estimate: Estimate | None
    seeds: int
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True)
class Judged:
    """A claim with what was measured. It holds where every check does, and does not where any does not."""

    claim: Claim
    measured: tuple[Measured, ...]
    finished: int
    runs: int
    code_versions: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """What the checks come to together."""
        verdicts = {each.verdict for each in self.measured}
        return "does not hold" if "does not hold" in verdicts else "undecided" if "undecided" in verdicts else "holds"

    @property
    def seeds(self) -> int:
        """The fewest seeds of any check."""
        return min(each.seeds for each in self.measured)


def judge(claim: Claim, runs: Sequence[Run], changes: WeightChanges) -> Judged:
    """Measure every check of the claim over the runs of its sweep. ConfigError where an arm's rule is wrong."""
    known = {name for run in runs for name in run.params}
    arms = {name: [run for run in runs if keeps(rule, run.params, known)] for name, rule in claim.arms.items()}
    if empty := next((name for name, members in arms.items() if not members), None):
        raise ReportError(f"claim {claim.name}: no run of its sweep belongs to the arm {empty!r}")
    finished = [run for run in runs if run.result is not None]
    return Judged(
        claim,
        tuple(_measure(check, claim, arms, changes) for check in claim.checks),
        len(finished),
        len(runs),
        tuple(sorted({run.result.code_version for run in finished if run.result is not None})),
    )


def by_seed(members: Sequence[Run], tuned: str | None) -> Seeds:
    """The arm's run of every seed; of several values of `tuned` the one that is best on the other seeds.

    ReportError where the runs of a seed differ in anything else.
    """
    values = _by_value(members, tuned)
    if tuned is None:
        return next(iter(values.values())) if values else {}
    common = sorted(set.intersection(*(set(seeds) for seeds in values.values()))) if values else []
    chosen = {}
    for seed in common if len(common) > 1 else []:
        others = [other for other in common if other != seed]
        chosen[seed] = max(values.values(), key=lambda runs: _mean_accuracy(runs, others))[seed]
    return chosen


def verdict_of(check: Check, estimate: Estimate | None, seeds: int) -> Verdict:
    """Whether the whole interval lies within the bounds, outside of them, or neither."""
    if estimate is None or estimate.low is None or estimate.high is None or seeds < FEWEST_SEEDS:
        return "undecided"
    least, most = check.bounds
    strict = check.above is not None
    low_holds = least is None or (estimate.low > least if strict else estimate.low >= least)
    low_fails = least is not None and (estimate.high <= least if strict else estimate.high < least)
    high_holds, high_fails = most is None or estimate.high <= most, most is not None and estimate.low > most
    return "does not hold" if low_fails or high_fails else "holds" if low_holds and high_holds else "undecided"


def changes_of(outputs: Path, bases: Mapping[str, Path]) -> WeightChanges:
    """Counts the changed weights of a run of the output folder, once; `bases` are the models' folders by run."""

    @cache
    def count(run: str) -> "Changes":
        from analysis.claims.weight_changes import count_changes

        return count_changes(bases[run], outputs / "runs" / run / "model")

    return count


def _measure(check: Check, claim: Claim, arms: Mapping[str, Sequence[Run]], changes: WeightChanges) -> Measured:
    names = [check.first] if check.second is None else [check.first, check.second]
    if check.measure.startswith(BEST):
        assert claim.tuned is not None
        return _best_values(check, claim.tuned, [arms[name] for name in names])
    chosen = [by_seed(arms[name], claim.tuned) for name in names]
    seeds = sorted(set.intersection(*(set(each) for each in chosen)))
    if not seeds:
        return Measured(check, None, 0, "undecided", "not run")
    scores = _scores(check.measure, [[each[seed] for seed in seeds] for each in chosen], changes)
    estimate = _estimate(check, scores)
    return Measured(check, estimate, len(seeds), verdict_of(check, estimate, len(seeds)))


def _estimate(check: Check, scores: Sequence[Floats]) -> Estimate:
    if check.kind == "ratio":
        return ratio_of_means(scores[0], scores[1])
    values = scores[0] - scores[1] if check.kind == "difference" else scores[0]
    return mean([crossed(values) if values.ndim > 1 else Stratum(values)])


def _scores(measure: str, arms: Sequence[Sequence[Run]], changes: WeightChanges) -> list[Floats]:
    """Of each arm the measure's values (seeds,), or shares of right samples (seeds, problems) where all runs have them."""
    results = [[run.result for run in runs if run.result is not None] for runs in arms]
    every = [result for members in results for result in members]
    if measure == "accuracy" and len({(len(each.right), each.samples) for each in every}) == 1 and len(every[0].right) > 1:
        return [np.array([each.right for each in members], dtype=np.float64) / members[0].samples for members in results]
    if measure in CHANGED:
        return [np.array([CHANGED[measure](changes(run.hash)) for run in runs]) for runs in arms]
    if measure.startswith(AT_DIFFICULTY):
        return [np.array([_at(each, measure.removeprefix(AT_DIFFICULTY)) for each in members]) for members in results]
    return [np.array([float(PLAIN[measure](each)) for each in members]) for members in results]


def _at(result: Result, difficulty: str) -> float:
    if difficulty not in result.by_difficulty:
        raise ReportError(f"no accuracy at difficulty {difficulty!r} was measured; {sorted(result.by_difficulty)} were")
    return result.by_difficulty[difficulty]


def _best_values(check: Check, tuned: str, arms: Sequence[Sequence[Run]]) -> Measured:
    """The best value of the tuned setting, or the ratio of two arms' best ones: the geometric mean over seeds."""
    found = [_best_by_seed(members, tuned) for members in arms]
    seeds = sorted(set.intersection(*(set(each) for each in found)))
    if not seeds:
        return Measured(check, None, 0, "undecided", "not run")
    logs = [np.array([log(each[seed][0]) for seed in seeds]) for each in found]
    spread = mean_of(logs[0] - logs[1] if len(logs) == 2 else logs[0])
    low, high = (None if bound is None else exp(bound) for bound in (spread.low, spread.high))
    estimate = Estimate(exp(spread.value), low, high)
    edges = sum(each[seed][1] for each in found for seed in seeds)
    note = f"{edges} of {len(found) * len(seeds)} best values are at the end of those tried" if edges else ""
    return Measured(check, estimate, len(seeds), verdict_of(check, estimate, len(seeds)), note)


def _best_by_seed(members: Sequence[Run], tuned: str) -> dict[str, tuple[float, bool]]:
    """Of every seed the best value, by a parabola of accuracy over its logarithm; True where none beyond was tried."""
    values = _by_value(members, tuned)
    tried = sorted(values)
    found = {}
    for seed in set.intersection(*(set(seeds) for seeds in values.values())) if values else ():
        heights = [_mean_accuracy(values[value], [seed]) for value in tried]
        best = int(np.argmax(heights))
        inside = 0 < best < len(tried) - 1
        found[seed] = (
            _peak(tried[best - 1 : best + 2], heights[best - 1 : best + 2]) if inside else tried[best],
            not inside,
        )
    return found


def _peak(values: Sequence[float], heights: Sequence[float]) -> float:
    """Where the parabola through three points over log(value) is highest; the middle point is no lower than the others."""
    curve = np.polyfit(np.log(values), heights, 2)
    return values[1] if curve[0] >= 0 else exp(-curve[1] / (2 * curve[0]))


def _by_value(members: Sequence[Run], tuned: str | None) -> dict[Any, Seeds]:
    """The finished runs by the value of the tuned setting and by seed."""
    values: dict[Any, dict[str, Run]] = {}
    for run in members:
        seeds = values.setdefault(run.params[tuned] if tuned else None, {})
        seed = str(run.params["seed"])
        if seed in seeds:
            raise ReportError(
                f"an arm has two runs of seed {seed}, {seeds[seed].hash} and {run.hash}; its rule must tell them apart"
            )
        seeds[seed] = run
    return {value: {seed: run for seed, run in seeds.items() if run.result is not None} for value, seeds in values.items()}


def _mean_accuracy(runs: Seeds, seeds: Sequence[str]) -> float:
    results = [runs[seed].result for seed in seeds]
    return float(np.mean([result.accuracy for result in results if result is not None]))
