"""Reads sweeps/claims/*.yaml: what a publication says, which runs test it, and which numbers would bear it out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import yaml

from analysis.data.load import ReportError, suggest

Kind = Literal["ratio", "difference", "value"]
KINDS: Mapping[str, str] = {"ratio": " / ", "difference": " - ", "value": ""}
MEASURES = (
    "accuracy",
    "gain",
    "training seconds",
    "peak memory",
    "tokens",
    "changed weights",
    "changed weights in bfloat16",
    "changed matrices",
)
AT_DIFFICULTY, BEST = "accuracy at difficulty ", "best "  # followed by a difficulty, by a setting


@dataclass(frozen=True)
class Check:
    """A number that must lie within bounds: of one arm, or a ratio or difference of two. Shares of 1, bytes, seconds."""

    measure: str
    kind: Kind
    first: str
    second: str | None
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """The lowest and the highest value that bears the claim out."""
        return self.at_least if self.above is None else self.above, self.at_most


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


def read_claims(folder: Path) -> list[Claim]:
    """The claims of all files of a folder, by name. ReportError names the file that is wrong, and what in it."""
    found = [read_claim(path) for path in sorted(folder.glob("*.yaml"))]
    if not found:
        raise ReportError(f"no claim in {folder}; each is a sweep file with a part `claim:`")
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
        raise ReportError(f"{path}: {error} is missing") from error
    except (OSError, yaml.YAMLError, TypeError, ValueError) as error:
        raise ReportError(f"{path}: {' '.join(str(error).split())}") from error


def _parse(name: str, question: str, content: Mapping[str, Any]) -> Claim:
    valid = {field.name for field in fields(Claim)} - {"name", "question"}
    if unknown := sorted(set(map(str, content)) - valid):
        raise ValueError(f"unknown key {unknown[0]!r}; {suggest(unknown[0], valid)}")
    arms, checks = content["arms"], content["checks"]
    if not isinstance(arms, dict) or not all(isinstance(part, str) for pair in arms.items() for part in pair):
        raise ValueError("arms must be names with filter rules")
    if not isinstance(checks, list) or not checks or not all(isinstance(check, dict) for check in checks):
        raise ValueError("checks must be a list with at least one check")
    tuned = content.get("tuned")
    parsed = tuple(_check(check, list(arms)) for check in checks)
    if tuned is None and (best := next((check for check in parsed if check.measure.startswith(BEST)), None)):
        raise ValueError(f"the measure {best.measure!r} needs `tuned: {best.measure.removeprefix(BEST)}`")
    return Claim(name, question, str(content["source"]), str(content["said"]), arms, parsed, tuned)


def _check(content: Mapping[str, Any], arms: Sequence[str]) -> Check:
    kinds = [kind for kind in KINDS if kind in content]
    if len(kinds) != 1:
        raise ValueError(f"a check has one of {', '.join(KINDS)}, not {dict(content)!r}")
    kind = kinds[0]
    valid = {"measure", kind, "at_least", "above", "at_most"}
    if unknown := sorted(set(map(str, content)) - valid):
        raise ValueError(f"unknown key {unknown[0]!r} of a check; {suggest(unknown[0], valid)}")
    measure, bounds = (
        str(content["measure"]),
        {key: content[key] for key in ("at_least", "above", "at_most") if key in content},
    )
    if measure not in MEASURES and not measure.startswith((AT_DIFFICULTY, BEST)):
        raise ValueError(f"unknown measure {measure!r}; {suggest(measure, (*MEASURES, f'{AT_DIFFICULTY}4', f'{BEST}KEY'))}")
    if not bounds or ("at_least" in bounds and "above" in bounds):
        raise ValueError(f"{measure}: a check has at_least or above, at_most, or a lower and an upper bound")
    if bad := next((value for value in bounds.values() if type(value) not in (int, float) or not isfinite(value)), None):
        raise ValueError(f"{measure}: the bound {bad!r} must be a number")
    named = str(content[kind]).split(KINDS[kind]) if KINDS[kind] else [str(content[kind])]
    if unknown := [name for name in named if name not in arms]:
        raise ValueError(f"{kind} {content[kind]!r}: unknown arm {unknown[0]!r}; {suggest(unknown[0], arms)}")
    if len(named) != (1 if kind == "value" else 2):
        raise ValueError(f"{kind} {content[kind]!r} must name two arms, as in 'one{KINDS[kind]}other'")
    return Check(measure, kind, named[0], named[1] if len(named) == 2 else None, **bounds)  # type: ignore[arg-type]
