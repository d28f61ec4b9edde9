"""Reads a sweep's YAML file (sweeps/NAME.yaml): its overrides, filters and question."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import Quote, QuotedString

from efficient_rl.config.options import config_folder, option_names
from efficient_rl.config.overrides import Override, parse_overrides
from efficient_rl.errors import ConfigError, did_you_mean

KEYS = ("claim", "filter", "overrides")


@dataclass(frozen=True)
class SweepFile:
    """What a sweep file holds; nothing where a command line names none."""

    name: str | None = None
    question: str | None = None
    overrides: tuple[Override, ...] = ()
    rules: tuple[str, ...] = ()


def find_sweep_file(given: Sequence[Override]) -> SweepFile:
    """The file that `sweep=` names, in the working directory or ours; ConfigError if invalid."""
    name = None
    for override in given:
        if override.key == "sweep" and not override.swept:
            name = override.parsed.value()
    if name is None:
        return SweepFile()
    folders = (Path("sweeps"), config_folder("sweeps"))
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return _read(folder / f"{name}.yaml", str(name).replace("/", "-"))
    valid = set().union(*map(option_names, folders))
    raise ConfigError(f"unknown sweep {str(name)!r}; {did_you_mean(str(name), valid)}")


def _read(path: Path, name: str) -> SweepFile:
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not isinstance(content.get("overrides"), dict):
        raise ConfigError(
            f"{path} needs `overrides:` with one `key: values` a line, and may have `filter:` with a list of rules"
        )
    for key in content:
        if key not in KEYS:
            raise ConfigError(f"{path}: unknown key {str(key)!r}; valid: {', '.join(KEYS)}")
    rules = content.get("filter") or []
    if isinstance(rules, str):
        rules = [rules]
    if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
        raise ConfigError(f"{path}: filter must be a rule or a list of rules, not {rules!r}")
    overrides = []
    for key, value in content["overrides"].items():
        if key in ("sweep", "filter") or not isinstance(key, str):
            raise ConfigError(f"{path}: {str(key)!r} cannot be an override here")
        overrides.append(f"{key}={_hydra_value(value)}")
    question = text.splitlines()[0].lstrip("# ").strip() if text.startswith("#") else None
    try:
        return SweepFile(name, question, tuple(parse_overrides(overrides)), tuple(rules))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _hydra_value(value: Any) -> str:
    """A YAML value in Hydra's syntax; text is taken as it stands, if it has one line."""
    if isinstance(value, str):
        return value if value.isprintable() else QuotedString(value, Quote.double).with_quotes()
    if value is None or isinstance(value, bool | int | float | list | dict):
        return json.dumps(value)
    raise ConfigError(f"a sweep file holds texts, numbers and lists, not {value!r}; put quotes around it")
