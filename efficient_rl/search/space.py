"""Owns the space of a search: reads it from Hydra's sweep syntax, asks a trial for what the chosen options have."""

import itertools
import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

from efficient_rl.config.compose import EXTENSIBLE, Axis, Composer, Point
from efficient_rl.config.filters import keeps
from efficient_rl.config.run_config import RunConfig, parse_run
from efficient_rl.errors import ConfigError

OF_A_RUN = (*EXTENSIBLE, "seed")
MOST_LISTED = 1000
PROBE = "a value that no option has"
Chosen = tuple[tuple[Axis, Any], ...]


class UnfitError(ConfigError):
    """A combination that cannot be run, or that a filter drops."""


class Asked(Protocol):
    """What proposes values: a live trial of Optuna, or a frozen one that repeats its own."""

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any: ...

    def suggest_int(self, name: str, low: int, high: int, /, *, step: int = 1, log: bool = False) -> int: ...

    def suggest_float(
        self, name: str, low: float, high: float, /, *, step: float | None = None, log: bool = False
    ) -> float: ...


@dataclass(frozen=True, eq=False)
class Knob:
    """One swept override: its name in the study is its key."""

    axis: Axis

    def __post_init__(self) -> None:
        span = self.axis.span
        stepped = span is not None and span.step is not None and not (span.whole and span.step == 1)
        if span is not None and span.log and (span.low <= 0 or stepped):
            raise ConfigError(
                f"{self.axis.text!r}: a logarithmic scale needs numbers above 0, and no step but 1; use interval(...)"
            )

    @property
    def choices(self) -> dict[Any, Any]:
        """What Optuna sees of every listed value, to the value: itself, the option of a group, else its JSON."""
        if self.axis.composed:
            return {str(value).partition("=")[2]: value for value in self.axis.values}
        plain = (bool, int, float, str, type(None))
        return {value if isinstance(value, plain) else json.dumps(value): value for value in self.axis.values}

    def ask(self, trial: Asked) -> tuple[Axis, Any]:
        """The value that the trial proposes."""
        axis, span = self.axis, self.axis.span
        if span is None:
            return axis, self.choices[trial.suggest_categorical(axis.key, list(self.choices))]
        if span.whole:
            step = 1 if span.step is None else int(span.step)
            return axis, trial.suggest_int(axis.key, int(span.low), int(span.high), step=step, log=span.log)
        value = trial.suggest_float(axis.key, span.low, span.high, step=span.step, log=span.log)
        return axis, value if span.step is None else min(axis.values, key=lambda listed: abs(listed - value))

    def holds(self, value: Any) -> bool:
        """Whether the knob can be set to the value."""
        if self.axis.span is None or self.axis.values:
            return value in self.choices
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        return numeric and self.axis.span.low <= value <= self.axis.span.high

    def __str__(self) -> str:
        """Its values in words."""
        span = self.axis.span
        if span is None:
            return ", ".join(map(str, self.choices))
        scale = ", logarithmic" if span.log else ""
        return f"{span.low:g} to {span.high:g}" + (f" by {span.step:g}" if span.step else "") + scale


class Space:
    """The runs that the overrides span, without those that a filter drops.

    Options are asked for first; a value only where the chosen options have it and it reaches the
    run.
    """

    def __init__(self, arguments: Sequence[str], rules: Sequence[str] = (), extra_folder: str | None = None) -> None:
        self._composer = Composer(extra_folder)
        axes = self._composer.axes(arguments)
        self._rules = rules
        self._fixed: Chosen = tuple((axis, axis.values[0]) for axis in axes if not axis.swept)
        self.knobs = tuple(Knob(axis) for axis in axes if axis.swept)
        self._options = sorted((knob for knob in self.knobs if knob.axis.composed), key=lambda knob: not _of_a_run(knob))
        self._values = [knob for knob in self.knobs if not knob.axis.composed]
        self._matters: dict[tuple[str, str], bool] = {}
        self._names: set[str] = set()
        self._check()

    def tree(self) -> Mapping[str, Any]:
        """The configuration of the fixed overrides alone."""
        return self._composer.point(self._fixed)[0].config

    def ask(self, trial: Asked) -> RunConfig:
        """The run that the trial proposes; UnfitError where that cannot be run, or a filter drops it."""
        chosen = self._fixed
        for knob in self._options:
            if _of_a_run(knob) or self._option_matters(chosen, knob):
                chosen = (*chosen, knob.ask(trial))
        options = chosen
        for knob in self._values:
            if self._value_matters(options, knob):
                chosen = (*chosen, knob.ask(trial))
        return self._run(chosen)

    def size(self) -> int | None:
        """How many distinct runs the space has; None where it has an interval, or more combinations than `MOST_LISTED`."""
        axes = [knob.axis for knob in self.knobs]
        if prod(len(axis.values) or math.inf for axis in axes) > MOST_LISTED:
            return None
        hashes = set()
        for values in itertools.product(*(axis.values for axis in axes)):
            with suppress(UnfitError):
                hashes.add(self._run((*self._fixed, *zip(axes, values, strict=True))).config_hash)
        return len(hashes)

    def _run(self, chosen: Chosen) -> RunConfig:
        try:
            run = parse_run(self._composer.point(chosen)[0])
        except ConfigError as error:
            raise UnfitError(str(error)) from error
        for rule in self._rules:
            if not keeps(rule, run.flat(), self._names):
                raise UnfitError(f"the filter {rule!r} drops it")
        return run

    def params(self, fixed: str | Sequence[str]) -> dict[str, Any]:
        """What Optuna is told of a trial that the user fixes by overrides."""
        try:
            texts = shlex.split(fixed) if isinstance(fixed, str) else list(fixed)
        except ValueError as error:
            raise ConfigError(f"search.fixed: {fixed!r} cannot be read ({error}); close its quotes") from error
        knobs = {knob.axis.key: knob for knob in self.knobs}
        params = {}
        for axis in self._composer.axes(texts):
            knob, labels = knobs.get(axis.key), list(Knob(axis).choices)
            if knob is None or len(labels) != 1:
                raise ConfigError(
                    f"search.fixed: {axis.text!r} must give one value to a key of the space: {', '.join(knobs)}"
                )
            if not knob.holds(labels[0]):
                raise ConfigError(f"search.fixed: {axis.text!r} lies outside of the space; {axis.key} is one of: {knob}")
            params[axis.key] = labels[0]
        return params

    def example(self) -> RunConfig:
        """One run of the space, for estimates."""
        return parse_run(next(self._corners()))

    def _corners(self) -> Iterator[Point]:
        """Points in which every option is chosen once, the others at their first, and values at their first or lowest."""
        first = {knob: knob.axis.values[0] for knob in self._options}
        for options in [first | {knob: value} for knob in self._options for value in knob.axis.values] or [first]:
            chosen: Chosen = (*self._fixed, *((each.axis, value) for each, value in options.items()))
            values = [(each.axis, _first(each)) for each in self._values]
            point, without = self._composer.point((*chosen, *values))
            self._unused &= without
            yield point

    def _check(self) -> None:
        """Refuse what no option of the space knows, and options that cannot be run at all; learn the names of values."""
        self._unused = {axis.key for axis, _ in self._fixed} | {knob.axis.key for knob in self._values}
        for point in self._corners():
            self._names |= set(parse_run(point).flat())
        for key in sorted(self._unused):
            raise self._composer.unknown(key)

    def _value_matters(self, chosen: Chosen, knob: Knob) -> bool:
        """Whether the value of a key reaches the run: the rank of LoRA does not where no adapter is trained."""
        known = (_text(chosen), knob.axis.key)
        if known not in self._matters:
            point, without = self._composer.point((*chosen, (knob.axis, PROBE)))
            self._matters[known] = knob.axis.key not in without and PROBE in json.dumps(_run_part(point))
        return self._matters[known]

    def _option_matters(self, chosen: Chosen, knob: Knob) -> bool:
        """Whether the options of a group that is no part of a run (`lora`) make different runs."""
        known = (_text(chosen), knob.axis.key)
        if known not in self._matters:
            points = [self._composer.point((*chosen, (knob.axis, value)))[0] for value in knob.axis.values]
            self._matters[known] = any(_run_part(point) != _run_part(points[0]) for point in points)
        return self._matters[known]


def _of_a_run(knob: Knob) -> bool:
    return knob.axis.key.lstrip("+~").split(".")[0] in OF_A_RUN


def _first(knob: Knob) -> Any:
    span = knob.axis.span
    if span is None:
        return knob.axis.values[0]
    return int(span.low) if span.whole else span.low


def _text(chosen: Chosen) -> str:
    return " ".join(str(value) for axis, value in chosen if axis.composed)


def _run_part(point: Point) -> dict[str, Any]:
    return {key: point.config[key] for key in OF_A_RUN}
