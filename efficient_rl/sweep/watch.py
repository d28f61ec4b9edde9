"""The settings of conf/watch: how the sweep command watches its runs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from efficient_rl.errors import ConfigError, check_types, did_you_mean, require


@dataclass(frozen=True)
class Watch:
    """`notify`: a shell command or URL. `stall_minutes`, `max_gpu_hours`: bounds above 0, or None.

    A stalled run is restarted if `requeue_stalled`. `retries` bounds the restarts of a run, for
    whatever cause.
    """

    notify: str | None = None
    stall_minutes: float | None = None
    requeue_stalled: bool = False
    retries: int = 3
    max_gpu_hours: float | None = None

    def __post_init__(self) -> None:
        check_types("watch", self)
        for key in ("stall_minutes", "max_gpu_hours"):
            value = getattr(self, key)
            require(value is None or value > 0, f"watch.{key}", value, "must be a number above 0, or null")
        require(self.retries >= 0, "watch.retries", self.retries, "must be at least 0")

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> Self:
        """The settings of the group `watch`; ConfigError for an unknown key or a bad value."""
        for key in settings:
            if key not in KEYS:
                raise ConfigError(f"unknown key 'watch.{key}'; {did_you_mean(key, KEYS)}")
        return cls(**settings)


KEYS = tuple(item.name for item in fields(Watch))


def split_launcher(
    launcher: Mapping[str, Any], watch: Mapping[str, Any], given: Iterable[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Move keys of `watch` that a site's preset still has under `launcher`.

    Those that the command line gives (`given`) are dropped.
    """
    earlier = {key: launcher[key] for key in KEYS if key in launcher}
    if not earlier:
        return dict(launcher), dict(watch)
    for key in given:
        earlier.pop(key.removeprefix("watch."), None)
    return {key: value for key, value in launcher.items() if key not in KEYS}, {**watch, **earlier}
