"""Owns the space of a search: parses Hydra's sweep syntax, and samples it with a trial."""

import itertools
import json
import math
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from operator import attrgetter
from typing import Any, Protocol

from efficient_rl.config.compose import Composer, Point
from efficient_rl.config.filters import keeps
from efficient_rl.config.overrides import EXTENSIBLE, Axis, Override, parse_overrides
from efficient_rl.config.run_config import RunConfig, parse_run
from efficient_rl.errors import ConfigError
from efficient_rl.sweep.request import parse_runs

OF_A_RUN = (*EXTENSIBLE, "seed")
MOST_LISTED = 1000
PROBE = "a value that no option has"
Chosen = tuple[tuple[Axis, Any], ...]


class InfeasibleError(ConfigError):
    """A combination that cannot be run, or that a filter drops."""


class TrialLike(Protocol):
    """What proposes values: a live trial of Optuna, or a frozen one that repeats its own."""

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any: ...

    def suggest_int(self, name: str, low: int, high: int, /, *, step: int = 1, log: bool = False) -> int: ...

    def suggest_float(
        self, name: str, low: float, high: float, /, *, step: float | None = None, log: bool = False
    ) -> float: ...


@dataclass(frozen=True, eq=False)
class SearchParameter:
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
        """Listed values by Optuna's name: the value itself, the group's option, or JSON."""
        return {self._choice(value): value for value in self.axis.values}

    def _choice(self, value: Any) -> Any:
        if self.axis.composed:
            return str(value).partition("=")[2]
        return value if isinstance(value, bool | int | float | str | None) else json.dumps(value)

    def suggest(self, trial: TrialLike) -> tuple[Axis, Any]:
        """The value that the trial proposes."""
        axis, span = self.axis, self.axis.span
        if span is None:
            return axis, self.choices[trial.suggest_categorical(axis.key, list(self.choices))]
        if span.whole:
            step = int(span.step or 1)
            return axis, trial.suggest_int(axis.key, int(span.low), int(span.high), step=step, log=span.log)
        value = trial.suggest_float(axis.key, span.low, span.high, step=span.step, log=span.log)
        if span.step is None:
            return axis, value
        return axis, min(axis.values, key=lambda listed: abs(listed - value))

    def holds(self, value: Any) -> bool:
        """Whether it can be set to the value."""
        if self.axis.span is None or self.axis.values:
            return value in self.choices
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        return numeric and self.axis.span.low <= value <= self.axis.span.high

    @property
    def of_a_run(self) -> bool:
        """Whether it sets part of a run, not options that other parts read, such as `lora`."""
        return self.axis.key.lstrip("+~").split(".")[0] in OF_A_RUN

    @property
    def first(self) -> Any:
        """Its first value, the lowest of a range or interval."""
        span = self.axis.span
        if span is None:
            return self.axis.values[0]
        return int(span.low) if span.whole else span.low

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
    run. `corners` are runs that choose every option once, with the first or lowest of all values.
    """

    def __init__(self, composer: Composer, overrides: Iterable[Override], rules: Sequence[str] = ()) -> None:
        self._composer = composer
        axes = composer.axes(overrides)
        self._rules = rules
        self._fixed: Chosen = tuple((axis, axis.values[0]) for axis in axes if not axis.swept)
        self.parameters = tuple(map(SearchParameter, filter(attrgetter("swept"), axes)))
        self._options, self._values = list[SearchParameter](), list[SearchParameter]()
        for parameter in self.parameters:
            (self._options if parameter.axis.composed else self._values).append(parameter)
        self._options.sort(key=lambda option: not option.of_a_run)
        self._matters: dict[tuple[str, str], bool] = {}
        self._names: set[str] = set()
        self._check()

    def propose(self, trial: TrialLike) -> RunConfig:
        """The run that the trial proposes; InfeasibleError if invalid or filtered out."""
        chosen = self._fixed
        for option in self._options:
            if option.of_a_run or self._option_matters(chosen, option):
                chosen = (*chosen, option.suggest(trial))
        options = chosen
        for value in self._values:
            if self._value_matters(options, value):
                chosen = (*chosen, value.suggest(trial))
        return self._run(chosen)

    def searches(self, key: str) -> bool:
        """Whether the key has several values."""
        return any(parameter.axis.key == key for parameter in self.parameters)

    def size(self) -> int | None:
        """The number of distinct runs; None with an interval or above `MOST_LISTED`."""
        axes = list(map(attrgetter("axis"), self.parameters))
        if prod(len(axis.values) or math.inf for axis in axes) > MOST_LISTED:
            return None
        hashes = set()
        for values in itertools.product(*map(attrgetter("values"), axes)):
            with suppress(InfeasibleError):
                hashes.add(self._run((*self._fixed, *zip(axes, values, strict=True))).config_hash)
        return len(hashes)

    def _run(self, chosen: Chosen) -> RunConfig:
        try:
            run = parse_run(self._composer.point(chosen)[0])
        except ConfigError as error:
            raise InfeasibleError(str(error)) from error
        for rule in self._rules:
            if not keeps(rule, run.flat(), self._names):
                raise InfeasibleError(f"the filter {rule!r} drops it")
        return run

    def params(self, fixed: str | Sequence[str]) -> dict[str, Any]:
        """What Optuna receives of a trial that the user fixes by overrides."""
        try:
            texts = shlex.split(fixed) if isinstance(fixed, str) else list(fixed)
        except ValueError as error:
            raise ConfigError(f"search.fixed: {fixed!r} cannot be read ({error}); close its quotes") from error
        parameters = {parameter.axis.key: parameter for parameter in self.parameters}
        params = dict[str, Any]()
        for axis in self._composer.axes(parse_overrides(texts)):
            parameter, labels = parameters.get(axis.key), list(SearchParameter(axis).choices)
            if parameter is None or len(labels) != 1:
                keys = ", ".join(parameters)
                raise ConfigError(f"search.fixed: {axis.text!r} must give one value to a key of the space: {keys}")
            if not parameter.holds(labels[0]):
                what = f"lies outside of the space; {axis.key} is one of: {parameter}"
                raise ConfigError(f"search.fixed: {axis.text!r} {what}")
            params[axis.key] = labels[0]
        return params

    def _corners(self) -> Iterator[Point]:
        """Points that choose every option once; all else is at its first or lowest value."""
        first = {option: option.first for option in self._options}
        corners = []
        for option in self._options:
            corners += [first | {option: value} for value in option.axis.values]
        for options in corners or [first]:
            corner = options | {value: value.first for value in self._values}
            chosen = [(parameter.axis, value) for parameter, value in corner.items()]
            point, without = self._composer.point((*self._fixed, *chosen))
            self._unused &= without
            yield point

    def _check(self) -> None:
        """Refuse keys that no option has and options that cannot run; register value names."""
        self._unused = {axis.key for axis, _ in self._fixed} | {value.axis.key for value in self._values}
        self.corners = tuple(parse_runs(list(self._corners())))
        for run in self.corners:
            self._names |= set(run.flat())
        for key in sorted(self._unused):
            raise self._composer.unknown(key)

    def _value_matters(self, chosen: Chosen, value: SearchParameter) -> bool:
        """Whether the key affects the run: LoRA's rank does not without an adapter."""
        known = (_text(chosen), value.axis.key)
        if known not in self._matters:
            point, without = self._composer.point((*chosen, (value.axis, PROBE)))
            self._matters[known] = value.axis.key not in without and PROBE in json.dumps(_run_part(point))
        return self._matters[known]

    def _option_matters(self, chosen: Chosen, option: SearchParameter) -> bool:
        """Whether the options of a group that is no part of a run (`lora`) make different runs."""
        known = (_text(chosen), option.axis.key)
        if known not in self._matters:
            parts = []
            for value in option.axis.values:
                parts.append(_run_part(self._composer.point((*chosen, (option.axis, value)))[0]))
            self._matters[known] = any(part != parts[0] for part in parts)
        return self._matters[known]


def _text(chosen: Chosen) -> str:
    return " ".join(str(value) for axis, value in chosen if axis.composed)


def _run_part(point: Point) -> dict[str, Any]:
    return dict(zip(OF_A_RUN, map(point.config.__getitem__, OF_A_RUN), strict=True))
