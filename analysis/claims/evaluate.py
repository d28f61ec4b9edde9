"""Evaluates claims on finished runs: an estimate for every check, and what follows from it."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from math import exp
from operator import attrgetter, le, lt
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from analysis.claims.spec import AT_DIFFICULTY, BEST, CHANGED, PLAIN, SECONDS, Check, Claim
from analysis.data.load import Run, finished_runs, on_one_clock, results_of
from analysis.stats.aggregate import right_shares, values_of
from analysis.stats.intervals import Estimate, Floats, mean_of, mean_of_shares, ratio_of_means
from efficient_rl.config.filters import keeps
from efficient_rl.errors import ConfigError
from efficient_rl.rundir.result import RunResult

if TYPE_CHECKING:
    from analysis.claims.weight_changes import WeightChanges

Verdict = Literal["holds", "does not hold", "undecided"]
FEWEST_SEEDS = 5  # with fewer nothing is decided
Seeds: TypeAlias = Mapping[str, Run]  # the finished runs of one arm
CountChanges: TypeAlias = "Callable[[str], WeightChanges]"  # of a run, by its hash


@dataclass(frozen=True)
class CheckResult:
    """A check and what the runs say: None where an arm has no finished run.

    `note` says what limits the estimate.
    """

    check: Check
    estimate: Estimate | None
    seeds: int
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True)
class ClaimResult:
    """A claim with what was measured; it holds where every check does, fails where any does."""

    claim: Claim
    checks: tuple[CheckResult, ...]
    finished: int
    runs: int
    code_versions: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """What the checks come to together."""
        verdicts = set(map(attrgetter("verdict"), self.checks))
        if "does not hold" in verdicts:
            return "does not hold"
        return "undecided" if "undecided" in verdicts else "holds"

    @property
    def seeds(self) -> int:
        """The fewest seeds of any check."""
        return min(map(attrgetter("seeds"), self.checks), default=0)


def evaluate(claim: Claim, runs: Sequence[Run], changes: CountChanges) -> ClaimResult:
    """Every check over the runs of the claim's sweep. ConfigError where an arm's rule is wrong."""
    known: set[str] = set().union(*map(attrgetter("params"), runs))
    runs, clock = on_one_clock(runs)
    arms = {}
    for name, rule in claim.arms.items():
        arms[name] = [run for run in runs if keeps(rule, run.params, known)]
        if not arms[name]:
            raise ConfigError(f"claim {claim.name}: no run of its sweep belongs to the arm {name!r}")
    results = results_of(runs)
    versions = sorted(set(map(attrgetter("code_version"), results)))
    checks = tuple(_check_result(check, claim, arms, changes, clock) for check in claim.checks)
    return ClaimResult(claim, checks, len(results), len(runs), tuple(versions))


def by_seed(members: Sequence[Run], tuned: str | None) -> Seeds:
    """The arm's run of every seed; of several values of `tuned` the one best on the other seeds.

    ConfigError where the runs of a seed differ in anything else.
    """
    values = _by_value(members, tuned)
    if tuned is None:
        return values.get(None, {})
    common = _common(list(values.values()))
    if len(common) < 2:
        return {}
    chosen = {}
    for seed in common:
        others = [other for other in common if other != seed]
        best = max(values.values(), key=partial(_mean_accuracy, others))
        chosen[seed] = best[seed]
    return chosen


def verdict_of(check: Check, estimate: Estimate | None, seeds: int) -> Verdict:
    """Whether the whole interval lies within the bounds, outside of them, or neither."""
    if estimate is None or estimate.interval is None or seeds < FEWEST_SEEDS:
        return "undecided"
    low, high = estimate.interval
    least, most = check.bounds
    below = lt if check.above is None else le
    if below(high, least) or low > most:
        return "does not hold"
    return "undecided" if below(low, least) or high > most else "holds"


def changes_of(outputs: Path, bases: Mapping[str, Path]) -> CountChanges:
    """Counts the changed weights of a run, once; `bases` are the models' folders by run."""

    @cache
    def count(run: str) -> "WeightChanges":
        from analysis.claims.weight_changes import count_changes

        return count_changes(bases[run], outputs / "runs" / run / "model")

    return count


def _check_result(
    check: Check, claim: Claim, arms: Mapping[str, Sequence[Run]], changes: CountChanges, clock: str
) -> CheckResult:
    if check.measure.startswith(BEST):
        assert claim.tuned is not None
        return _best_values(check, claim.tuned, list(map(arms.__getitem__, check.arms)))
    chosen = [by_seed(arms[name], claim.tuned) for name in check.arms]
    seeds = _common(chosen)
    if not seeds:
        return CheckResult(check, None, 0, "undecided", "not run")
    runs = [list(map(each.__getitem__, seeds)) for each in chosen]
    note = clock if check.measure == SECONDS else ""
    return _result(check, _estimate(check, _scores(check.measure, runs, changes)), len(seeds), note)


def _result(check: Check, estimate: Estimate, seeds: int, note: str = "") -> CheckResult:
    return CheckResult(check, estimate, seeds, verdict_of(check, estimate, seeds), note)


def _estimate(check: Check, scores: Sequence[Floats]) -> Estimate:
    if check.kind == "ratio":
        return ratio_of_means(scores[0], scores[1])
    return mean_of_shares(scores[0] - scores[1] if check.kind == "difference" else scores[0])


def _scores(measure: str, arms: Sequence[Sequence[Run]], changes: CountChanges) -> Sequence[Floats]:
    """Of each arm the measure (seeds,), or its shares of right samples (seeds, problems)."""
    if measure == "accuracy":
        shares = right_shares(list(chain.from_iterable(map(results_of, arms))))
        if shares is not None:
            return np.split(shares, len(arms))
    return [_values(measure, runs, changes) for runs in arms]


def _values(measure: str, runs: Sequence[Run], changes: CountChanges) -> Floats:
    if measure in CHANGED:
        counted = map(changes, map(attrgetter("hash"), runs))
        return np.array(list(map(attrgetter(CHANGED[measure]), counted)))
    results = results_of(runs)
    if measure in PLAIN:
        return values_of(results, PLAIN[measure].attribute)
    at = partial(_at, measure.removeprefix(AT_DIFFICULTY))
    return np.array(list(map(at, results)))


def _at(difficulty: str, result: RunResult) -> float:
    levels = result.by_difficulty
    if difficulty not in levels:
        raise ConfigError(f"no accuracy at difficulty {difficulty!r} was measured; {sorted(levels)} were")
    return levels[difficulty]


def _best_values(check: Check, tuned: str, arms: Sequence[Sequence[Run]]) -> CheckResult:
    """The best value of the tuned setting, or two arms' ratio of it: geometric means over seeds."""
    found = [_best_by_seed(members, tuned) for members in arms]
    seeds = _common(found)
    if not seeds:
        return CheckResult(check, None, 0, "undecided", "not run")
    best = np.array([list(map(each.__getitem__, seeds)) for each in found])  # (arms, seeds, 2)
    logs, edges = np.log(best[..., 0]), int(best[..., 1].sum())
    estimate = mean_of(logs[0] - logs[1] if len(logs) == 2 else logs[0]).mapped(exp)
    note = f"{edges} of {best[..., 1].size} best values are at the end of those tried"
    return _result(check, estimate, len(seeds), note if edges else "")


def _best_by_seed(members: Sequence[Run], tuned: str) -> dict[str, tuple[float, bool]]:
    """Of every seed the best value, and whether it is the first or last of those tried.

    Between others it is the peak of a parabola of accuracy over the value's logarithm.
    """
    values = _by_value(members, tuned)
    tried = sorted(values)
    found = {}
    for seed in _common(list(values.values())):
        heights = [_mean_accuracy([seed], values[value]) for value in tried]
        best = int(np.argmax(heights))
        around = slice(best - 1, best + 2)
        if 0 < best < len(tried) - 1:
            found[seed] = (_peak(tried[around], heights[around]), False)
        else:
            found[seed] = (tried[best], True)
    return found


def _peak(values: Sequence[float], heights: Sequence[float]) -> float:
    """Where the parabola through three points over log(value), the middle highest, is highest."""
    curve = np.polyfit(np.log(values), heights, 2)
    return values[1] if curve[0] >= 0 else exp(-curve[1] / (2 * curve[0]))


def _by_value(members: Sequence[Run], tuned: str | None) -> dict[Any, Seeds]:
    """The finished runs by the value of the tuned setting and by seed."""
    values: dict[Any, dict[str, Run]] = defaultdict(dict)
    for run in members:
        other = values[run.params[tuned] if tuned else None].setdefault(run.seed, run)
        if other is not run:
            raise ConfigError(
                f"an arm has two runs of seed {run.seed}, {other.hash} and {run.hash}; its rule must tell them apart"
            )
    found: dict[Any, Seeds] = {}
    for value, seeds in values.items():
        found[value] = {run.seed: run for run in finished_runs(seeds.values())}
    return found


def _common(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """The seeds that all have, sorted."""
    return sorted(set(arms[0]).intersection(*arms[1:])) if arms else []


def _mean_accuracy(seeds: Sequence[str], runs: Seeds) -> float:
    return float(values_of(results_of(map(runs.__getitem__, seeds)), "accuracy").mean())
