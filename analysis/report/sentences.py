"""Writes the sentences of a report from its numbers."""

from collections.abc import Iterator, Sequence
from math import isfinite
from operator import attrgetter

from analysis.data.load import CPU_TIME, WALL_CLOCK, SweepData
from analysis.figures.numbers import percent_interval, points, points_text, share_text, written
from analysis.report.results import Results
from analysis.stats.aggregate import Summary, by_setting
from analysis.stats.comparisons import CostToTarget, Difference
from analysis.stats.pareto import pareto_front

ONE_SEED = "There is one seed per configuration: differences between configurations may be noise. Add seeds: seed=0,1,2"
SEEDS_ONLY = "Some runs did not record which problems they solved: differences with them cover the choice of seeds only."
CLOCKS = {
    CPU_TIME: "Seconds of training are CPU time of the runs' own processes, which a busy machine hardly changes.",
    WALL_CLOCK: "Seconds of training are those of the wall clock: what else the machine did counts too.",
}
ENOUGH_SEEDS = 5
MOST_NAMED = 12


def sentences_of(results: Results) -> list[str]:
    """What the runs of a sweep say, and what they leave open; within one setting each."""
    sentences = [_progress(results.sweep)]
    compared = by_setting(results.differences)
    costs = by_setting(results.costs_to_target)
    for setting, members in by_setting(results.summaries).items():
        found = [
            *_of_setting(members),
            *_decisions(members, compared.get(setting, [])),
            *_costs(members, costs.get(setting, []), results.clock),
        ]
        prefix = f"{setting}: " if setting else ""
        sentences += map(prefix.__add__, found)
    searched = results.search.sentences if results.search is not None else []
    open_ends = [*results.left_out, CLOCKS[results.clock], *_caution(results), *_code(results.sweep)]
    return [*sentences, *_across(results), *_fits(results), *searched, *open_ends]


def accuracy_text(summary: Summary) -> str:
    """`45.2% [43.1%, 47.0%], n=3`; without an interval where there is one seed."""
    interval = percent_interval(summary.accuracy_estimate)
    return f"{summary.accuracy:.1%}{interval}, n={summary.seeds}"


def _progress(sweep: SweepData) -> str:
    finished, total = len(sweep.finished), len(sweep.runs)
    said = f"{finished} of {total} runs finished"
    if finished == total:
        return f"{said}."
    return f"{said}; the numbers below leave out the other {total - finished}."


def _of_setting(summaries: Sequence[Summary]) -> Iterator[str]:
    """Sentences on summaries of one setting, which come from high to low accuracy."""
    yield _best(summaries)
    if len(summaries) > 1 and pareto_front(summaries):
        yield _front(summaries)
    level = [summary.label for summary in summaries if summary.gain.holds(0.0)]
    if level:
        yield (f"The interval of the gain holds 0, so the data do not show a change by training: {_names(level)}.")
    worse = [s.label for s in summaries if s.gain.high is not None and s.gain.high < 0]
    if worse:
        yield f"Below the accuracy before training, interval included: {_names(worse)}."


def _best(summaries: Sequence[Summary]) -> str:
    """The most accurate, or that none is more accurate than without training."""
    best, before = summaries[0], max(map(attrgetter("accuracy_before"), summaries))
    if best.accuracy == 0.0:
        return f"Nothing was learnt: no configuration solved any of the {best.problems} held-out problems."
    if best.accuracy <= before:
        return (
            f"Nothing was learnt: no configuration is more accurate than the {before:.1%} before training; "
            f"the most accurate is {best.label} with {accuracy_text(best)}."
        )
    return (
        f"Best accuracy: {best.label} with {accuracy_text(best)}; that is "
        f"{points(best.gain.value)} points against the {best.accuracy_before:.1%} before training, "
        f"with {share_text(best.share)} of the parameters trained."
    )


def _front(summaries: Sequence[Summary]) -> str:
    front = pareto_front(summaries)
    cheapest, best = front[0], front[-1]
    if cheapest.trainable_params == best.trainable_params:
        names = _names(list(map(attrgetter("label"), front)))
        return f"No configuration trains fewer parameters than the most accurate: {names}."
    below = 100 * (best.accuracy - cheapest.accuracy)
    return (
        f"Cheapest on the Pareto front ({len(front)} of {len(summaries)} configurations): "
        f"{cheapest.label} with {cheapest.trainable_params:,} trained parameters "
        f"({share_text(cheapest.share)}) reaches {accuracy_text(cheapest)}, {below:.1f} points "
        "below the best."
    )


def _decisions(summaries: Sequence[Summary], found: Sequence[Difference]) -> Iterator[str]:
    """Which of the others the data tell from the most accurate one, on common seeds."""
    best = summaries[0].label
    told: dict[bool, list[str]] = {True: [], False: []}
    for difference in found:
        if best in (difference.first, difference.second):
            other, gap = difference.against(best)
            text = points_text(gap.mapped(lambda percent: -percent / 100))
            told[difference.decided].append(f"{other} ({text})")
    if told[True]:
        worse = _names(told[True])
        yield f"{best} is more accurate than {worse}: told apart after Holm's correction for all pairs."
    if told[False] and summaries[0].accuracy > 0.0:
        yield f"The data do not decide between {best} and {_names(told[False])}."
    if len(found) > 1 and any(told.values()):
        decided = sum(map(attrgetter("decided"), found))
        yield f"Of all {len(found)} pairs on common seeds the data decide {decided}."


def _costs(summaries: Sequence[Summary], found: Sequence[CostToTarget], clock: str) -> list[str]:
    """What it took to come near the best; nothing where fewer than two came there."""
    reached = [cost for cost in found if isfinite(cost.seconds) and isfinite(cost.tokens)]
    if len(summaries) < 2 or len(reached) < 2:
        return []
    first = min(reached, key=attrgetter("seconds"))
    seconds, tokens = written(first.seconds, "seconds"), written(first.tokens, "count")
    return [
        f"{len(reached)} of {len(found)} configurations reached {first.target:.1%} in most seeds; "
        f"in the fewest seconds of training {first.label}: {seconds} ({clock}) and {tokens} tokens "
        "(medians over seeds, at the first measurement that shows it)."
    ]


def _across(results: Results) -> Iterator[str]:
    if len(results.across) < 2:
        return
    each = []
    for one in results.across[:MOST_NAMED]:
        each.append(f"{one.label} {one.accuracy.value:.1%}{percent_interval(one.accuracy)}")
    settings = results.across[0].settings
    yield f"Mean over all {settings} settings, each a stratum: {_names(each)}."


def _fits(results: Results) -> Iterator[str]:
    for name, fit in results.fits.items():
        said = (
            f"Accuracy against trained parameters ({name}, n={fit.points}): {points_text(fit.slope)} "
            f"a tenfold, {fit.r_squared:.0%} of the variance explained"
        )
        if fit.slope.holds(0.0):
            said += "; the data do not decide whether more parameters help"
        yield f"{said}."


def _caution(results: Results) -> Iterator[str]:
    """What limits the numbers."""
    summaries = results.summaries
    single = [summary.name for summary in summaries if summary.seeds == 1]
    if len(single) == len(summaries):
        yield ONE_SEED
        return
    if single:
        names = _names(single)
        yield f"With one seed there is no interval, and differences may be noise: {names}."
    fewest = min(summary.seeds for summary in summaries if summary.seeds > 1)
    if fewest < ENOUGH_SEEDS:
        yield (
            f"Intervals are Student's, over seeds and problems together. With {fewest} seeds they "
            "are wide: they hold the truth as often as they say, and more seeds narrow them "
            "(seed=0,1,2,3,4)."
        )
    if not all(map(attrgetter("over_problems"), results.differences)):
        yield SEEDS_ONLY


def _code(sweep: SweepData) -> Iterator[str]:
    versions = sweep.code_versions
    if len(versions) > 1:
        several = f"The runs come from {len(versions)} versions of the code"
        yield f"{several}, so differences may too: {', '.join(versions)}."


def _names(labels: Sequence[str]) -> str:
    """The labels in a row, at most MOST_NAMED."""
    named = list(labels[:MOST_NAMED])
    if len(labels) > MOST_NAMED:
        named.append(f"{len(labels) - MOST_NAMED} more")
    return ("; " if "," in "".join(named) else ", ").join(named)
