"""Owns the metrics of a finished run: name, title, unit, and its value in a result."""

from collections.abc import Mapping
from dataclasses import dataclass

CPU_SECONDS = "time/step_cpu_seconds"  # of every step, of all processes of the run; not on a GPU


@dataclass(frozen=True)
class Metric:
    """A quantity of a RunResult; `name` is used in searches, constraints and the store.

    Units are `share` (of 1), `count`, `bytes`, `seconds` and `number`. `objective`: a search may
    optimize and bound it.
    """

    name: str
    title: str
    unit: str
    attribute: str  # of RunResult
    objective: bool = True

    def value(self, result: object) -> float:
        """What the result says."""
        return float(getattr(result, self.attribute))


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy", "share", "accuracy"),
        Metric("accuracy_before", "accuracy before training", "share", "accuracy_before", objective=False),
        Metric("accuracy_gain", "gain in accuracy", "share", "gain"),
        Metric("greedy_accuracy", "greedy accuracy", "share", "greedy_accuracy"),
        Metric("pass_at_k", "pass@k", "share", "pass_at_k"),
        Metric("problems", "held-out problems", "count", "problems", objective=False),
        Metric("samples", "samples of each problem", "count", "samples", objective=False),
        Metric("reward", "reward", "number", "final_reward"),
        Metric("params/trainable", "trained parameters", "count", "trainable_params"),
        Metric("params/active", "parameters trained in a step, on average", "count", "mean_active_params"),
        Metric("memory/total_peak_bytes", "peak memory", "bytes", "highest_peak_bytes"),
        Metric("time/train_seconds", "training time", "seconds", "train_seconds"),
        Metric("time/total_seconds", "time with evaluation", "seconds", "total_seconds"),
        Metric("tokens", "training tokens", "count", "tokens"),
    )
}


def objectives() -> list[str]:
    """What a search may optimize and bound."""
    return [name for name, metric in METRICS.items() if metric.objective]
