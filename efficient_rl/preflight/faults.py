"""Collects what would end runs: each fault once, with how many runs it concerns."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from efficient_rl.config.run_config import RunConfig
from efficient_rl.errors import ConfigError

# What files, tasks and functions of users may raise.
ERRORS = (ArithmeticError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError)
Check = Callable[[RunConfig], Iterable[str]]
Key = Callable[[RunConfig], object]


@dataclass
class Faults:
    """Faults by their text, with the hashes of the runs that have them."""

    runs: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, text: str, hashes: Iterable[str]) -> None:
        self.runs[text].update(hashes)

    def refuse(self, total: int) -> None:
        """Raise a ConfigError that lists them, unless there are none; `total`: of all runs."""
        lines = self.texts(total)
        if len(lines) == 1:
            raise ConfigError(lines[0])
        if lines:
            raise ConfigError("\n  ".join([f"{len(lines)} faults, nothing was started:", *lines]))

    def texts(self, total: int) -> list[str]:
        """A line for each, with how many of `total` runs have it."""
        lines = []
        for text, hashes in self.runs.items():
            lines.append(f"{text} ({_share(len(hashes), total)})" if total > 1 else text)
        return lines


def _share(count: int, total: int) -> str:
    return f"all {total} runs" if count == total else f"{count} of {total} runs"


def find(runs: Sequence[RunConfig], checks: Iterable[tuple[Key, Check]]) -> Iterator[tuple[str, list[str]]]:
    """Each fault with the hashes of its runs; a check looks at one run of each of its kinds."""
    for key, check in checks:
        kinds = defaultdict(list)
        for run in runs:
            kinds[repr(key(run))].append(run)
        for members in kinds.values():
            with _without_warnings():
                texts = list(dict.fromkeys(check(members[0])))
            for text in texts:
                yield text, [run.config_hash for run in members]


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Inside, our loggers report errors only: the run's own log has the rest."""
    ours = logging.getLogger("efficient_rl")
    level = ours.level
    ours.setLevel(logging.ERROR)
    try:
        yield
    finally:
        ours.setLevel(level)
