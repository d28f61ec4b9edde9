"""Expands a Hydra command line into plain configurations; composes each set of choices once."""

import copy
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from efficient_rl.config.options import config_folder, group_options, items_of
from efficient_rl.errors import ConfigError, did_you_mean

EXTENSIBLE = ("model", "prompt", "strategy", "task", "reward", "curriculum", "grpo", "eval")
OPEN = (*EXTENSIBLE, "search.sampler", "search.pruner")  # below these a command line may add arguments of the targets
RENAMED = re.compile(r"^launcher\.(?=(notify|stall_minutes|requeue_stalled|retries|max_gpu_hours)=)")  # in 0.1
REFERENCE = re.compile(r"\$\{([\w.]+)\}")
Tree = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """One composed configuration without open references, and the option chosen in each group."""

    config: Tree
    choices: Mapping[str, str]


@dataclass(frozen=True)
class Span:
    """A range or interval of numbers, both ends included; `step` is None where it has none."""

    low: float
    high: float
    step: float | None
    log: bool

    @property
    def whole(self) -> bool:
        """Whether it holds whole numbers only."""
        return all(type(end) is int for end in (self.low, self.high, self.step or 1))


@dataclass(frozen=True)
class Axis:
    """One override with all values it takes; those of an interval, in `span`, have no list."""

    key: str
    values: Sequence[Any]
    composed: bool  # Hydra must compose it: a group choice, or an override with a + or ~ prefix
    text: str
    swept: bool = False
    span: Span | None = None


class Composer:
    """Composes the shipped options and those in `extra_folder`; each set of choices once."""

    def __init__(self, extra_folder: str | None = None) -> None:
        self._folder = extra_folder
        self._search = (f"hydra.searchpath=[file://{Path(extra_folder).resolve()}]",) if extra_folder else ()
        self._cache: dict[tuple[str, ...], tuple[Tree, dict[str, str]]] = {}
        with _hydra():
            listed = GlobalHydra.instance().config_loader().list_groups("")
        self._groups = {group for group in listed if group not in ("hydra", "_internal")}
        if extra_folder:
            self.choose(())

    def axes(self, arguments: Sequence[str]) -> list[Axis]:
        """The overrides with their values; ConfigError for options that no group has."""
        axes = [_axis(override, self._groups) for override in _parse(arguments)]
        _check_options(axes, self._groups, self._folder)
        return axes

    def choose(self, overrides: tuple[str, ...]) -> tuple[Tree, dict[str, str]]:
        """The unresolved tree and the choices for a set of overrides that Hydra composes."""
        if overrides not in self._cache:
            try:
                with _hydra():
                    config = compose("config", [*self._search, *overrides], return_hydra_config=True)
            except (HydraException, OmegaConfBaseException) as error:
                raise ConfigError(str(error).splitlines()[0]) from error
            choices = {k: str(v) for k, v in config.hydra.runtime.choices.items() if k in self._groups}
            tree = OmegaConf.to_container(config, resolve=False)
            assert isinstance(tree, dict)
            del tree["hydra"]
            self._cache[overrides] = ({str(key): value for key, value in tree.items()}, choices)
        return self._cache[overrides]

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
        return Point(_resolved(config), choices), unused

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
    composer = Composer(extra_folder)
    axes = composer.axes(arguments)
    if endless := [axis.text for axis in axes if axis.span is not None and not axis.values]:
        raise ConfigError(f"{endless[0]!r} is no sweep over values; use a,b,c, choice(...) or range(...), or add search=tpe")
    unused = {axis.key for axis in axes if not axis.composed}
    points = []
    for values in itertools.product(*(axis.values for axis in axes)):
        point, without = composer.point(list(zip(axes, values, strict=True)))
        unused &= without
        points.append(point)
    for key in sorted(unused):
        raise composer.unknown(key)
    return points


def _parse(arguments: Sequence[str]) -> list[Override]:
    try:
        return [OverridesParser.create().parse_override(RENAMED.sub("watch.", argument)) for argument in arguments]
    except HydraException as error:
        raise ConfigError(
            f"{' '.join(str(error).split())}; an override reads key=value, quoted where the shell needs it"
        ) from error


def _axis(override: Override, groups: set[str]) -> Axis:
    key = override.key_or_group
    text = str(override.input_line)
    _check_prefix(override, key, text)
    prefixed = override.is_add() or override.is_force_add() or override.is_delete() or override.package is not None
    if not override.is_sweep_override():
        composed = prefixed or key in groups
        return Axis(key, [text if composed else override.value()], composed, text)
    span = _span(override, text)
    if isinstance(override.value(), IntervalSweep):
        if prefixed or key in groups:
            raise ConfigError(f"{text!r}: an interval holds numbers; {key} needs choice(...)")
        return Axis(key, (), False, text, True, span)
    try:
        names = list(override.sweep_string_iterator())
    except (HydraException, StopIteration, RuntimeError) as error:
        raise ConfigError(f"{text!r} is no sweep over values; use a,b,c, choice(...) or range(...)") from error
    if not names:
        raise ConfigError(f"{text!r} names no value; widen the range")
    if prefixed or key in groups:
        prefix = text.split("=")[0]
        return Axis(key, [f"{prefix}={name}" for name in names], True, text, True)
    parser = OverridesParser.create()
    return Axis(key, [parser.parse_override(f"{key}={name}").value() for name in names], False, text, True, span)


def _span(override: Override, text: str) -> Span | None:
    """The numbers of a range or an interval, from small to large."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        ends, step = (value.start, value.end), None
    elif isinstance(value, RangeSweep):
        numbers = [*value.range()]
        if not numbers:
            return None
        ends, step = (numbers[0], numbers[-1]), abs(value.step)
    else:
        return None
    if unknown := sorted(value.tags - {"log"}):
        raise ConfigError(f"{text!r}: unknown tag {unknown[0]!r}; valid: log")
    return Span(min(ends), max(ends), step, "log" in value.tags)


def _check_prefix(override: Override, key: str, text: str) -> None:
    """Refuse what Hydra would add or delete without any effect on a run."""
    if override.package is not None:
        raise ConfigError(f"{text!r} names a package; give every group its own place")
    if (override.is_add() or override.is_force_add()) and not any(f"{key}.".startswith(f"{each}.") for each in OPEN):
        raise ConfigError(f"nothing reads {key!r}; + adds a key only below {', '.join(OPEN)}")
    if override.is_delete() and not key.startswith("reward."):
        raise ConfigError(f"{text!r} deletes what every run needs; only a term of reward can be left out")


def swept_keys(arguments: Sequence[str]) -> list[str]:
    """The keys of those overrides that take several values."""
    return [override.key_or_group for override in _parse(arguments) if override.is_sweep_override()]


def override_key(argument: str) -> str:
    """The key that an override sets."""
    return str(_parse([argument])[0].key_or_group)


def _check_options(axes: Iterable[Axis], groups: set[str], folder: str | None) -> None:
    options = group_options(folder)
    for axis in axes:
        for value in axis.values if axis.key in groups else ():
            name = str(value).partition("=")[2]
            if name not in options.get(axis.key, [name]) and not str(value).startswith("~"):
                raise ConfigError(f"unknown {axis.key} {name!r}; {did_you_mean(name, options[axis.key])}")


def _unknown_key(key: str, trees: Iterable[Tree]) -> str:
    parent, _, name = key.rpartition(".")
    siblings: set[str] = set()
    for tree in trees:
        node = _get(tree, parent) if parent else tree
        siblings |= set(node) if isinstance(node, dict) else set()
    if not siblings:
        return f"unknown key {key!r}; {did_you_mean(key.split('.')[0], next(iter(trees)))}"
    visible = [sibling for sibling in siblings if sibling != "_target_"]
    return f"unknown key {key!r}; {did_you_mean(name, visible)}"


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
    # Plain references are replaced here: OmegaConf takes 10 ms a configuration, a hundred times as long.
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
        raise ConfigError(str(error).splitlines()[0]) from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def _strings(node: Any) -> Iterator[tuple[Any, Any, str]]:
    """Every string with a reference: its container, its key and itself."""
    for key, value in items_of(node):
        if isinstance(value, str) and "${" in value:
            yield node, key, value
        else:
            yield from _strings(value)
