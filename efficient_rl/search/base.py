"""The base of searches: their settings, and the way from a command line to runs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from efficient_rl.errors import ConfigError, require
from efficient_rl.launch.base import Launcher
from efficient_rl.search.loop import Limits
from efficient_rl.search.objectives import parse_objectives
from efficient_rl.sweep.naming import SHARED_KEYS
from efficient_rl.sweep.request import CommandLine, Request, make_request


@dataclass(kw_only=True)
class Search(ABC):
    """The settings of every search; conf/search/random.yaml documents the keys."""

    objectives: Mapping[str, str]
    seed: int = 0
    parallel: int | None = None
    storage: str | None = None

    def __post_init__(self) -> None:
        self.objectives = parse_objectives(self.objectives)
        check(type(self.seed) is int and self.seed >= 0, "seed", self.seed, "must be a whole number, 0 or above")
        check(self.parallel is None or is_count(self.parallel), "parallel", self.parallel, "must be at least 1, or null")
        check(self.storage is None or "://" in str(self.storage), "storage", self.storage, "must be a URL, or null")

    def run(self, line: CommandLine, console: Console) -> int:
        """Do, or with dry_run show, the search that the command line describes; the exit status."""
        request = make_request(line, line.shared_tree(), (), 0)
        if request.settings["force"]:
            raise ConfigError("a search does no run twice; use force=false, or give it another name=...")
        if request.settings["dry_run"]:
            self.show(line, request, console)
            console.print("nothing was started")
            return 0
        return self.execute(line, request, console)

    @abstractmethod
    def execute(self, line: CommandLine, request: Request, console: Console) -> int:
        """Run the search; exit status 0, 1 (a run failed) or 130 (stopped)."""

    @abstractmethod
    def show(self, line: CommandLine, request: Request, console: Console) -> None:
        """Print what a dry run shows."""

    def limits(self, launcher: Launcher, trials: int | None, hours: float | None) -> Limits:
        """How far the search goes with this launcher, which must be able to wait for the search."""
        if launcher.detach:
            raise ConfigError("launcher.detach=true leaves no one to propose the next trials; use launcher.detach=false")
        return Limits(trials, hours, self.parallel or launcher.slots)


def question_of(line: CommandLine) -> list[str]:
    """The identity of a search beside its name: the overrides of its runs, and its filters."""
    texts = [override.text for override in line.overrides if override.group not in SHARED_KEYS]
    return texts + [f"filter={rule}" for rule in line.rules]


def check(condition: bool, key: str, value: Any, bound: str) -> None:
    """Raise a ConfigError with the setting, its value and bound unless the condition holds."""
    require(condition, f"search.{key}", value, bound)


def is_count(value: Any) -> bool:
    """Whether it is a whole number of at least 1."""
    return type(value) is int and value >= 1
