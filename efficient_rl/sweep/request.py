"""What a sweep command asks for: its overrides, those of its sweep file, and the runs that they name."""

import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from efficient_rl.config.compose import expand, override_key, swept_keys
from efficient_rl.config.filters import keeps
from efficient_rl.config.options import config_folder
from efficient_rl.config.run_config import RunConfig, parse_run
from efficient_rl.errors import ConfigError, did_you_mean
from efficient_rl.launch.base import build_launcher
from efficient_rl.sweep.manifest import ListedRun, Manifest
from efficient_rl.sweep.watch import Watch, split_launcher

SHARED_KEYS = (
    "launcher",
    "watch",
    "tracking",
    "search",
    "output",
    "dry_run",
    "force",
    "name",
    "sweep",
    "checkpoint_steps",
    "checkpoint_minutes",
)
MAX_NAME_BYTES = 150
MAX_DERIVED_NAME = 80  # characters


@dataclass(frozen=True)
class Request:
    """What the command line asks for. `settings` are the keys that do not belong to a single run."""

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

    def folder(self, run: RunConfig) -> Path:
        """The directory of one run."""
        return self.outputs / "runs" / run.config_hash

    def manifest(self, runs: Iterable[RunConfig], labels: Mapping[str, str], detaches: bool) -> Manifest:
        """The manifest that lists these runs."""
        listed = [ListedRun(run.config_hash, labels[run.config_hash], run.flat()) for run in runs]
        return Manifest(self.name, self.command, self.question, detaches, tuple(listed))


@dataclass(frozen=True)
class Overrides:
    """The overrides of a command line and of the sweep file that it names.

    `given` are the command line's own, `rules` the filters, `command` is the whole command again.
    """

    arguments: tuple[str, ...]
    rules: tuple[str, ...]
    given: tuple[str, ...]
    command: str
    question: str | None
    file_name: str | None

    @property
    def searches(self) -> bool:
        """Whether they name a search."""
        return any(text.startswith("search=") and text not in ("search=none", "search=null") for text in self.arguments)


def read_overrides(overrides: Sequence[str], multirun: bool, extra_folder: str | None = None) -> Overrides:
    """The overrides put in order; ConfigError where several values are given for what takes one."""
    rules = [argument.removeprefix("filter=") for argument in overrides if argument.startswith("filter=")]
    given = [argument for argument in overrides if not argument.startswith("filter=")]
    filed, file_rules, question, file_name = _sweep_file(given)
    keys = {override_key(argument) for argument in given}
    if "filter" in keys:
        raise ConfigError("a filter reads 'filter=strategy.k < 3'")
    arguments = [*(argument for argument in filed if override_key(argument) not in keys), *given]
    swept = swept_keys(arguments)
    if swept and not multirun and file_name is None:
        raise ConfigError(f"{swept[0]} takes several values; add -m for a sweep over them")
    if shared := [key for key in swept if key.split(".")[0] in SHARED_KEYS]:
        raise ConfigError(f"{shared[0]} is one for the whole sweep; give it a single value")
    options = ["--config-dir", extra_folder] if extra_folder else []
    return Overrides(
        arguments=tuple(arguments),
        rules=(*file_rules, *rules),
        given=(*given, *(f"filter={rule}" for rule in rules)),
        command=shlex.join(["python", "-m", "efficient_rl.sweep", *(["-m"] if multirun else []), *options, *overrides]),
        question=question,
        file_name=file_name,
    )


def read_request(overrides: Sequence[str], multirun: bool, extra_folder: str | None = None) -> Request:
    """Everything that the overrides name, checked; ConfigError says what is wrong with them."""
    return plan_request(read_overrides(overrides, multirun, extra_folder), extra_folder)


def plan_request(asked: Overrides, extra_folder: str | None = None) -> Request:
    """The request for every run that the overrides name, without those that a filter drops."""
    points = expand(asked.arguments, extra_folder)
    runs, dropped = _filtered([parse_run(point) for point in points], asked.rules)
    return make_request(asked, points[0].config, runs, dropped)


def make_request(asked: Overrides, tree: Mapping[str, Any], runs: Sequence[RunConfig], dropped: int) -> Request:
    """The request for these runs, with the settings of the composed tree, checked."""
    settings = {key: tree[key] for key in SHARED_KEYS}
    given = map(override_key, asked.arguments)
    settings["launcher"], settings["watch"] = split_launcher(tree["launcher"], tree["watch"], given)
    if not asked.searches and (unread := set(settings["search"] or {}) - {"_target_"}):
        raise ConfigError(f"search.{min(unread)} is read with search=<method> only, e.g. search=pareto")
    _check_settings(settings)
    return Request(
        name=settings["name"] or sweep_name(asked.given, asked.file_name),
        question=asked.question,
        command=asked.command,
        runs=tuple(runs),
        dropped=dropped,
        settings=settings,
    )


def sweep_name(overrides: Sequence[str], file_name: str | None = None) -> str:
    """A name for files and reports, from the sweep file and the overrides of runs; a long one ends in a digest."""
    keys = {text: text.split("=")[0].lstrip("+~") for text in overrides}
    # search=tpe is part of the name, search.trials is not: a search with more trials is the same search.
    told = [text for text, key in keys.items() if key == "search" or key.split(".")[0] not in SHARED_KEYS]
    told = [file_name, *told] if file_name else told
    name = re.sub(r"[^A-Za-z0-9_.,=-]+", "-", "_".join(told)).translate(str.maketrans(",=", "--")).strip("-") or "default"
    if len(name) <= MAX_DERIVED_NAME:
        return name
    return f"{name[: MAX_DERIVED_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _sweep_file(given: Sequence[str]) -> tuple[list[str], list[str], str | None, str | None]:
    """Overrides, filters, question and name of the file that `sweep=` names; nothing without one."""
    name = next((argument.removeprefix("sweep=") for argument in given if argument.startswith("sweep=")), None)
    if name is None or name == "null":
        return [], [], None, None
    folders = (Path("sweeps"), config_folder("sweeps"))
    found = next((path for folder in folders if (path := folder / f"{name}.yaml").is_file()), None)
    if found is None:
        valid = {str(p.relative_to(folder).with_suffix("")) for folder in folders for p in folder.glob("**/*.yaml")}
        raise ConfigError(f"unknown sweep {name!r}; {did_you_mean(name, valid)}")
    text, overrides, rules = _read_sweep_file(found)
    question = text.splitlines()[0].lstrip("# ").strip() if text.startswith("#") else None
    return [f"{key}={_hydra_value(value)}" for key, value in overrides.items()], rules, question, name.replace("/", "-")


def _read_sweep_file(path: Path) -> tuple[str, dict[str, Any], list[str]]:
    """Text, overrides and filters of a sweep file; ConfigError says what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not isinstance(content.get("overrides"), dict):
        raise ConfigError(
            f"{path} needs `overrides:` with one `key: values` a line, and may have `filter:` with a list of rules"
        )
    if unknown := [str(key) for key in content if key not in ("overrides", "filter", "claim")]:
        raise ConfigError(f"{path}: unknown key {unknown[0]!r}; valid: claim, filter, overrides")
    rules = content.get("filter") or []
    rules = [rules] if isinstance(rules, str) else rules
    if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
        raise ConfigError(f"{path}: filter must be a rule or a list of rules, not {rules!r}")
    overrides = content["overrides"]
    if nested := [str(key) for key in overrides if key in ("sweep", "filter") or not isinstance(key, str)]:
        raise ConfigError(f"{path}: {nested[0]!r} cannot be an override here")
    return text, overrides, rules


def _hydra_value(value: Any) -> str:
    """A YAML value in Hydra's syntax; text is taken as it stands."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool | int | float | list | dict):
        return "null" if value is None else json.dumps(value)
    raise ConfigError(f"a sweep file holds texts, numbers and lists, not {value!r}; put quotes around it")


def _filtered(runs: Sequence[RunConfig], rules: Sequence[str]) -> tuple[list[RunConfig], int]:
    flat = [run.flat() for run in runs] if rules else [{} for _ in runs]
    known = {name for values in flat for name in values}
    kept = [run for run, values in zip(runs, flat, strict=True) if all(keeps(rule, values, known) for rule in rules)]
    if not kept:
        raise ConfigError(f"the filters {list(rules)} drop all {len(runs)} runs; loosen one")
    return kept, len(runs) - len(kept)


def _check_settings(settings: Mapping[str, Any]) -> None:
    for key in ("dry_run", "force"):
        if not isinstance(settings[key], bool):
            raise ConfigError(f"{key}={settings[key]!r} must be true or false")
    steps = settings["checkpoint_steps"]
    if type(steps) is not int or steps < 1:
        raise ConfigError(f"checkpoint_steps={steps!r} must be a whole number of at least 1")
    minutes = settings["checkpoint_minutes"]
    if not isinstance(minutes, int | float) or isinstance(minutes, bool) or not minutes > 0:
        raise ConfigError(f"checkpoint_minutes={minutes!r} must be a number above 0")
    if not isinstance(settings["output"], str) or not settings["output"]:
        raise ConfigError(f"output={settings['output']!r} must name a folder")
    uri = settings["tracking"]["uri"]
    if uri is not None and not isinstance(uri, str):
        raise ConfigError(f"tracking.uri={uri!r} must be a text such as sqlite:///mlflow.db, or null")
    build_launcher(settings["launcher"])
    Watch.parse(settings["watch"])
    name = settings["name"]
    if name is not None and (not isinstance(name, str) or not name or set(name) & set("/\\'\"\n") or name.startswith(".")):
        raise ConfigError(f"name={name!r} must be a text without slashes and quotes")
    if name is not None and len(name.encode()) > MAX_NAME_BYTES:
        raise ConfigError(f"name={name[:20]!r}... has {len(name.encode())} bytes; use at most {MAX_NAME_BYTES}")
