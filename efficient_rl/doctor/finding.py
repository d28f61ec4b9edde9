"""What a check found: whether it is well, why it matters, and what mends it."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "failure"]


@dataclass(frozen=True)
class Finding:
    """One finding. A failure will stop the sweep, a warning may spoil it; `remedy` is a command or an override."""

    level: Level
    check: str
    what: str
    why: str = ""
    remedy: str = ""


def ok(check: str, what: str) -> Finding:
    """Nothing to mend."""
    return Finding("ok", check, what)
