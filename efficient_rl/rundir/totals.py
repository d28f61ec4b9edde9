"""Sums up the metrics that all attempts of a run logged."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

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
    tokens: int


def totals(lines: Iterable[Mapping[str, float]]) -> RunTotals:
    """What the metrics of these lines add up to: seconds by their sum, bytes and tokens by the most of any line."""
    columns: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        for name, value in line.items():
            columns[name].append(value)
    seconds = {name: sum(values) for name, values in _between("time/", columns, "_seconds").items()}
    held = {name: int(max(values)) for name, values in _between("memory/", columns, "_bytes").items()}
    peaks = {name for name in held if name.endswith("_peak")}
    rewards, active = columns["train/reward"], columns["params/active"]
    return RunTotals(
        final_reward=fmean(rewards[-max(1, len(rewards) // LAST_SHARE) :] or [0.0]),
        mean_active_params=fmean(active or [0.0]),
        peak_memory_bytes={name.removesuffix("_peak"): held[name] for name in held if name in peaks},
        memory_parts_bytes={name: held[name] for name in held if name not in peaks},
        train_seconds=seconds.pop("step", 0.0),
        phase_seconds=seconds,
        tokens=int(max(columns["train/tokens"], default=0.0)),
    )


def _between(prefix: str, columns: Mapping[str, list[float]], suffix: str) -> dict[str, list[float]]:
    """The columns that begin and end so, by the name between."""
    found = {name: values for name, values in columns.items() if name.startswith(prefix) and name.endswith(suffix)}
    return {name.removeprefix(prefix).removesuffix(suffix): values for name, values in found.items()}
