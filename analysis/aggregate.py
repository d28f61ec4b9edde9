"""Turns runs into numbers over seeds: one summary and one reward curve per configuration."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from analysis.labels import STRATEGY, make_labels, make_setting_labels
from analysis.load import Result, Run

MEASURE = ("model.", "task.", "eval.")  # accuracies under different values of these are not comparable
LEVEL = 0.95
RESAMPLES = 10_000
CURVE_RESAMPLES = 2_000
COLUMNS_AT_ONCE = 256
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """One configuration over its finished seeds; means, unless said otherwise.

    `accuracy_low` and `accuracy_high` bound the 95% bootstrap interval of the mean accuracy over seeds; None with one
    seed. Only summaries of the same `setting` (model, task, evaluation) have comparable accuracies; it is "" where the
    sweep has one setting. Labels are unique within a setting.
    """

    label: str
    setting: str
    strategy: str
    seeds: int
    trainable_params: int
    mean_active_params: float
    total_params: int
    accuracy: float
    accuracy_low: float | None
    accuracy_high: float | None
    accuracy_before: float
    greedy_accuracy: float
    standard_error: float  # of a run's accuracy over its held-out problems
    problems: int
    reward: float
    peak_memory_bytes: int  # the highest of all phases and seeds
    train_seconds: float
    tokens: int

    @property
    def name(self) -> str:
        """The label, with the setting where the sweep has several."""
        return f"{self.label}, {self.setting}" if self.setting else self.label

    @property
    def gain(self) -> float:
        """Accuracy gained over the model before training."""
        return self.accuracy - self.accuracy_before

    @property
    def share(self) -> float:
        """Trained share of all parameters."""
        return self.trainable_params / self.total_params


@dataclass(frozen=True, eq=False)
class Curve:
    """Reward of one configuration at the steps that all its seeds have; arrays of shape (steps,), no band with one seed."""

    label: str
    setting: str
    seeds: int
    window: int  # every value is the mean of so many steps, its own the last
    steps: NDArray[np.int64]
    mean: Floats
    low: Floats | None
    high: Floats | None


@dataclass(frozen=True)
class _Group:
    label: str
    setting: str
    strategy: str
    runs: tuple[Run, ...]


def summarize(runs: Sequence[Run]) -> list[Summary]:
    """A summary for every configuration with a finished run, by setting and then from high to low accuracy.

    Runs that differ in nothing but the seed are one configuration. Unfinished runs only take part in the naming.
    """
    summaries = [
        _summarize(group, results)
        for group in _groups(runs)
        if (results := [run.result for run in group.runs if run.result is not None])
    ]
    settings = list(dict.fromkeys(summary.setting for summary in summaries))
    return sorted(summaries, key=lambda s: (settings.index(s.setting), -s.accuracy, s.trainable_params, s.label))


def reward_curves(runs: Sequence[Run], window: int = 1) -> list[Curve]:
    """The reward curve of every configuration with a finished run, in the order of the runs.

    Each value is the mean over the last `window` steps of a run, so the first ones have none.
    """
    if window < 1:
        raise ValueError(f"window={window} is below 1; use window=1 for no smoothing")
    return [curve for group in _groups(runs) if (curve := _curve(group, window)) is not None]


def bootstrap_interval(values: Floats, resamples: int = RESAMPLES) -> tuple[Floats, Floats]:
    """95% percentile bootstrap interval of the mean over the first axis (Efron 1979), with a fixed random seed.

    values (seeds, columns) -> low (columns,), high (columns,). ValueError with fewer than two rows.
    """
    count, columns = values.shape
    if count < 2:
        raise ValueError(f"{count} value has no spread; an interval needs at least 2")
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=resamples)
    weights = draws / count  # (resamples, seeds): a resample's mean is a weighted sum of the values
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    blocks = [values[:, start : start + COLUMNS_AT_ONCE] for start in range(0, columns, COLUMNS_AT_ONCE)]
    low, high = np.concatenate([np.quantile(weights @ block, tails, axis=0) for block in blocks], axis=1)
    return low, high


def _groups(runs: Sequence[Run]) -> list[_Group]:
    members: dict[str, list[Run]] = {}
    for run in runs:
        identity = {key: value for key, value in run.params.items() if key != "seed"}
        members.setdefault(json.dumps(identity, sort_keys=True), []).append(run)
    groups = [tuple(group) for group in members.values()]
    params = [group[0].params for group in groups]
    labels = zip(make_labels(params, MEASURE), make_setting_labels(params, MEASURE), groups, strict=True)
    return [_Group(label, setting, str(group[0].params.get(STRATEGY, "?")), group) for label, setting, group in labels]


def _summarize(group: _Group, results: Sequence[Result]) -> Summary:
    accuracies = np.array([result.accuracy for result in results])
    low = high = None
    if len(results) > 1:
        lows, highs = bootstrap_interval(accuracies[:, None])
        low, high = float(lows[0]), float(highs[0])

    def mean(name: str) -> float:
        return float(np.mean([getattr(result, name) for result in results]))

    return Summary(
        label=group.label,
        setting=group.setting,
        strategy=group.strategy,
        seeds=len(results),
        trainable_params=round(mean("trainable_params")),
        mean_active_params=mean("mean_active_params"),
        total_params=round(mean("total_params")),
        accuracy=float(accuracies.mean()),
        accuracy_low=low,
        accuracy_high=high,
        accuracy_before=mean("accuracy_before"),
        greedy_accuracy=mean("greedy_accuracy"),
        standard_error=mean("standard_error"),
        problems=round(mean("problems")),
        reward=mean("final_reward"),
        peak_memory_bytes=max(result.peak_memory_bytes for result in results),
        train_seconds=mean("train_seconds"),
        tokens=round(mean("tokens")),
    )


def _curve(group: _Group, window: int) -> Curve | None:
    """None where the finished runs of the group have fewer than `window` steps in common."""
    recorded = [dict(run.rewards) for run in group.runs if run.result is not None and run.rewards]
    steps = sorted(set.intersection(*map(set, recorded))) if recorded else []
    if len(steps) < window:
        return None
    rewards = np.array([[run[step] for step in steps] for run in recorded])
    values = sliding_window_view(rewards, window, axis=1).mean(axis=-1)  # (seeds, steps)
    low = high = None
    if len(recorded) > 1:
        low, high = bootstrap_interval(values, CURVE_RESAMPLES)
    shown = np.array(steps[window - 1 :])
    return Curve(group.label, group.setting, len(recorded), window, shown, values.mean(axis=0), low, high)
