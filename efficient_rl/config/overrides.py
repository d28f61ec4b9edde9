"""Parses the overrides of a command line with Hydra's parser: keys, values, sweeps."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, RangeSweep
from hydra.core.override_parser.types import Override as HydraOverride
from hydra.errors import HydraException

from efficient_rl.errors import ConfigError

EXTENSIBLE = ("model", "prompt", "strategy", "task", "reward", "curriculum", "grpo", "eval")
RENAMED = re.compile(r"^launcher\.(?=(notify|stall_minutes|requeue_stalled|retries|max_gpu_hours)=)")  # in 0.1
OPEN = (*EXTENSIBLE, "search.sampler", "search.pruner")  # below these a command line may add arguments of the targets


@dataclass(frozen=True)
class Override:
    """One override of a command line: its key, its text, and whether it takes several values."""

    key: str
    text: str
    swept: bool
    parsed: HydraOverride = field(compare=False, repr=False)

    @property
    def group(self) -> str:
        """The first part of the key."""
        return self.key.split(".")[0]


@dataclass(frozen=True)
class Span:
    """A range or interval of numbers, both ends included; `step` is None where it has none."""

    low: float
    high: float
    step: float | None
    log: bool

    @property
    def whole(self) -> bool:
        """Whether it holds whole numbers only."""
        return all(type(end) is int for end in (self.low, self.high, self.step or 1))


@dataclass(frozen=True)
class Axis:
    """One override with all values it takes; those of an interval, in `span`, have no list."""

    key: str
    values: Sequence[Any]
    composed: bool  # Hydra must compose it: a group choice, or an override with a + or ~ prefix
    text: str
    swept: bool = False
    span: Span | None = None


def parse_overrides(texts: Iterable[str]) -> list[Override]:
    """The overrides in the order given; ConfigError for what Hydra's grammar does not know."""
    parser, overrides = OverridesParser.create(), []
    for given in texts:
        text = RENAMED.sub("watch.", given)
        try:
            parsed = parser.parse_override(text)
        except HydraException as error:
            said = " ".join(str(error).split())
            raise ConfigError(f"{said}; an override reads key=value, quoted where the shell needs it") from error
        overrides.append(Override(str(parsed.key_or_group), text, parsed.is_sweep_override(), parsed))
    return overrides


def axis_of(override: Override, groups: set[str]) -> Axis:
    """The values of an override; `groups`: the configuration groups. Empty: ConfigError."""
    key, text, parsed = override.key, override.text, override.parsed
    _check_prefix(parsed, key, text)
    prefixed = parsed.is_add() or parsed.is_force_add() or parsed.is_delete() or parsed.package is not None
    composed = prefixed or key in groups
    if not override.swept:
        return Axis(key, [text if composed else parsed.value()], composed, text)
    span = _span(parsed, text)
    if isinstance(parsed.value(), IntervalSweep):
        if composed:
            raise ConfigError(f"{text!r}: an interval holds numbers; {key} needs choice(...)")
        return Axis(key, (), False, text, True, span)
    try:
        names = list(parsed.sweep_string_iterator())
    except (HydraException, StopIteration, RuntimeError) as error:
        raise ConfigError(f"{text!r} is no sweep over values; use a,b,c, choice(...) or range(...)") from error
    if not names:
        raise ConfigError(f"{text!r} names no value; widen the range")
    prefix = text.split("=")[0] if composed else key
    values = [f"{prefix}={name}" for name in names]
    if composed:
        return Axis(key, values, True, text, True)
    parser = OverridesParser.create()
    return Axis(key, [parser.parse_override(value).value() for value in values], False, text, True, span)


def _span(override: HydraOverride, text: str) -> Span | None:
    """The numbers of a range or an interval, from small to large."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        ends, step = (value.start, value.end), None
        if not -math.inf < value.start < value.end < math.inf:
            raise ConfigError(f"{text!r} is no interval; use interval(low, high) with low below high")
    elif isinstance(value, RangeSweep):
        numbers = [*value.range()]
        if not numbers:
            return None
        ends, step = (numbers[0], numbers[-1]), abs(value.step)
    else:
        return None
    if unknown := sorted(value.tags - {"log"}):
        raise ConfigError(f"{text!r}: unknown tag {unknown[0]!r}; valid: log")
    return Span(min(ends), max(ends), step, "log" in value.tags)


def _check_prefix(override: HydraOverride, key: str, text: str) -> None:
    """Refuse what Hydra would add or delete without any effect on a run."""
    if override.package is not None:
        raise ConfigError(f"{text!r} names a package; give every group its own place")
    added = override.is_add() or override.is_force_add()
    if added and not any(f"{key}.".startswith(f"{each}.") for each in OPEN):
        raise ConfigError(f"nothing reads {key!r}; + adds a key only below {', '.join(OPEN)}")
    if override.is_delete() and not key.startswith("reward."):
        raise ConfigError(f"{text!r} deletes what every run needs; only a term of reward can be left out")
