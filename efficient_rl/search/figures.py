"""Names what a search may optimise and bound: the figures of a result, objectives over them, and constraints."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from efficient_rl.errors import ConfigError, did_you_mean
from efficient_rl.rundir.directory import RunResult

FIGURES: Mapping[str, Callable[[RunResult], float]] = {
    "accuracy": lambda result: result.accuracy,
    "accuracy_gain": lambda result: result.accuracy - result.accuracy_before,
    "greedy_accuracy": lambda result: float(result.evaluation["greedy_accuracy"]),
    "pass_at_k": lambda result: float(result.evaluation["pass_at_k"]),
    "reward": lambda result: result.final_reward,
    "params/trainable": lambda result: result.trainable_params,
    "params/active": lambda result: result.mean_active_params,
    "memory/total_peak_bytes": lambda result: max(result.peak_memory_bytes.values(), default=0),
    "time/train_seconds": lambda result: result.train_seconds,
    "time/total_seconds": lambda result: result.total_seconds,
    "tokens": lambda result: result.tokens,
}
DIRECTIONS = ("maximize", "minimize")
RULE = re.compile(r"\s*([\w/]+)\s*(<=|>=|<|>)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True)
class Constraint:
    """A bound that a run must keep, e.g. `memory/total_peak_bytes < 24e9`."""

    text: str
    figure: str
    below: bool  # whether the figure must lie below the bound
    strict: bool
    bound: float

    def violation(self, result: RunResult) -> float:
        """0 or less where the bound is kept, else by how much it is not, as a share of the bound."""
        value = float(FIGURES[self.figure](result))
        beyond = (value - self.bound if self.below else self.bound - value) / (abs(self.bound) or 1.0)
        return math.ulp(0.0) if self.strict and value == self.bound else beyond


def parse_objectives(given: Any) -> dict[str, str]:
    """Figures with their directions, in the order given; a figure with null is left out."""
    if not isinstance(given, Mapping):
        raise ValueError(f"search.objectives={given!r} must map figures to maximize or minimize")
    objectives = {str(name): str(direction) for name, direction in given.items() if direction is not None}
    for name, direction in objectives.items():
        _known(f"search.objectives names {name!r}", name)
        if direction not in DIRECTIONS:
            raise ConfigError(f"search.objectives: {name} cannot {direction!r}; use maximize or minimize")
    if not objectives:
        raise ConfigError("search.objectives is empty; name at least one figure, e.g. {accuracy: maximize}")
    return objectives


def parse_constraints(given: Any) -> tuple[Constraint, ...]:
    """The rules as constraints; the text is taken apart and never executed."""
    rules = [given] if isinstance(given, str) else given
    if not isinstance(rules, Sequence):
        raise ValueError(f"search.constraints={given!r} must be a list of rules")
    return tuple(_parse(str(rule)) for rule in rules)


def _parse(rule: str) -> Constraint:
    match = RULE.fullmatch(rule)
    try:
        bound = float(match[3]) if match else math.nan
    except ValueError:
        bound = math.nan
    if match is None or not math.isfinite(bound):
        raise ConfigError(f"constraint {rule!r} is not a bound such as 'memory/total_peak_bytes < 24e9'")
    _known(f"constraint {rule!r} names {match[1]!r}", match[1])
    return Constraint(rule.strip(), match[1], match[2][0] == "<", len(match[2]) == 1, bound)


def _known(what: str, name: str) -> None:
    if name not in FIGURES:
        raise ConfigError(f"{what}, which no result has; {did_you_mean(name, FIGURES)}")
