"""What every launcher can be told: whom to notify, when a run counts as stalled, how much a sweep may cost."""

from dataclasses import dataclass
from typing import Any

SHARDINGS = ("ddp", "fsdp")


@dataclass(kw_only=True)
class Supervision:
    """What the watching process does beside watching.

    `notify`: a shell command or a URL that hears of failed runs and of the sweep's end.
    `stall_minutes`: a run without a new step for so long is reported, and with `requeue_stalled`
    started again, at most `retries` times; then it has failed. Above `max_gpu_hours` a sweep needs
    a yes.
    """

    notify: str | None = None
    stall_minutes: float | None = None
    requeue_stalled: bool = False
    max_gpu_hours: float | None = None
    retries: int = 3

    def __post_init__(self) -> None:
        check(self.notify is None or isinstance(self.notify, str), "notify", self.notify, "must be a command or a URL")
        for key in ("stall_minutes", "max_gpu_hours"):
            value = getattr(self, key)
            check(value is None or (is_number(value) and value > 0), key, value, "must be a number above 0, or null")
        whole = type(self.retries) is int and self.retries >= 0
        check(whole, "retries", self.retries, "must be a whole number of at least 0")
        check(isinstance(self.requeue_stalled, bool), "requeue_stalled", self.requeue_stalled, "must be true or false")


def check(condition: bool, key: str, value: Any, bound: str) -> None:
    """Raise a ValueError that names the setting, its value and its bound, unless the condition holds."""
    if not condition:
        raise ValueError(f"launcher.{key}={value!r} {bound}")


def check_processes(processes: Any, sharding: Any) -> None:
    """Check how many processes train a run together, and what they share of it."""
    check(type(processes) is int and processes >= 1, "processes_per_run", processes, "must be a whole number of at least 1")
    check(sharding in SHARDINGS, "sharding", sharding, f"is not known; valid: {', '.join(SHARDINGS)}")


def is_number(value: Any) -> bool:
    """Whether it is a number and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)
