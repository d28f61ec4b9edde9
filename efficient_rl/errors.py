"""The error that a bad request raises, and the checks that raise it. Imports nothing of ours."""

import difflib
import math
import sys
import types
import typing
from collections.abc import Collection, Iterable
from dataclasses import fields
from typing import Any


class ConfigError(ValueError):
    """A request with an unknown name or a value out of range; says value, bound and remedy."""


class SchedulerError(RuntimeError):
    """A command of the scheduler is missing, failed or did not answer; the message quotes it."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """A half sentence with the nearest of the valid names, whatever the case, and all of them."""
    names = sorted(valid)
    if not names:
        return "there is none that could be given"
    listed = f"valid: {', '.join(names)}"
    lower = {valid_name.lower(): valid_name for valid_name in names}
    near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    return f"did you mean {lower[near[0]]!r}? {listed}" if near else listed


def require(condition: bool, key: str, value: Any, bound: str) -> None:
    """Raise a ConfigError that names the value and its bound, unless the condition holds.

    `key` is the setting's dotted name with its prefix, such as `launcher.workers`.
    """
    if not condition:
        raise ConfigError(f"{key}={value!r} {bound}")


def require_known(key: str, value: str, valid: Collection[str]) -> None:
    """Raise a ConfigError that lists the valid names, unless the value is one of them."""
    if value not in valid:
        raise ConfigError(f"{key}={value!r} is not known; {did_you_mean(value, valid)}")


def require_one_of(key: str, value: Any, valid: Iterable[Any]) -> None:
    """As `require_known`, for short lists, in their order."""
    names = list(valid)
    require(value in names, key, value, f"is not known; use one of {', '.join(names)}")


def require_whole(key: str, value: Any, low: int, remedy: str = "") -> None:
    """Raise a ConfigError unless the value is a whole number of at least `low`."""
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= low
    require(whole, key, value, f"must be a whole number of at least {low}{remedy}")


def require_above_zero(key: str, value: Any) -> None:
    """Raise a ConfigError unless the value is a number above 0."""
    require(is_number(value) and value > 0, key, value, "must be above 0")


def require_share(key: str, value: Any) -> None:
    """Raise a ConfigError unless 0 <= value < 1."""
    bound = f"must lie in 0 <= {key.rpartition('.')[2]} < 1"
    require(is_number(value) and 0 <= value < 1, key, value, bound)


def is_number(value: Any) -> bool:
    """Whether the value is a number and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def first_line(error: Exception) -> str:
    """The first line of an error's text that says something, else its type."""
    lines = filter(None, map(str.strip, str(error).splitlines()))
    return next(lines, type(error).__name__)


def check_types(section: str, instance: Any) -> None:
    """Hold a dataclass to its annotations; a whole number becomes a float where one is meant."""
    for item in fields(instance):
        value = getattr(instance, item.name)
        kinds = typing.get_args(item.type) if isinstance(item.type, types.UnionType) else (item.type,)
        allowed = [typing.get_origin(kind) or kind for kind in kinds]
        if float in allowed and type(value) is int:
            value = float(value) if abs(value) < sys.float_info.max else math.inf
            object.__setattr__(instance, item.name, value)
        if type(value) not in allowed or (type(value) is float and not math.isfinite(value)):
            names = " or ".join(kind.__name__ for kind in allowed).replace("NoneType", "null")
            raise ConfigError(f"{section}.{item.name}={value!r} must be of type {names}")
