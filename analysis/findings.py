"""Writes sentences that follow from the numbers, and only those."""

from collections.abc import Sequence

from analysis.aggregate import Summary
from analysis.load import SweepData
from analysis.pareto import pareto_front

ONE_SEED = "There is one seed per configuration: differences between configurations may be noise. Add seeds: seed=0,1,2"


def findings(sweep: SweepData, summaries: Sequence[Summary]) -> list[str]:
    """What the runs of a sweep say, and what they leave open; comparisons stay within one setting.

    `summaries` are those of summarize, at least one.
    """
    sentences = [_progress(sweep)]
    for setting in dict.fromkeys(summary.setting for summary in summaries):
        found = _of_setting([summary for summary in summaries if summary.setting == setting])
        sentences += [f"{setting}: {sentence}" if setting else sentence for sentence in found]
    return [*sentences, *_caution(summaries), *_code(sweep)]


def accuracy_text(summary: Summary) -> str:
    """`45.2% [43.1%, 47.0%], n=3`; without an interval where there is one seed."""
    interval = "" if summary.accuracy_low is None else f" [{summary.accuracy_low:.1%}, {summary.accuracy_high:.1%}]"
    return f"{summary.accuracy:.1%}{interval}, n={summary.seeds}"


def points(share: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"  # adding 0.0 turns -0.0 into 0.0


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
        f"Best accuracy: {best.label} with {accuracy_text(best)}; that is {points(best.gain)} points against the "
        f"{best.accuracy_before:.1%} before training, with {share_text(best.share)} of the parameters trained."
    ]
    if len(summaries) > 1:
        sentences += [_front(summaries), *_overlaps(best, summaries[1:])]
    measured = [(s, s.accuracy_low, s.accuracy_high) for s in summaries]
    level = [
        s.label for s, low, high in measured if low is not None and high is not None and low <= s.accuracy_before <= high
    ]
    if level:
        sentences.append(
            f"The interval holds the accuracy before training, so the data do not show a change: {_names(level)}."
        )
    worse = [s.label for s, _, high in measured if high is not None and high < s.accuracy_before]
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


def _overlaps(best: Summary, others: Sequence[Summary]) -> list[str]:
    """Which of the others the intervals do not tell from the best; nothing where there are no intervals to compare."""
    compared = [(other.label, other.accuracy_high) for other in others if other.accuracy_high is not None]
    if best.accuracy_low is None or not compared:
        return []
    undecided = [label for label, high in compared if high >= best.accuracy_low]
    if undecided:
        return [
            f"These intervals overlap that of {best.label}, so the data do not decide between them: {_names(undecided)}."
        ]
    return [f"No other interval overlaps that of {best.label}."]


def _caution(summaries: Sequence[Summary]) -> list[str]:
    """What limits the numbers: few seeds, and the choice of held-out problems, which no interval covers."""
    single = [summary.name for summary in summaries if summary.seeds == 1]
    sentences = []
    if len(single) == len(summaries):
        sentences.append(ONE_SEED)
    elif single:
        sentences.append(f"With one seed there is no interval, and differences may be noise: {_names(single)}.")
    for count in sorted({summary.seeds for summary in summaries} & {2, 3}):
        # Up to 3 values the interval ends at the extremes (a resample of one value has a chance of n**-n > 2.5%). n values
        # lie all on one side of the centre with a chance of 2**(1 - n).
        sentences.append(
            f"With {count} seeds an interval spans the lowest to the highest seed: if seeds scatter evenly about the true "
            f"mean, it holds that mean in {1 - 2 ** (1 - count):.0%} of cases, not 95%."
        )
    widest = max(summaries, key=lambda summary: summary.standard_error)
    error = f"over {widest.problems} problems the standard error of one run's accuracy is up to"
    start = error.capitalize() if len(single) == len(summaries) else f"Intervals cover the choice of seed only: {error}"
    return [*sentences, f"{start} {100 * widest.standard_error:.1f} points."]


def _code(sweep: SweepData) -> list[str]:
    versions = code_versions(sweep)
    if len(versions) == 1:
        return []
    return [f"The runs come from {len(versions)} versions of the code, so differences may too: {', '.join(versions)}."]


def _names(labels: Sequence[str]) -> str:
    return "; ".join(labels) if any("," in label for label in labels) else ", ".join(labels)
