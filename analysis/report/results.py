"""Computes all numbers of a report: summaries, comparisons, fronts, fits and figures."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, starmap
from operator import attrgetter

import numpy as np

from analysis.data.load import DIFFICULTY, REWARD, SweepData, on_one_clock
from analysis.figures import accuracy, memory
from analysis.figures.data import Figure
from analysis.report.search_results import SearchResults
from analysis.stats import comparisons
from analysis.stats.aggregate import Group, Summary, by_setting, curves, group_runs, summarize_groups
from analysis.stats.comparisons import AcrossSettings, CostToTarget, Difference
from analysis.stats.curves import Fit, scaling_fit
from analysis.stats.intervals import Floats
from analysis.stats.pareto import hypervolume, pareto_front

FEWEST_SIZES = 4  # of a scaling fit: a line through three leaves its error one degree of freedom
WINDOWS = 20  # of a reward curve; it is smoothed over one of them
ALL = "all configurations"
BAND = "means over seeds with 95% intervals where there are several, cut at the lowest and highest value of any run."


@dataclass(frozen=True)
class Results:
    """What a sweep with at least one finished run says.

    `front` holds the names on the front of trained parameters. `fits` are of accuracy against
    trained parameters, by the name of what was fitted; `hypervolumes` by setting, in tenfolds of
    trained parameters times accuracy, against full training without any gain.
    """

    sweep: SweepData
    summaries: Sequence[Summary]
    front: frozenset[str]
    differences: Sequence[Difference]
    costs_to_target: Sequence[CostToTarget]
    across: Sequence[AcrossSettings]
    fits: Mapping[str, Fit]
    hypervolumes: Mapping[str, float]
    figures: Sequence[Figure]
    left_out: Sequence[str]  # sentences on figures that would show nothing
    clock: str  # what the seconds of training are: CPU time, or of the wall clock
    search: SearchResults | None = None  # where the runs come from a search


def compute_results(sweep: SweepData, target: float | None = None, search: SearchResults | None = None) -> Results:
    """Compute everything; `target` is the accuracy whose cost is asked for."""
    runs, clock = on_one_clock(sweep.runs)
    groups = group_runs(runs)
    summaries = summarize_groups(groups)
    compared = comparisons.differences(groups)
    figures, left_out = accuracy.pareto_figures(summaries, clock)
    others = [
        accuracy.difference_figure(summaries, compared),
        *_curve_figures(groups, summaries),
        *starmap(partial(accuracy.make_figure, summaries), accuracy.FIGURES + memory.FIGURES),
        memory.trained_blocks_figure(summaries),
    ]
    figures += filter(None, others)
    settings = by_setting(summaries)
    front = chain.from_iterable(map(pareto_front, settings.values()))
    return Results(
        sweep=sweep,
        summaries=summaries,
        front=frozenset(map(attrgetter("name"), front)),
        differences=compared,
        costs_to_target=comparisons.costs_to_target(groups, target),
        across=comparisons.across_settings(groups),
        fits=_fits(settings),
        hypervolumes=dict(zip(settings, map(front_volume, settings.values()), strict=True)),
        figures=[*figures, *(search.figures if search is not None else [])],
        left_out=left_out,
        clock=clock,
        search=search,
    )


def front_volume(summaries: Sequence[Summary], most_params: float | None = None) -> float:
    """The hypervolume of one setting's front; the worst cost is by default the whole model."""
    worst = most_params or _column(summaries, "total_params").max()
    least = float(_column(summaries, "accuracy_before").mean())
    sizes, accuracies = _column(summaries, "trainable_params"), _column(summaries, "accuracy")
    return hypervolume(sizes, accuracies, float(worst), least)


def _column(summaries: Sequence[Summary], attribute: str) -> Floats:
    return np.fromiter(map(attrgetter(attribute), summaries), np.float64, len(summaries))


def _curve_figures(groups: Sequence[Group], summaries: Sequence[Summary]) -> list[Figure | None]:
    steps = [len(series.steps) for group in groups for series in group.series(REWARD)]
    window = max(1, min(steps, default=0) // WINDOWS)
    rewards = curves(groups, REWARD, window)
    varied = [curve for curve in curves(groups, DIFFICULTY, window) if np.ptp(curve.mean) > 0]
    about = f"Mean difficulty of the training problems that the curriculum chose, {BAND}"
    draw = partial(accuracy.curve_figure, summaries=summaries)
    name, title = "curriculum_difficulty", "Difficulty over time"
    return [
        draw("reward_curves", "Reward", "reward", f"Training reward, {BAND}", rewards),
        draw(name, title, "difficulty", about, varied),
    ]


def _fits(settings: Mapping[str, Sequence[Summary]]) -> dict[str, Fit]:
    """Of a setting's configurations, and of a strategy's variants where there are enough sizes."""
    fits = {}
    for setting, members in settings.items():
        families = {ALL: list(members), **_by_strategy(members)}
        for name, family in families.items():
            sizes = _column(family, "trainable_params")
            if len(np.unique(sizes)) < FEWEST_SIZES:
                continue
            fit = scaling_fit(sizes, _column(family, "accuracy"))
            if fit is not None:
                fits[f"{name}, {setting}" if setting else name] = fit
    return fits


def _by_strategy(summaries: Iterable[Summary]) -> Mapping[str, list[Summary]]:
    """The variants of every strategy; nothing where there is one strategy."""
    families = defaultdict(list)
    for summary in summaries:
        families[summary.group.strategy].append(summary)
    return families if len(families) > 1 else {}
