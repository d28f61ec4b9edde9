"""Expands a Hydra command line into plain configurations; composes each set of choices once."""

import copy
import difflib
import functools
import itertools
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from efficient_rl.config.options import (
    check_folder,
    config_folder,
    group_options,
    items_of,
    load_option,
    option_file,
    read_option,
    unknown_option,
)
from efficient_rl.config.overrides import Axis, Override, axis_of, parse_overrides
from efficient_rl.errors import ConfigError, did_you_mean, first_line

logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # it logs what it raises
REFERENCE = re.compile(r"\$\{([\w.]+)\}")
COMPLETED = ("prompt", "lora", "grpo", "eval", "launcher", "watch", "tracking")  # groups whose options may leave keys out
BASES = {
    "model": ("local",),
    "search": ("random", "per_arm"),
}  # what stands in there, where it is not the default of config.yaml
WITH_CLASS = ("strategy", "task", "curriculum", "launcher", "search")
Tree = dict[str, Any]
SHIPPED: dict[tuple[str, ...], tuple[Tree, dict[str, str]]] = {}  # composed: files of one's own may change, these do not


@dataclass(frozen=True)
class Point:
    """One composed configuration without open references, and the option chosen in each group."""

    config: Tree
    choices: Mapping[str, str]
    folder: str | None = None  # of the user's own options

    def file(self, group: str) -> Path:
        """The file that the group's values come from."""
        return option_file(group, self.choices[group], self.folder)


class Composer:
    """Composes the shipped options and those in `extra_folder`; each set of choices once.

    Without such a folder that is once a process.
    """

    def __init__(self, extra_folder: str | None = None) -> None:
        if extra_folder is not None:
            check_folder(extra_folder)
        self._folder = extra_folder
        self._search = (f"hydra.searchpath=[file://{Path(extra_folder).resolve()}]",) if extra_folder else ()
        self._cache: dict[tuple[str, ...], tuple[Tree, dict[str, str]]] = {}
        self._options = group_options(extra_folder)
        if extra_folder:
            self.choose(())

    def axes(self, overrides: Iterable[Override]) -> list[Axis]:
        """The overrides with their values; ConfigError for options that no group has."""
        axes = [axis_of(override, self._options) for override in overrides]
        for axis in axes:
            for value in axis.values if axis.key in self._options else ():
                self._check_option(axis.key, str(value))
        return axes

    def _check_option(self, group: str, choice: str) -> None:
        name = choice.partition("=")[2]
        if choice.startswith("~"):
            return
        if name not in self._options[group]:
            raise unknown_option(group, name, self._folder)
        if self._folder:
            check_classes(option_file(group, name, self._folder))

    def choose(self, overrides: tuple[str, ...]) -> tuple[Tree, dict[str, str]]:
        """The unresolved tree and the choices for a set of overrides that Hydra composes."""
        if overrides not in self._cache:
            known = {} if self._folder else SHIPPED
            if overrides not in known:
                known[overrides] = self._compose(overrides)
            self._cache[overrides] = known[overrides]
        return self._cache[overrides]

    def _compose(self, overrides: tuple[str, ...]) -> tuple[Tree, dict[str, str]]:
        try:
            with _hydra():
                config = compose("config", [*self._search, *overrides], return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(first_line(error)) from error
        except yaml.YAMLError as error:
            raise ConfigError(" ".join(str(error).split())) from error
        choices = {k: str(v) for k, v in config.hydra.runtime.choices.items() if k in self._options}
        tree = OmegaConf.to_container(config, resolve=False)
        assert isinstance(tree, dict)
        del tree["hydra"]
        tree = _completed({str(key): value for key, value in tree.items()})
        for group in WITH_CLASS:
            if "_target_" not in tree.setdefault(group, {}):
                file = option_file(group, choices[group], self._folder)
                raise ConfigError(f"{file} names no class; it needs a line _target_: package.module.Class")
        return tree, choices

    def point(self, chosen: Sequence[tuple[Axis, Any]]) -> tuple[Point, set[str]]:
        """The configuration for one value of each axis, and the keys that it has no place for."""
        tree, choices = self.choose(tuple(str(value) for axis, value in chosen if axis.composed))
        config = copy.deepcopy(tree)
        unused = set()
        for axis, value in chosen:
            if not axis.composed and _has(config, axis.key):
                _set(config, axis.key, value)
            elif not axis.composed:
                unused.add(axis.key)
        return Point(_resolved(config), choices, self._folder), unused

    def points(self, overrides: Iterable[Override]) -> list[Point]:
        """Every combination of the overrides' values; the last varies fastest, as in Hydra."""
        axes = self.axes(overrides)
        for axis in axes:
            if axis.span is not None and not axis.values:
                raise ConfigError(
                    f"{axis.text!r} is no sweep over values; use a,b,c, choice(...) or range(...), or add search=tpe"
                )
        unused = {axis.key for axis in axes if not axis.composed}
        points = []
        for values in itertools.product(*(axis.values for axis in axes)):
            point, without = self.point(list(zip(axes, values, strict=True)))
            unused &= without
            points.append(point)
        for key in sorted(unused):
            raise self.unknown(key)
        return points

    def unknown(self, key: str) -> ConfigError:
        """The error that no option chosen so far has such a key."""
        return ConfigError(_unknown_key(key, [tree for tree, _ in self._cache.values()]))


@contextmanager
def _hydra() -> Iterator[None]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder("conf")), version_base="1.3"):
        yield


def expand(arguments: Sequence[str], extra_folder: str | None = None) -> list[Point]:
    """Every configuration that the overrides name, in the order of Hydra's own multirun.

    A value override that no chosen option knows raises ConfigError; one that only some know is
    inert for the others. `extra_folder` is searched for options before the shipped ones.
    """
    return Composer(extra_folder).points(parse_overrides(arguments))


def check_classes(path: Path) -> None:
    """ConfigError unless an option's file can be read and all classes that it names exist."""
    for place, target in _targets(OmegaConf.to_container(read_option(path), resolve=False)):
        try:
            get_object(target)
        except (ImportError, ValueError, HydraException) as error:
            raise ConfigError(f"{path}: {place}={target}: {' '.join(str(error).split())}") from error


def _targets(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every class path below a node, with its place."""
    for key, value in items_of(node):
        if key == "_target_" and isinstance(value, str) and "${" not in value:
            yield f"{prefix}{key}", value
        else:
            yield from _targets(value, f"{prefix}{key}.")


def _completed(tree: Tree) -> Tree:
    """The tree with a group's defaults for the keys that its option leaves out.

    They are those of the default option, if that is of the same class. What has a class and is part
    of a run (strategies, tasks, rewards, curricula) takes the defaults of its class instead.
    """
    for group, options in _default_options().items():
        values = tree.setdefault(group, {})
        for defaults in options:
            if isinstance(values, dict) and values.get("_target_") == defaults.get("_target_"):
                tree[group] = copy.deepcopy(defaults) | values
    return tree


@functools.cache
def _default_options() -> Mapping[str, list[Tree]]:
    """The contents of the options that complete those of each group."""
    chosen = dict[str, Any]()
    for entry in read_option(config_folder("conf") / "config.yaml")["defaults"]:
        if entry != "_self_":
            chosen |= entry
    names = {group: (chosen[group],) for group in COMPLETED} | BASES
    return {group: [load_option(group, option) for option in options] for group, options in names.items()}


def _unknown_key(key: str, trees: Iterable[Tree]) -> str:
    """The error for a key: where else its name is one, or else the nearest beside it."""
    parent, _, name = key.rpartition(".")
    siblings, named = set[str](), dict[str, set[str]]()
    for tree in trees:
        node = _get(tree, parent) if parent else tree
        siblings |= set(node) if isinstance(node, dict) else set()
        for dotted in _keys(tree):
            named.setdefault(dotted.rpartition(".")[2].lower(), set()).add(dotted)
    meant = name.lower().replace("-", "_")
    if meant not in named and not parent:
        near = difflib.get_close_matches(meant, named, n=1, cutoff=0.7)
        longer = [each for each in named if meant in each and len(meant) > 3]
        meant = next(iter([*near, *longer]), meant)
    if meant in named:
        return f"unknown key {key!r}; did you mean {' or '.join(map(repr, sorted(named[meant])))}?"
    if not siblings:
        return f"unknown key {key!r}; {did_you_mean(key.split('.')[0], next(iter(trees)))}"
    return f"unknown key {key!r}; {did_you_mean(name, siblings - {'_target_'})}"


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    """The dotted names of all keys below a node."""
    for key, value in items_of(node):
        if isinstance(key, str) and not key.startswith("_"):
            yield f"{prefix}{key}"
            yield from _keys(value, f"{prefix}{key}.")


def _has(tree: Tree, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    node = _get(tree, parent) if parent else tree
    return isinstance(node, dict) and name in node


def _get(tree: Tree, key: str) -> Any:
    node: Any = tree
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return None
        node = node[part]
    return node


def _set(tree: Tree, key: str, value: Any) -> None:
    *parents, name = key.split(".")
    node = tree
    for part in parents:
        node = node[part]
    if isinstance(value, dict) and isinstance(node[name], dict):
        node[name].update(value)
    else:
        node[name] = copy.deepcopy(value)


def _resolved(tree: Tree) -> Tree:
    """The tree with every `${a.b}` replaced; OmegaConf does what is more than a plain reference."""
    # Plain references are replaced here: OmegaConf takes 10 ms a configuration, 100 times as long.
    open_references = list(_strings(tree))
    if not open_references:
        return tree
    if all(REFERENCE.fullmatch(text) for _, _, text in open_references):
        for node, key, text in open_references:
            value = _get(tree, text[2:-1])
            if value is None or (isinstance(value, str) and "${" in value):
                break
            node[key] = copy.deepcopy(value)
        else:
            return tree
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(tree), resolve=True)
    except OmegaConfBaseException as error:
        place = str(error).partition("full_key: ")[2].partition("\n")[0]
        raise ConfigError(f"{place}: {first_line(error)}; write \\${{ where no reference is meant") from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def _strings(node: Any) -> Iterator[tuple[Any, Any, str]]:
    """Every string with a reference: its container, its key and itself."""
    for key, value in items_of(node):
        if isinstance(value, str) and "${" in value:
            yield node, key, value
        else:
            yield from _strings(value)
