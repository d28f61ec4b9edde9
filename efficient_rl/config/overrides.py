"""Parses the overrides of a command line with Hydra's parser: keys, values, sweeps."""

import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Quote, QuotedString, RangeSweep
from hydra.core.override_parser.types import Override as HydraOverride
from hydra.errors import HydraException

from efficient_rl.errors import ConfigError, first_line

EXTENSIBLE = ("model", "prompt", "strategy", "task", "reward", "curriculum", "grpo", "eval")
RENAMED = re.compile(r"^launcher\.(?=(notify|stall_minutes|requeue_stalled|retries|max_gpu_hours)=)")  # in 0.1
OPEN = (*EXTENSIBLE, "search.sampler", "search.pruner")  # below these a command line may add arguments of the targets
LINE_BREAK = re.compile(r"(\\?)\\n")  # in the texts of prompt: \n; but \\n is a backslash and an n


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

    @property
    def as_one(self) -> str:
        """How to write a list with commas that is meant as one text; "" for other sweeps."""
        value, (key, _, text) = self.parsed.value(), self.text.partition("=")
        if not isinstance(value, ChoiceSweep) or not value.simple_form:
            return ""
        return f", or write it as one text: {_in_shell(_as_text(key, text))}"


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
            raise _unreadable(text, first_line(error)) from error
        overrides.append(Override(str(parsed.key_or_group), text, parsed.is_sweep_override(), parsed))
    return overrides


def _unreadable(text: str, why: str) -> ConfigError:
    key, equals, value = text.partition("=")
    if "while evaluating" in why:
        return ConfigError(f"{text!r}: {why}; use a,b,c, choice(a,b), range(start,stop) or interval(low,high)")
    try:
        OverridesParser.create().parse_override(_as_text(key, value))
    except HydraException:
        equals = ""
    if not equals:
        return ConfigError(f"{text!r} cannot be read; an override reads key=value, group=option, +key=value or ~key")
    inside = "quote every such text inside [ ] or { }, and " if value.startswith(("[", "{")) else ""
    return ConfigError(
        f"{key}: the value {value!r} cannot be read ({why}); {inside}write one text with such characters in quotes: "
        f"{_in_shell(_as_text(key, value))}"
    )


def _as_text(key: str, value: str) -> str:
    return f"{key}={QuotedString(value, Quote.double).with_quotes()}"


def _in_shell(text: str) -> str:
    """The text as one word of bash, on one line."""
    if text.isprintable():
        return shlex.quote(text)
    escaped = text.replace("\\", r"\\").replace("'", r"\'")
    return f"$'{''.join(map(_printable, escaped))}'"


def _printable(letter: str) -> str:
    return letter if letter.isprintable() else f"\\u{ord(letter):04x}"


def axis_of(override: Override, options: Mapping[str, Sequence[str]]) -> Axis:
    """The values of an override; `options` of the configuration groups. Empty: ConfigError."""
    key, text, parsed = override.key, override.text, override.parsed
    _check_prefix(parsed, key, text, key in options)
    prefixed = parsed.is_add() or parsed.is_force_add() or parsed.is_delete()
    composed = (prefixed and _is_open(key)) or key in options
    if not override.swept:
        return Axis(key, [text if composed else _unescaped(key, parsed.value())], composed, text)
    span = _span(parsed, text)
    if isinstance(parsed.value(), IntervalSweep):
        if composed:
            raise ConfigError(f"{text!r}: an interval holds numbers; {key} needs choice(...)")
        return Axis(key, (), False, text, True, span)
    names = _names(override, options)
    prefix = text.split("=")[0] if composed else key
    values = [f"{prefix}={name}" for name in names]
    if composed:
        return Axis(key, values, True, text, True)
    parser = OverridesParser.create()
    read = [_unescaped(key, parser.parse_override(value).value()) for value in values]
    return Axis(key, read, False, text, True, span)


def _names(override: Override, options: Mapping[str, Sequence[str]]) -> list[str]:
    """The values of a sweep as texts; of a glob the options that match."""
    value, text = override.parsed.value(), override.text
    if isinstance(value, Glob):
        names: list[str] = value.filter(list(options.get(override.key, ())))
        listed = ", ".join(options.get(override.key, ())) or f"none, as {override.key} is no group"
        if not names:
            raise ConfigError(f"{text!r} matches no option; valid: {listed}")
        return names
    try:
        names = list(override.parsed.sweep_string_iterator())
    except (HydraException, StopIteration, RuntimeError) as error:
        raise ConfigError(f"{text!r} is no sweep over values; use a,b,c, choice(...) or range(...)") from error
    if not names:
        raise ConfigError(f"{text!r} names no value; widen the range")
    return names


def _unescaped(key: str, value: Any) -> Any:
    """The value with line breaks for `\\n`, if it is a text of the prompt."""
    if key.startswith("prompt.") and isinstance(value, str):
        return LINE_BREAK.sub(lambda found: "\\n" if found[1] else "\n", value)
    return value


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


def _check_prefix(override: HydraOverride, key: str, text: str, is_group: bool) -> None:
    """Refuse what Hydra would add or delete without any effect on a run."""
    if key.split(".")[0].split("/")[0] == "hydra":
        raise ConfigError(f"{text!r}: runs are not started by Hydra; use launcher=..., output=... or search=... instead")
    if override.package is not None:
        raise ConfigError(f"{text!r} names a package; give every group its own place")
    added = override.is_add() or override.is_force_add()
    if added and is_group:
        raise ConfigError(f"{text!r}: every run has one {key} already; write {text.lstrip('+')}")
    if override.is_add() and not _is_open(key):
        raise ConfigError(
            f"nothing reads {key!r}, or it is there already: + adds a key only below {', '.join(OPEN)}, "
            f"and {text.lstrip('+')} sets one that is there"
        )
    if override.is_delete() and not key.startswith("reward."):
        raise ConfigError(f"{text!r} deletes what every run needs; only a term of reward can be left out")


def _is_open(key: str) -> bool:
    return any(f"{key}.".startswith(f"{each}.") for each in OPEN)
