"""Turns runs into numbers over seeds: one group, summary and curve for each configuration."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import attrgetter
from typing import TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from analysis.data.load import REWARD, Run, Series, finished_runs, results_of
from analysis.stats import intervals
from analysis.stats.curves import area_under_curve
from analysis.stats.intervals import Estimate, Floats, Stratum, mean_of
from efficient_rl.metrics import METRICS, Metric
from efficient_rl.rundir.result import RunResult
from efficient_rl.sweep.labels import STRATEGY, make_labels, make_setting_labels

MEASURE = ("model.", "task.", "eval.")  # accuracies under different values of these do not compare
COSTS: Mapping[str, Metric] = {  # by their names in the report's files
    "trainable_params": METRICS["params/trainable"],
    "mean_active_params": METRICS["params/active"],
    "peak_memory_bytes": METRICS["memory/total_peak_bytes"],
    "train_seconds": METRICS["time/train_seconds"],
    "tokens": METRICS["tokens"],
}


Item = TypeVar("Item")  # with a setting


@dataclass(frozen=True)
class Group:
    """The runs of one configuration: they differ in nothing but the seed. At least one."""

    label: str
    setting: str
    runs: tuple[Run, ...]

    @property
    def strategy(self) -> str:
        return str(self.runs[0].params.get(STRATEGY, "?"))

    @cached_property
    def results(self) -> list[RunResult]:
        """Those of the finished runs, in their order."""
        return results_of(self.runs)

    @cached_property
    def by_seed(self) -> dict[str, RunResult]:
        return {run.seed: run.result for run in self.runs if run.result is not None}

    def values(self, attribute: str) -> Floats:
        """An attribute of every result (seeds,)."""
        return values_of(self.results, attribute)

    def average(self, attribute: str) -> float:
        """Mean of an attribute over seeds."""
        return float(self.values(attribute).mean())

    def series(self, metric: str) -> list[Series]:
        """A metric of the finished runs that recorded it."""
        runs = finished_runs(self.runs)
        return [run.series[metric] for run in runs if metric in run.series]


@dataclass(frozen=True)
class Summary:
    """One configuration over its finished seeds; means, unless said otherwise.

    `accuracy_low` and `accuracy_high` bound the 95% interval of the mean accuracy over seeds and
    problems; None with one seed. `costs` has the keys of COSTS. Only summaries of the same
    `setting` (model, task, evaluation) have comparable accuracies; it is "" where the sweep has one
    setting. Labels are unique within a setting.
    """

    group: Group
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
    reward_area: Estimate | None  # mean reward over the whole training

    @property
    def label(self) -> str:
        """What tells it from the others of its setting."""
        return self.group.label

    @property
    def setting(self) -> str:
        """What was measured on, where the sweep has several."""
        return self.group.setting

    @property
    def name(self) -> str:
        """The label, with the setting where the sweep has several."""
        return f"{self.label}, {self.setting}" if self.setting else self.label

    @property
    def accuracy_estimate(self) -> Estimate:
        return Estimate(self.accuracy, self.accuracy_low, self.accuracy_high)

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
    """A metric of one configuration at the steps that all its seeds have.

    Arrays (steps,); no band with one seed, and none beyond the lowest and highest value that a run
    of the setting recorded. Every value is the mean of `window` steps, its own last.
    """

    label: str
    setting: str
    seeds: int
    window: int
    steps: NDArray[np.int64]
    mean: Floats
    low: Floats | None
    high: Floats | None


def by_setting(items: Iterable[Item]) -> dict[str, list[Item]]:
    """What belongs to every setting, in its order."""
    found = defaultdict(list)
    for item in items:
        found[attrgetter("setting")(item)].append(item)
    return dict(found)


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """The configurations, named, in the order of the runs."""
    members = defaultdict(list)
    for run in runs:
        members[run.identity()].append(run)
    params = [group[0].params for group in members.values()]
    labels, settings = make_labels(params, MEASURE), make_setting_labels(params, MEASURE)
    return list(map(Group, labels, settings, map(tuple, members.values())))


def summarize(runs: Sequence[Run]) -> list[Summary]:
    """A summary for every configuration with a finished run; unfinished ones help to name it."""
    return summarize_groups(group_runs(runs))


def summarize_groups(groups: Iterable[Group]) -> list[Summary]:
    """A summary for every group with results, by setting and then from high to low accuracy."""
    ranked = []
    for members in by_setting(groups).values():
        summaries = [_summarize(group) for group in members if group.results]
        ranked += sorted(summaries, key=lambda s: (-s.accuracy, s.trainable_params, s.label))
    return ranked


def values_of(results: Sequence[RunResult], attribute: str) -> Floats:
    """An attribute of every result (seeds,)."""
    return np.fromiter(map(attrgetter(attribute), results), np.float64, len(results))


def accuracy_stratum(results: Sequence[RunResult]) -> Stratum:
    """The accuracies of runs (seeds,), with what the choice of the problems adds.

    Where runs did not record which problems they solved, the standard error of one run stands for
    it: a little too much.
    """
    shares = right_shares(results)
    if shares is not None:
        return intervals.crossed(shares)
    of_problems = float(np.mean(values_of(results, "standard_error") ** 2))
    problems = int(values_of(results, "problems").min())
    return Stratum(values_of(results, "accuracy"), of_problems, problems)


def gain_stratum(results: Sequence[RunResult]) -> Stratum:
    """The same of the accuracy gained over the model before training."""
    problem_by_problem = paired(right_shares(results), right_shares(results, "right_before"))
    if problem_by_problem is not None:
        return problem_by_problem
    accuracy = accuracy_stratum(results)
    problems = int(values_of(results, "problems").min())
    return Stratum(values_of(results, "gain"), accuracy.problem_variance, problems)


def right_shares(results: Sequence[RunResult], attribute: str = "right") -> Floats | None:
    """Share of right samples (seeds, problems); None where not recorded, or of other problems."""
    rows = list(map(attrgetter(attribute), results))
    samples = results[0].samples
    shapes = {(len(row), result.samples) for row, result in zip(rows, results, strict=True)}
    if len(shapes) > 1 or len(rows[0]) < 2 or samples < 1:
        return None
    return np.array(rows, dtype=np.float64) / samples


def paired(first: Floats | None, second: Floats | None) -> Stratum | None:
    """`first` less `second`, shares (seeds, problems) of the same problems; None without them."""
    if first is None or second is None or first.shape != second.shape:
        return None
    return intervals.crossed(first - second)


def curves(groups: Iterable[Group], metric: str, window: int = 1) -> list[Curve]:
    """A metric's curve for every group with a finished run that has it.

    Each value is the mean over the last `window` steps of a run, so the first ones have none.
    """
    if window < 1:
        raise ValueError(f"window={window} is below 1; use window=1 for no smoothing")
    found: list[Curve] = []
    for members in by_setting(groups).values():
        values = [each.values for group in members for each in group.series(metric)]
        if values:
            all_values = np.concatenate(values)
            limits = float(all_values.min()), float(all_values.max())
            found += filter(None, [_curve(group, metric, window, limits) for group in members])
    return found


def _summarize(group: Group) -> Summary:
    stratum = accuracy_stratum(group.results)
    accuracy = intervals.mean([stratum]).within(0.0, 1.0)
    costs = {name: mean_of(group.values(metric.attribute)).within(0, np.inf) for name, metric in COSTS.items()}
    return Summary(
        group=group,
        seeds=len(group.results),
        total_params=round(group.average("total_params")),
        accuracy=group.average("accuracy"),
        accuracy_low=accuracy.low,
        accuracy_high=accuracy.high,
        robust_accuracy=intervals.interquartile_mean([stratum]).within(0.0, 1.0),
        accuracy_before=group.average("accuracy_before"),
        gain=intervals.mean([gain_stratum(group.results)]).within(-1.0, 1.0),
        greedy_accuracy=group.average("greedy_accuracy"),
        problems=round(group.average("problems")),
        reward=group.average("final_reward"),
        costs=costs,
        reward_area=_reward_area(group),
    )


def _reward_area(group: Group) -> Estimate | None:
    """Area under the reward curve by its length; None where no run recorded rewards."""
    series = group.series(REWARD)
    areas = [area_under_curve(each.steps.astype(float), each.values) for each in series]
    return mean_of(np.array(areas)) if areas else None


def _curve(group: Group, metric: str, window: int, limits: tuple[float, float]) -> Curve | None:
    """None where the finished runs of the group have fewer than `window` steps in common.

    The band ends at the `limits`: Student's interval of two seeds may leave what is possible.
    """
    recorded = group.series(metric)
    if not recorded:
        return None
    steps = reduce(np.intersect1d, map(attrgetter("steps"), recorded))
    if len(steps) < window:
        return None
    common = np.array([each.values[np.isin(each.steps, steps)] for each in recorded])
    values = sliding_window_view(common, window, axis=1).mean(axis=-1)  # (seeds, steps)
    centre, low, high = values.mean(axis=0), None, None
    if len(recorded) > 1:
        centre, *ends = intervals.means_of_columns(values)
        low, high = (end.clip(*limits) for end in ends)
    seeds, kept = len(recorded), steps[window - 1 :]
    return Curve(group.label, group.setting, seeds, window, kept, centre, low, high)
