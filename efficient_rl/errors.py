"""The error that a bad request raises, and the words for it. Imports nothing of ours."""

import difflib
from collections.abc import Collection, Iterable
from typing import Any


class ConfigError(ValueError):
    """A request that names something unknown or out of range; says the value, its bound and a remedy."""


class SchedulerError(RuntimeError):
    """A command of the cluster's scheduler is missing, failed or did not answer; the message quotes it."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """A half sentence with the nearest of the valid names, and all of them."""
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return f"{guess}valid: {', '.join(names)}"


def require(condition: bool, key: str, value: Any, bound: str) -> None:
    """Raise a ConfigError that names the value and its bound, unless the condition holds."""
    if not condition:
        raise ConfigError(f"{key}={value!r} {bound}")


def require_known(key: str, value: str, valid: Collection[str]) -> None:
    """Raise a ConfigError that lists the valid names, unless the value is one of them."""
    if value not in valid:
        raise ConfigError(f"{key}={value!r} is not known; {did_you_mean(value, valid)}")
