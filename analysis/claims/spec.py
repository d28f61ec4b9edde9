"""Reads sweeps/claims/*.yaml: the published claim, the runs that test it, the criterion."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import inf, isfinite
from pathlib import Path
from typing import Any, Literal

import yaml

from efficient_rl.errors import ConfigError, did_you_mean
from efficient_rl.metrics import METRICS, Metric

Kind = Literal["ratio", "difference", "value"]
OPERATORS: Mapping[str, str] = {"ratio": " / ", "difference": " - ", "value": ""}
BOUNDS = ("at_least", "above", "at_most")
SECONDS = "training seconds"
PLAIN: Mapping[str, Metric] = {
    "accuracy": METRICS["accuracy"],
    "gain": METRICS["accuracy_gain"],
    SECONDS: METRICS["time/train_seconds"],
    "peak memory": METRICS["memory/total_peak_bytes"],
    "tokens": METRICS["tokens"],
}
CHANGED: Mapping[str, str] = {  # attribute of WeightChanges
    "changed weights": "share",
    "changed weights in bfloat16": "rounded_share",
    "changed matrices": "matrices",
}
MEASURES = (*PLAIN, *CHANGED)
AT_DIFFICULTY, BEST = "accuracy at difficulty ", "best "  # followed by a difficulty, by a setting


@dataclass(frozen=True)
class Check:
    """A number that must lie within bounds: of one arm, or a ratio or difference of two.

    Shares are of 1, bytes and seconds as they are.
    """

    measure: str
    kind: Kind
    first: str
    second: str | None
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest value that bears the claim out; infinite without a bound."""
        given = [bound for bound in (self.at_least, self.above) if bound is not None]
        return max(given, default=-inf), inf if self.at_most is None else self.at_most

    @property
    def arms(self) -> list[str]:
        """The arms that it measures, one or two."""
        return [self.first] if self.second is None else [self.first, self.second]

    @property
    def formula(self) -> str:
        """`last quarter / full`."""
        return OPERATORS[self.kind].join(self.arms)

    @property
    def unit(self) -> str:
        """Of the measure."""
        return PLAIN[self.measure].unit if self.measure in PLAIN else "share"


@dataclass(frozen=True)
class Claim:
    """What `source` said, and how its sweep decides it. `arms` are filter rules by name.

    `tuned`: a setting that every arm has several values of. Each seed of an arm counts with the
    value that is best on its other seeds, so that no result chooses itself.
    """

    name: str
    question: str
    source: str
    said: str
    arms: Mapping[str, str]
    checks: tuple[Check, ...]
    tuned: str | None = None

    @property
    def needs_weights(self) -> bool:
        """Whether a check asks which weights changed."""
        return any(check.measure in CHANGED for check in self.checks)


def read_claims(folder: Path) -> list[Claim]:
    """The claims of all files of a folder, by name; ConfigError names the file that is wrong."""
    found = list(map(read_claim, sorted(folder.glob("*.yaml"))))
    if not found:
        raise ConfigError(f"no claim in {folder}; each is a sweep file with a part `claim:`")
    return found


def read_claim(path: Path) -> Claim:
    """The claim of one sweep file."""
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)["claim"]
        if not isinstance(content, dict):
            raise TypeError("`claim:` holds no keys")
        return _parse(path.stem, text.splitlines()[0].lstrip("# ").strip(), content)
    except KeyError as error:
        raise ConfigError(f"{path}: {error} is missing") from error
    except (OSError, yaml.YAMLError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error


def _parse(name: str, question: str, content: Mapping[str, Any]) -> Claim:
    _check_keys("", content, {field.name for field in fields(Claim)} - {"name", "question"})
    arms, checks, tuned = content["arms"], content["checks"], content.get("tuned")
    if not isinstance(arms, dict) or not _are_all(str, (*arms, *arms.values())):
        raise ValueError("arms must be names with filter rules")
    if not isinstance(checks, list) or not checks or not _are_all(dict, checks):
        raise ValueError("checks must be a list with at least one check")
    parsed = tuple(_check(check, list(arms)) for check in checks)
    for check in parsed:
        if tuned is None and check.measure.startswith(BEST):
            key = check.measure.removeprefix(BEST)
            raise ValueError(f"the measure {check.measure!r} needs `tuned: {key}`")
    return Claim(name, question, str(content["source"]), str(content["said"]), arms, parsed, tuned)


def _check(content: Mapping[str, Any], arms: Sequence[str]) -> Check:
    kinds = [kind for kind in OPERATORS if kind in content]
    if len(kinds) != 1:
        raise ValueError(f"a check has one of {', '.join(OPERATORS)}, not {dict(content)!r}")
    (kind,) = kinds
    _check_keys(" of a check", content, {"measure", kind, *BOUNDS})
    measure = str(content["measure"])
    if measure not in MEASURES and not measure.startswith((AT_DIFFICULTY, BEST)):
        valid = (*MEASURES, f"{AT_DIFFICULTY}4", f"{BEST}KEY")
        raise ValueError(f"unknown measure {measure!r}; {did_you_mean(measure, valid)}")
    operator, text = OPERATORS[kind], str(content[kind])
    named = text.split(operator) if operator else [text]
    for name in named:
        if name not in arms:
            raise ValueError(f"{kind} {text!r}: unknown arm {name!r}; {did_you_mean(name, arms)}")
    if len(named) != (2 if operator else 1):
        raise ValueError(f"{kind} {text!r} must name two arms, as in 'one{operator}other'")
    first, second = (*named, None)[:2]
    return Check(measure, kind, first, second, **_bounds(measure, content))  # type: ignore[arg-type]


def _bounds(measure: str, content: Mapping[str, Any]) -> dict[str, float]:
    bounds = {key: content[key] for key in BOUNDS if key in content}
    if not bounds or bounds.keys() >= {"at_least", "above"}:
        allowed = "at_least or above, at_most, or a lower and an upper bound"
        raise ValueError(f"{measure}: a check has {allowed}")
    for value in bounds.values():
        if type(value) not in (int, float) or not isfinite(value):
            raise ValueError(f"{measure}: the bound {value!r} must be a number")
    return bounds


def _check_keys(where: str, content: Mapping[str, Any], valid: set[str]) -> None:
    for key in sorted(map(str, content)):
        if key not in valid:
            raise ValueError(f"unknown key {key!r}{where}; {did_you_mean(key, valid)}")


def _are_all(kind: type, values: Iterable[Any]) -> bool:
    return all(isinstance(value, kind) for value in values)
