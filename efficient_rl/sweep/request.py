"""Turns a command line and its sweep file into a request: runs and settings."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from efficient_rl.config.compose import Composer, Point, Tree
from efficient_rl.config.filters import keeps
from efficient_rl.config.overrides import Override, parse_overrides
from efficient_rl.config.run_config import RunConfig, parse_run
from efficient_rl.config.schema import Component
from efficient_rl.errors import ConfigError, require
from efficient_rl.launch.base import Launcher, build_launcher
from efficient_rl.preflight.faults import Faults
from efficient_rl.preflight.inspection import refuse_model_faults
from efficient_rl.sweep.manifest import ListedRun, Manifest
from efficient_rl.sweep.naming import SHARED_KEYS, Asked, check_name, find_name
from efficient_rl.sweep.sweep_yaml import find_sweep_file
from efficient_rl.sweep.watch import Watch, split_launcher

MAX_NAME_BYTES = 150


@dataclass(frozen=True)
class CommandLine:
    """The parsed overrides of a command and its sweep file, filters (`rules`), what names it."""

    overrides: tuple[Override, ...]
    rules: tuple[str, ...]
    asked: Asked
    command: str
    question: str | None
    extra_folder: str | None

    @property
    def searches(self) -> bool:
        """Whether it names a search."""
        named = None
        for override in self.overrides:
            if override.key == "search":
                named = override.parsed.value()
        return named not in (None, "none")

    @cached_property
    def composer(self) -> Composer:
        """What composes the configurations of this command."""
        return Composer(self.extra_folder)

    def shared_tree(self) -> Tree:
        """The configuration of the overrides that have a single value."""
        axes = self.composer.axes(override for override in self.overrides if not override.swept)
        return self.composer.point([(axis, axis.values[0]) for axis in axes])[0].config


@dataclass(frozen=True)
class Request:
    """What a command asks for. `settings` are the keys that do not belong to a single run."""

    name: str
    question: str | None
    command: str
    runs: tuple[RunConfig, ...]
    dropped: int
    settings: Mapping[str, Any]

    @property
    def outputs(self) -> Path:
        """The absolute output folder."""
        return Path(str(self.settings["output"])).resolve()

    @property
    def watch(self) -> Watch:
        """How the command watches the runs."""
        return Watch.parse(self.settings["watch"])

    @property
    def sweep_folder(self) -> Path:
        """Where the sweep's own files lie."""
        return self.outputs / "sweeps" / self.name

    def check_models(self, runs: Sequence[RunConfig], launcher: Launcher, console: Console) -> None:
        """ConfigError with what would end the runs at once, as far as their models show it."""
        if self.settings["check_models"]:
            refuse_model_faults(runs, launcher, console, self.sweep_folder)

    def folder(self, run: RunConfig) -> Path:
        return self.outputs / "runs" / run.config_hash

    def write_manifest(self, runs: Iterable[RunConfig], labels: Mapping[str, str], detaches: bool) -> None:
        listed = [ListedRun(run.config_hash, labels[run.config_hash], run.flat()) for run in runs]
        Manifest(self.name, self.command, self.question, detaches, tuple(listed)).write(self.outputs)


class Search(Protocol):
    """A search, named by `_target_` in conf/search."""

    def run(self, line: CommandLine, console: Console) -> int:
        """Do the search that the command line describes; the exit status."""


def read_command_line(texts: Sequence[str], multirun: bool, extra_folder: str | None = None) -> CommandLine:
    """The overrides, parsed and in order; ConfigError for a swept key that takes one value."""
    # Filters are not in Hydra's grammar: filter=strategy.k < 3.
    filters, others = list[str](), list[str]()
    for text in texts:
        (filters if text.startswith("filter=") else others).append(text)
    given, rules = parse_overrides(others), [text.removeprefix("filter=") for text in filters]
    keys = set(map(attrgetter("key"), given))
    if "filter" in keys:
        raise ConfigError("a filter reads 'filter=strategy.k < 3'")
    file = find_sweep_file(given)
    overrides = [override for override in file.overrides if override.key not in keys] + given
    for override in filter(attrgetter("swept"), overrides):
        if not multirun and file.name is None:
            raise ConfigError(f"{override.key} takes several values; add -m for a sweep over them{override.as_one}")
        if override.group in SHARED_KEYS:
            raise ConfigError(f"{override.key} is one for the whole sweep; give it a single value{override.as_one}")
    options = ["-m"] * multirun
    if extra_folder:
        options += ["--config-dir", extra_folder]
    return CommandLine(
        overrides=tuple(overrides),
        rules=(*file.rules, *rules),
        asked=Asked.read(texts, file.name),
        command=shlex.join(["python", "-m", "efficient_rl.sweep", *options, *texts]),
        question=file.question,
        extra_folder=extra_folder,
    )


def read_request(texts: Sequence[str], multirun: bool, extra_folder: str | None = None) -> Request:
    """The checked request for every run that the overrides name; ConfigError if invalid."""
    return plan_request(read_command_line(texts, multirun, extra_folder))


def plan_request(line: CommandLine) -> Request:
    """The request for every run that the command line names, without those that a filter drops."""
    points = line.composer.points(line.overrides)
    runs = parse_runs(points)
    kept = apply_filters(runs, line.rules)
    if not kept:
        raise ConfigError(f"the filters {list(line.rules)} drop all {len(runs)} runs; loosen one")
    return make_request(line, points[0].config, kept, len(runs) - len(kept))


def parse_runs(points: Sequence[Point]) -> list[RunConfig]:
    """The runs of the points; ConfigError with everything that is wrong with any of them."""
    runs, faults = list[RunConfig](), Faults()
    for number, point in enumerate(points):
        try:
            runs.append(parse_run(point))
        except ConfigError as error:
            faults.add(str(error), [str(number)])
    faults.refuse(len(points))
    return runs


def make_request(line: CommandLine, tree: Mapping[str, Any], runs: Sequence[RunConfig], dropped: int) -> Request:
    """The request for these runs, with the settings of the composed tree, checked."""
    settings = {key: tree[key] for key in SHARED_KEYS}
    given = map(attrgetter("key"), line.overrides)
    settings["launcher"], settings["watch"] = split_launcher(tree["launcher"], tree["watch"], given)
    unread = set(settings["search"] or {}) - {"_target_"}
    if unread and not line.searches:
        raise ConfigError(f"search.{min(unread)} is read with search=<method> only, e.g. search=pareto")
    _check_settings(settings)
    outputs, hashes = Path(str(settings["output"])).resolve(), {run.config_hash for run in runs}
    name = settings["name"]
    if name is None:
        name = find_name(outputs, line.asked, hashes)
    elif runs:
        check_name(outputs, name, hashes)
    return Request(name, line.question, line.command, tuple(runs), dropped, settings)


def build_search(line: CommandLine) -> Search:
    """The search that the command line names."""
    arguments = dict(line.shared_tree()["search"])
    search: Search = Component("search", str(arguments.pop("_target_")), arguments).build()
    return search


def apply_filters(runs: Sequence[RunConfig], rules: Sequence[str]) -> list[RunConfig]:
    """The runs that every rule keeps."""
    if not rules:
        return list(runs)
    flat = list(map(RunConfig.flat, runs))
    known = set().union(*flat)
    kept = list(zip(runs, flat, strict=True))
    for rule in rules:
        kept = [(run, values) for run, values in kept if keeps(rule, values, known)]
    return [run for run, _ in kept]


def _check_settings(settings: Mapping[str, Any]) -> None:
    for key in ("check_models", "dry_run", "force"):
        require(isinstance(settings[key], bool), key, settings[key], "must be true or false")
    steps, minutes = settings["checkpoint_steps"], settings["checkpoint_minutes"]
    whole = type(steps) is int and steps >= 1
    require(whole, "checkpoint_steps", steps, "must be a whole number of at least 1")
    number = type(minutes) in (int, float) and minutes > 0
    require(number, "checkpoint_minutes", minutes, "must be a number above 0")
    output, uri = settings["output"], settings["tracking"]["uri"]
    require(isinstance(output, str) and output != "", "output", output, "must name a folder")
    text = isinstance(uri, str | None)
    require(text, "tracking.uri", uri, "must be a text such as sqlite:///mlflow.db, or null")
    build_launcher(settings["launcher"])
    Watch.parse(settings["watch"])
    if settings["name"] is not None:
        _check_given_name(settings["name"])


def _check_given_name(name: Any) -> None:
    plain = isinstance(name, str) and name and not set(name) & set("/\\'\"\n") and not name.startswith(".")
    require(bool(plain), "name", name, "must be a text without slashes and quotes")
    size = len(name.encode())
    if size > MAX_NAME_BYTES:
        raise ConfigError(f"name={name[:20]!r}... has {size} bytes; use at most {MAX_NAME_BYTES}")
