"""Writes sentences that follow from the numbers, and only those."""

from collections.abc import Sequence
from math import isfinite

from analysis.data.load import SweepData
from analysis.figures.accuracy import by_setting, in_points
from analysis.figures.style import written
from analysis.report.results import Answer
from analysis.stats.aggregate import Summary
from analysis.stats.comparisons import Difference, Price
from analysis.stats.intervals import Estimate
from analysis.stats.pareto import pareto_front

ONE_SEED = "There is one seed per configuration: differences between configurations may be noise. Add seeds: seed=0,1,2"
MOST_NAMED = 12


def findings(answer: Answer) -> list[str]:
    """What the runs of a sweep say, and what they leave open; comparisons stay within one setting."""
    sentences = [_progress(answer.sweep)]
    for setting, members in by_setting(answer.summaries).items():
        found = [
            *_of_setting(members),
            *_decisions(members, [d for d in answer.differences if d.setting == setting]),
            *_prices(members, [price for price in answer.prices if price.setting == setting]),
        ]
        sentences += [f"{setting}: {sentence}" if setting else sentence for sentence in found]
    searched = [] if answer.searched is None else answer.searched.sentences
    open_ends = [*answer.left_out, *_caution(answer), *_code(answer.sweep)]
    return [*sentences, *_across(answer), *_fits(answer), *searched, *open_ends]


def accuracy_text(summary: Summary) -> str:
    """`45.2% [43.1%, 47.0%], n=3`; without an interval where there is one seed."""
    interval = "" if summary.accuracy_low is None else f" [{summary.accuracy_low:.1%}, {summary.accuracy_high:.1%}]"
    return f"{summary.accuracy:.1%}{interval}, n={summary.seeds}"


def points(share: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"  # adding 0.0 turns -0.0 into 0.0


def points_text(share: Estimate) -> str:
    """`+3.1 points [-0.4, +6.6]`; without an interval where there is none."""
    interval = "" if share.low is None or share.high is None else f" [{points(share.low)}, {points(share.high)}]"
    return f"{points(share.value)} points{interval}"


def share_text(share: float) -> str:
    """A share of the parameters, to three digits: adapters of a large model train far less than 0.1%."""
    return f"{100 * share:.3g}%"


def code_versions(sweep: SweepData) -> list[str]:
    """The versions of the code that the finished runs ran, sorted."""
    return sorted({run.result.code_version for run in sweep.runs if run.result is not None})


def _progress(sweep: SweepData) -> str:
    finished, total = len(sweep.finished), len(sweep.runs)
    if finished == total:
        return f"{finished} of {total} runs finished."
    return f"{finished} of {total} runs finished; the numbers below leave out the other {total - finished}."


def _of_setting(summaries: Sequence[Summary]) -> list[str]:
    """Sentences on summaries of one setting, which come from high to low accuracy."""
    best = summaries[0]
    sentences = [
        f"Best accuracy: {best.label} with {accuracy_text(best)}; that is {points(best.gain.value)} points against the "
        f"{best.accuracy_before:.1%} before training, with {share_text(best.share)} of the parameters trained."
    ]
    if len(summaries) > 1:
        sentences.append(_front(summaries))
    measured = [(s.label, s.gain.low, s.gain.high) for s in summaries if s.gain.low is not None and s.gain.high is not None]
    level = [label for label, low, high in measured if low is not None and high is not None and low <= 0 <= high]
    if level:
        sentences.append(f"The interval of the gain holds 0, so the data do not show a change by training: {_names(level)}.")
    worse = [label for label, _, high in measured if high is not None and high < 0]
    if worse:
        sentences.append(f"Below the accuracy before training, interval included: {_names(worse)}.")
    return sentences


def _front(summaries: Sequence[Summary]) -> str:
    front = pareto_front(summaries)
    cheapest, best = front[0], front[-1]
    if cheapest.trainable_params == best.trainable_params:
        return f"No configuration trains fewer parameters than the most accurate: {_names([s.label for s in front])}."
    return (
        f"Cheapest on the Pareto front ({len(front)} of {len(summaries)} configurations): {cheapest.label} with "
        f"{cheapest.trainable_params:,} trained parameters ({share_text(cheapest.share)}) reaches "
        f"{accuracy_text(cheapest)}, {100 * (best.accuracy - cheapest.accuracy):.1f} points below the best."
    )


def _decisions(summaries: Sequence[Summary], found: Sequence[Difference]) -> list[str]:
    """Which of the others the data tell from the most accurate one, on common seeds; nothing where none can be compared."""
    best = summaries[0].label
    against = [d for d in found if best in (d.first, d.second)]
    if not against:
        return []
    worse: list[str] = []
    open_: list[str] = []
    for difference in against:
        other = difference.second if difference.first == best else difference.first
        gap = in_points(difference.accuracy, 1.0 if difference.first == best else -1.0)
        text = f"{other} ({points(gap.value / 100)} points [{_signed(gap.low)}, {_signed(gap.high)}])"
        (worse if difference.decided else open_).append(text)
    sentences = []
    if worse:
        sentences.append(f"{best} is more accurate than {_names(worse)}: told apart after Holm's correction for all pairs.")
    if open_:
        sentences.append(f"The data do not decide between {best} and {_names(open_)}.")
    decided = sum(difference.decided for difference in found)
    if len(found) == 1:
        return sentences
    return [*sentences, f"Of all {len(found)} pairs on common seeds the data decide {decided}."]


def _prices(summaries: Sequence[Summary], found: Sequence[Price]) -> list[str]:
    """What it took to come near the best; nothing where fewer than two configurations came there."""
    reached = sorted((p for p in found if isfinite(p.seconds) and isfinite(p.tokens)), key=lambda price: price.seconds)
    if len(summaries) < 2 or len(reached) < 2:
        return []
    first = reached[0]
    return [
        f"{len(reached)} of {len(found)} configurations reached {first.target:.1%} in most seeds; in the fewest seconds of "
        f"training {first.label}: {written(first.seconds, 'seconds')} and {written(first.tokens, 'count')} tokens (medians "
        "over seeds, at the first measurement that shows it)."
    ]


def _across(answer: Answer) -> list[str]:
    if len(answer.across) < 2:
        return []
    each = [f"{a.label} {a.accuracy.value:.1%}" + _percent_interval(a.accuracy) for a in answer.across[:MOST_NAMED]]
    return [f"Mean over all {answer.across[0].settings} settings, each a stratum: {_names(each)}."]


def _fits(answer: Answer) -> list[str]:
    return [
        f"Accuracy against trained parameters ({name}, n={fit.points}): {points_text(fit.slope)} a tenfold, "
        f"{fit.r_squared:.0%} of the variance explained"
        + ("; the data do not decide whether more parameters help." if _holds_zero(fit.slope) else ".")
        for name, fit in answer.fits.items()
    ]


def _caution(answer: Answer) -> list[str]:
    """What limits the numbers."""
    summaries = answer.summaries
    single = [summary.name for summary in summaries if summary.seeds == 1]
    if len(single) == len(summaries):
        return [ONE_SEED]
    sentences = []
    if single:
        sentences.append(f"With one seed there is no interval, and differences may be noise: {_names(single)}.")
    fewest = min(summary.seeds for summary in summaries if summary.seeds > 1)
    if fewest < 5:
        sentences.append(
            f"Intervals are Student's, over seeds and problems together. With {fewest} seeds they are wide: they hold the "
            "truth as often as they say, and more seeds narrow them (seed=0,1,2,3,4)."
        )
    if any(not difference.over_problems for difference in answer.differences):
        sentences.append(
            "Some runs did not record which problems they solved: differences with them cover the choice of seeds only."
        )
    return sentences


def _code(sweep: SweepData) -> list[str]:
    versions = code_versions(sweep)
    if len(versions) == 1:
        return []
    return [f"The runs come from {len(versions)} versions of the code, so differences may too: {', '.join(versions)}."]


def _percent_interval(estimate: Estimate) -> str:
    return "" if estimate.low is None or estimate.high is None else f" [{estimate.low:.1%}, {estimate.high:.1%}]"


def _signed(percent: float | None) -> str:
    return "?" if percent is None else points(percent / 100)


def _holds_zero(estimate: Estimate) -> bool:
    return estimate.low is not None and estimate.high is not None and estimate.low <= 0 <= estimate.high


def _names(labels: Sequence[str]) -> str:
    """The labels in a row, at most MOST_NAMED."""
    shown = list(labels[:MOST_NAMED])
    if len(labels) > MOST_NAMED:
        shown.append(f"{len(labels) - MOST_NAMED} more")
    return "; ".join(shown) if any("," in label for label in shown) else ", ".join(shown)
