"""Sums up the metrics that all attempts of a run logged."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from efficient_rl.metrics import CPU_SECONDS

LAST_SHARE = 10  # the final reward is the mean of the last tenth of the steps


@dataclass(frozen=True)
class RunTotals:
    """The part of `RunResult` that spans attempts; fields mean the same there."""

    final_reward: float
    mean_active_params: float
    peak_memory_bytes: dict[str, int]
    memory_parts_bytes: dict[str, int]
    phase_seconds: dict[str, float]
    train_seconds: float
    train_cpu_seconds: float | None
    tokens: int
    sampler_gap: float | None


def totals(lines: Iterable[Mapping[str, float]]) -> RunTotals:
    """What these metrics add up to: the sum of seconds, the most of bytes and tokens."""
    columns: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        for name, value in line.items():
            columns[name].append(value)
    seconds, peaks, parts = {}, {}, {}
    for name, values in columns.items():
        if phase := _between("time/", name, "_seconds"):
            seconds[phase] = sum(values)
        elif phase := _between("memory/", name, "_peak_bytes"):
            peaks[phase] = int(max(values))
        elif part := _between("memory/", name, "_bytes"):
            parts[part] = int(max(values))
    rewards, gaps = columns["train/reward"], columns["train/sampler_gap"]
    cpu_seconds = seconds.pop("step_cpu", None)
    if len(columns[CPU_SECONDS]) < len(columns["time/step_seconds"]):
        cpu_seconds = None  # an attempt of an earlier version did not record them
    return RunTotals(
        final_reward=fmean(rewards[-max(1, len(rewards) // LAST_SHARE) :] or [0.0]),
        mean_active_params=fmean(columns["params/active"] or [0.0]),
        peak_memory_bytes=peaks,
        memory_parts_bytes=parts,
        train_seconds=seconds.pop("step", 0.0),
        train_cpu_seconds=cpu_seconds,
        phase_seconds=seconds,
        tokens=int(max(columns["train/tokens"], default=0.0)),
        sampler_gap=fmean(gaps) if gaps else None,
    )


def _between(prefix: str, name: str, suffix: str) -> str:
    """The name without both; empty where it has not both."""
    return name[len(prefix) : -len(suffix)] * (name.startswith(prefix) and name.endswith(suffix))
