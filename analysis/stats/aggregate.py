"""Turns runs into numbers over seeds: one summary and one reward curve per configuration."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from analysis.data.load import Result, Run
from analysis.stats.intervals import Estimate, Floats, Stratum, crossed, interquartile_mean, mean, mean_of, means_of_columns
from efficient_rl.sweep.labels import STRATEGY, make_labels, make_setting_labels

MEASURE = ("model.", "task.", "eval.")  # accuracies under different values of these are not comparable
COSTS: Mapping[str, Callable[[Result], float]] = {
    "trainable_params": lambda result: result.trainable_params,
    "mean_active_params": lambda result: result.mean_active_params,
    "peak_memory_bytes": lambda result: result.peak_memory_bytes,
    "train_seconds": lambda result: result.train_seconds,
    "tokens": lambda result: result.tokens,
}


@dataclass(frozen=True)
class Summary:
    """One configuration over its finished seeds; means, unless said otherwise.

    `accuracy_low` and `accuracy_high` bound the 95% interval of the mean accuracy over seeds and
    problems; None with one seed. `costs` has the keys of COSTS. Only summaries of the same
    `setting` (model, task, evaluation) have comparable accuracies; it is "" where the sweep has one
    setting. Labels are unique within a setting.
    """

    label: str
    setting: str
    strategy: str
    seeds: int
    total_params: int
    accuracy: float
    accuracy_low: float | None
    accuracy_high: float | None
    robust_accuracy: Estimate  # interquartile mean
    accuracy_before: float
    gain: Estimate
    greedy_accuracy: float
    problems: int
    reward: float
    costs: Mapping[str, Estimate]

    @property
    def name(self) -> str:
        """The label, with the setting where the sweep has several."""
        return f"{self.label}, {self.setting}" if self.setting else self.label

    @property
    def trainable_params(self) -> int:
        """How many parameters may ever train."""
        return round(self.costs["trainable_params"].value)

    @property
    def mean_active_params(self) -> float:
        """How many train in a step, on average."""
        return self.costs["mean_active_params"].value

    @property
    def peak_memory_bytes(self) -> int:
        """The highest of all phases of a run."""
        return round(self.costs["peak_memory_bytes"].value)

    @property
    def train_seconds(self) -> float:
        """Seconds in training steps."""
        return self.costs["train_seconds"].value

    @property
    def share(self) -> float:
        """Trained share of all parameters."""
        return self.trainable_params / self.total_params


@dataclass(frozen=True, eq=False)
class Curve:
    """A metric of one configuration at the steps that all its seeds have; arrays (steps,), no band with one seed."""

    label: str
    setting: str
    seeds: int
    window: int  # every value is the mean of so many steps, its own the last
    steps: NDArray[np.int64]
    mean: Floats
    low: Floats | None
    high: Floats | None


@dataclass(frozen=True)
class Group:
    """The runs of one configuration: they differ in nothing but the seed. At least one."""

    label: str
    setting: str
    strategy: str
    runs: tuple[Run, ...]

    @property
    def results(self) -> list[Result]:
        """Those of the finished runs, in their order."""
        return [run.result for run in self.runs if run.result is not None]

    def by_seed(self) -> dict[str, Result]:
        """The finished runs' results by seed."""
        return {str(run.params.get("seed")): run.result for run in self.runs if run.result is not None}


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """The configurations, named, in the order of the runs."""
    members: dict[str, list[Run]] = {}
    for run in runs:
        identity = {key: value for key, value in run.params.items() if key != "seed"}
        members.setdefault(json.dumps(identity, sort_keys=True), []).append(run)
    groups = [tuple(group) for group in members.values()]
    params = [group[0].params for group in groups]
    labels = zip(make_labels(params, MEASURE), make_setting_labels(params, MEASURE), groups, strict=True)
    return [Group(label, setting, str(group[0].params.get(STRATEGY, "?")), group) for label, setting, group in labels]


def summarize(runs: Sequence[Run]) -> list[Summary]:
    """A summary for every configuration with a finished run, by setting and then from high to low accuracy.

    Unfinished runs only take part in the naming.
    """
    summaries = [_summarize(group) for group in group_runs(runs) if group.results]
    settings = list(dict.fromkeys(summary.setting for summary in summaries))
    return sorted(summaries, key=lambda s: (settings.index(s.setting), -s.accuracy, s.trainable_params, s.label))


def accuracy_stratum(results: Sequence[Result]) -> Stratum:
    """The accuracies of runs (seeds,), with what the choice of the problems adds.

    Where runs did not record which problems they solved, the standard error of one run stands for
    it: a little too much.
    """
    shares = right_shares(results)
    if shares is not None:
        return crossed(shares)
    scores = np.array([result.accuracy for result in results])
    of_problems = float(np.mean([result.standard_error**2 for result in results]))
    return Stratum(scores, of_problems, min(result.problems for result in results))


def gain_stratum(results: Sequence[Result]) -> Stratum:
    """The same of the accuracy gained over the model before training."""
    after, before = right_shares(results), right_shares(results, before=True)
    if after is not None and before is not None and after.shape == before.shape:
        return crossed(after - before)
    gains = np.array([result.accuracy - result.accuracy_before for result in results])
    return Stratum(gains, accuracy_stratum(results).problem_variance, min(result.problems for result in results))


def right_shares(results: Sequence[Result], before: bool = False) -> Floats | None:
    """Share of right samples (seeds, problems); None where it was not recorded or the problems are not the same."""
    rows = [result.right_before if before else result.right for result in results]
    alike = len({(len(row), result.samples) for row, result in zip(rows, results, strict=True)}) == 1
    if not alike or len(rows[0]) < 2 or results[0].samples < 1:
        return None
    return np.array(rows, dtype=np.float64) / results[0].samples


def curves(runs: Sequence[Run], metric: str, window: int = 1) -> list[Curve]:
    """A metric's curve for every configuration with a finished run that has it, in the order of the runs.

    Each value is the mean over the last `window` steps of a run, so the first ones have none.
    """
    if window < 1:
        raise ValueError(f"window={window} is below 1; use window=1 for no smoothing")
    return [curve for group in group_runs(runs) if (curve := _curve(group, metric, window)) is not None]


def _summarize(group: Group) -> Summary:
    results = group.results

    def average(name: str) -> float:
        return float(np.mean([getattr(result, name) for result in results]))

    stratum = accuracy_stratum(results)
    accuracy = mean([stratum]).within(0.0, 1.0)
    return Summary(
        label=group.label,
        setting=group.setting,
        strategy=group.strategy,
        seeds=len(results),
        total_params=round(average("total_params")),
        accuracy=float(np.mean([result.accuracy for result in results])),
        accuracy_low=accuracy.low,
        accuracy_high=accuracy.high,
        robust_accuracy=interquartile_mean([stratum]).within(0.0, 1.0),
        accuracy_before=average("accuracy_before"),
        gain=mean([gain_stratum(results)]).within(-1.0, 1.0),
        greedy_accuracy=average("greedy_accuracy"),
        problems=round(average("problems")),
        reward=average("final_reward"),
        costs={
            name: mean_of(np.array([cost(result) for result in results])).within(0, np.inf) for name, cost in COSTS.items()
        },
    )


def _curve(group: Group, metric: str, window: int) -> Curve | None:
    """None where the finished runs of the group have fewer than `window` steps in common."""
    recorded = [run.series[metric] for run in group.runs if run.result is not None and metric in run.series]
    steps = recorded[0].steps if recorded else np.array([], dtype=np.int64)
    for series in recorded[1:]:
        steps = np.intersect1d(steps, series.steps)
    if len(steps) < window or not len(steps):
        return None
    common = np.array([series.values[np.isin(series.steps, steps)] for series in recorded])
    values = sliding_window_view(common, window, axis=1).mean(axis=-1)  # (seeds, steps)
    low = high = None
    if len(recorded) > 1:
        _, low, high = means_of_columns(values)
    return Curve(group.label, group.setting, len(recorded), window, steps[window - 1 :], values.mean(axis=0), low, high)
