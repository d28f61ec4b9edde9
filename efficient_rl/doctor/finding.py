"""A finding of a check: its severity, why it matters, and the fix."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "failure"]


@dataclass(frozen=True)
class Finding:
    """One finding: a failure stops the sweep, a warning may spoil it; `remedy` is a command."""

    level: Level
    check: str
    what: str
    why: str = ""
    remedy: str = ""


def ok(check: str, what: str) -> Finding:
    """Nothing to fix."""
    return Finding("ok", check, what)


def counted(number: int, noun: str) -> str:
    """`1 run`, `2 runs`, `3 processes`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}es" if noun.endswith("s") else f"{number} {noun}s"
