"""Names what a search may optimise and bound: objectives over metrics, and constraints."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from efficient_rl.errors import ConfigError, did_you_mean
from efficient_rl.metrics import METRICS, objectives
from efficient_rl.rundir.result import RunResult

DIRECTIONS = ("maximize", "minimize")
RULE = re.compile(r"\s*([\w/]+)\s*(<=|>=|<|>)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True)
class Constraint:
    """A bound that a run must keep, e.g. `memory/total_peak_bytes < 24e9`."""

    text: str
    metric: str
    below: bool  # whether the metric must lie below the bound
    strict: bool
    bound: float

    def violation(self, result: RunResult) -> float:
        """At most 0 if the bound is kept, else the violation as a share of the bound."""
        value = METRICS[self.metric].value(result)
        beyond = (value - self.bound if self.below else self.bound - value) / (abs(self.bound) or 1.0)
        return math.ulp(0.0) if self.strict and value == self.bound else beyond


def parse_objectives(given: Any) -> dict[str, str]:
    """Metrics with their directions, in the order given; a metric with null is left out."""
    if not isinstance(given, Mapping):
        raise ValueError(f"search.objectives={given!r} must map metrics to maximize or minimize")
    found = {str(name): str(direction) for name, direction in given.items() if direction is not None}
    for name, direction in found.items():
        _known(f"search.objectives names {name!r}", name)
        if direction not in DIRECTIONS:
            raise ConfigError(f"search.objectives: {name} cannot {direction!r}; use maximize or minimize")
    if not found:
        raise ConfigError("search.objectives is empty; name at least one metric, e.g. {accuracy: maximize}")
    return found


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
    if name not in objectives():
        raise ConfigError(f"{what}, which no result has; {did_you_mean(name, objectives())}")
