"""All numbers of a report in one place: summaries, comparisons, fronts, fits and figures of one sweep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.data.load import DIFFICULTY, REWARD, SweepData
from analysis.figures.accuracy import (
    by_setting,
    curve_figure,
    difference_figure,
    difficulty_figure,
    pareto_figures,
    sets_figure,
)
from analysis.figures.data import Figure
from analysis.figures.memory import memory_figure, phase_figure, trained_blocks_figure
from analysis.report.search_results import Searched
from analysis.stats.aggregate import Summary, curves, group_runs, summarize
from analysis.stats.comparisons import Across, Difference, Price, across_settings, differences, prices, reward_areas
from analysis.stats.intervals import Estimate, Fit, scaling_fit
from analysis.stats.pareto import hypervolume, pareto_front

FEWEST_SIZES = 4  # of a scaling fit: a line through three leaves its error one degree of freedom
WINDOWS = 20  # a reward curve is smoothed over one of so many parts of its steps


@dataclass(frozen=True)
class Answer:
    """What a sweep with at least one finished run says; `front` holds the names on the front of trained parameters.

    `fits` are of accuracy against trained parameters, by the name of what was fitted;
    `hypervolumes` by setting, in tenfolds of trained parameters times accuracy, against full
    training without any gain.
    """

    sweep: SweepData
    summaries: Sequence[Summary]
    front: frozenset[str]
    differences: Sequence[Difference]
    prices: Sequence[Price]
    across: Sequence[Across]
    reward_areas: Mapping[tuple[str, str], Estimate]
    fits: Mapping[str, Fit]
    hypervolumes: Mapping[str, float]
    figures: Sequence[Figure]
    left_out: Sequence[str]  # sentences on figures that would show nothing
    searched: Searched | None = None  # where the runs come from a search


def analyse(sweep: SweepData, target: float | None = None) -> Answer:
    """Compute everything; `target` is the accuracy whose price is asked for (see prices)."""
    groups = group_runs(sweep.runs)
    summaries = summarize(sweep.runs)
    found = differences(groups)
    paretos, left_out = pareto_figures(summaries, groups)
    others = [
        difference_figure(summaries, found),
        *_curves(sweep, summaries),
        difficulty_figure(summaries, groups),
        sets_figure(summaries, groups),
        memory_figure(summaries, groups),
        phase_figure(summaries, groups),
        trained_blocks_figure(groups, summaries),
    ]
    settings = by_setting(summaries)
    return Answer(
        sweep=sweep,
        summaries=summaries,
        front=frozenset(s.name for members in settings.values() for s in pareto_front(members)),
        differences=found,
        prices=prices(groups, target),
        across=across_settings(groups),
        reward_areas=reward_areas(groups),
        fits=_fits(settings),
        hypervolumes={setting: front_volume(members) for setting, members in settings.items()},
        figures=[*paretos, *(figure for figure in others if figure is not None)],
        left_out=left_out,
    )


def front_volume(summaries: Sequence[Summary], most_params: float | None = None) -> float:
    """The hypervolume of one setting's front; `most_params` is the worst cost, by default all parameters of the model."""
    worst = float(max(summary.total_params for summary in summaries)) if most_params is None else most_params
    costs = np.array([float(summary.trainable_params) for summary in summaries])
    least = float(np.mean([summary.accuracy_before for summary in summaries]))
    return hypervolume(costs, np.array([summary.accuracy for summary in summaries]), worst, least)


def _curves(sweep: SweepData, summaries: Sequence[Summary]) -> list[Figure | None]:
    shortest = min((len(run.series[REWARD].steps) for run in sweep.finished if REWARD in run.series), default=0)
    window = max(1, shortest // WINDOWS)
    rewards = curves(sweep.runs, REWARD, window)
    drawn = [curve for curve in curves(sweep.runs, DIFFICULTY, window) if np.ptp(curve.mean) > 0]
    band = "means over seeds with 95% intervals where there are several."
    about = f"Mean difficulty of the training problems that the curriculum chose, {band}"
    return [
        curve_figure("reward_curves", "Reward", "reward", f"Training reward, {band}", rewards, summaries),
        curve_figure("curriculum_difficulty", "Difficulty over time", "difficulty", about, drawn, summaries),
    ]


def _fits(settings: Mapping[str, Sequence[Summary]]) -> dict[str, Fit]:
    """Of all configurations of a setting, and of the variants of one strategy where enough sizes of it were trained."""
    fits = {}
    for setting, members in settings.items():
        strategies = dict.fromkeys(summary.strategy for summary in members)
        families = {"all configurations": list(members)}
        families |= {name: [s for s in members if s.strategy == name] for name in strategies if len(strategies) > 1}
        for name, family in families.items():
            sizes = np.array([float(s.trainable_params) for s in family])
            enough = len(set(sizes)) >= FEWEST_SIZES
            fit = scaling_fit(sizes, np.array([s.accuracy for s in family])) if enough else None
            if fit is not None:
                fits[f"{name}, {setting}" if setting else name] = fit
    return fits
