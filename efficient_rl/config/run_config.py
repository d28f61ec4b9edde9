"""The typed configuration of one run, and its hash."""

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from itertools import starmap
from pathlib import Path
from typing import Any

import yaml

from efficient_rl.config.compose import Point
from efficient_rl.config.model_files import count_parameters
from efficient_rl.config.options import items_of, load_option
from efficient_rl.config.schema import (
    DATE,
    Component,
    EvalSettings,
    GRPOSettings,
    ModelConfig,
    PromptSettings,
    RewardTerm,
    local_folder,
)
from efficient_rl.errors import ConfigError, did_you_mean, is_number, require
from efficient_rl.strategies.protocol import Strategy
from efficient_rl.tasks.problem import Task

NOT_CONTENT = ("name", "parameters")
SMALL_FILE_BYTES = 16 << 20


@dataclass(frozen=True)
class RunConfig:
    """All that decides a run's result: equal ones are one run, whatever its options are called."""

    model: ModelConfig
    prompt: PromptSettings
    strategy: Component
    task: Component
    reward: tuple[RewardTerm, ...]
    curriculum: Component
    grpo: GRPOSettings
    eval: EvalSettings
    seed: int
    data: str = ""  # a digest of the local files that the tasks read

    @functools.cached_property
    def config_hash(self) -> str:
        """16 hexadecimal digits over the content, without what serves display and estimates."""
        tree = asdict(self)
        if self.eval.split == "test":
            del tree["eval"]["split"]  # keeps the hashes from before there was a `split`
        if self.prompt.date == DATE:
            del tree["prompt"]["date"]  # and from before there was a `date`
        if self.model.compute == "float32":
            del tree["model"]["compute"]  # and from before there was a `compute`
        return _hash(json.dumps(_content(tree), sort_keys=True))

    def to_yaml(self) -> str:
        """The text of `config.yaml` in the run directory."""
        return yaml.safe_dump(to_dict(self), sort_keys=False)

    def flat(self) -> dict[str, Any]:
        """Every value under its dotted name, as MLflow's parameters and filters see it."""
        return flatten(asdict(self))


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted names; arguments stand directly below a component."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if key == "reward":
            value = {term["function"]["name"]: {"weight": term["weight"], **term["function"]} for term in value}
        if key == "sets":
            value = {part["name"]: part for part in value}
        if key == "arguments":
            flat |= flatten(value, prefix)
        elif isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, tuple):
            flat[f"{prefix}{key}"] = list(value)
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _content(tree: Any) -> Any:
    if isinstance(tree, list | tuple):
        return list(map(_content, tree))
    if not isinstance(tree, dict):
        return tree
    content = {key: _content(value) for key, value in tree.items() if key not in NOT_CONTENT}
    if "arguments" in tree:  # of a class are content, whatever they are called
        content["arguments"] = tree["arguments"]
    return content


def parse_run(point: Point) -> RunConfig:
    """The typed configuration of a point; ConfigError names value, bound and remedy."""
    tree, names = point.config, point.choices
    strategy, model, grpo = dict(tree["strategy"]), dict(tree["model"]), dict(tree["grpo"])
    factor, base_rate = strategy.pop("learning_rate_factor", 1), model.pop("learning_rate", 1e-6)
    for key, value in (("model.learning_rate", base_rate), ("strategy.learning_rate_factor", factor)):
        require(is_number(value) and value > 0, key, value, "must be a number above 0")
    if grpo["learning_rate"] is None:
        grpo["learning_rate"] = base_rate * factor
    sets = _sets(tree["eval"].get("sets"), point.folder)
    run = RunConfig(
        model=_model(names["model"], model, _model_defaults(names["model"], point.folder)),
        prompt=_section(PromptSettings, "prompt", {"name": names["prompt"], **tree["prompt"]}),
        strategy=_component(names["strategy"], strategy),
        task=_component(names["task"], tree["task"]),
        reward=tuple(starmap(_term, tree["reward"].items())),
        curriculum=_component(names["curriculum"], tree["curriculum"]),
        grpo=_section(GRPOSettings, "grpo", grpo),
        eval=_section(EvalSettings, "eval", {**tree["eval"], "sets": sets}),
        seed=tree["seed"],
        data=_data_digest([tree["task"], tree["eval"].get("sets")]),
    )
    whole = type(run.seed) is int and 0 <= run.seed < 2**32
    require(whole, "seed", run.seed, "must be a whole number, 0 or above, below 2^32")
    require(bool(run.reward), "reward", {}, "has no term; name at least one function")
    _check_parts(run, point)
    return run


@functools.lru_cache(maxsize=64)
def _model_defaults(option: str, folder: str | None) -> Mapping[str, Any]:
    return load_option("model", option, folder)


def _model(option: str, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> ModelConfig:
    """The model, named and sized after what `path` holds, which need not be the option's."""
    path, given = str(values.get("path") or ""), values.get("path", "")
    require("path" not in values or given == path != "", "model.path", given, "must be a folder or a hub name")
    folder = local_folder(path) if path else None
    known: dict[str, Any] = {"name": option, "fingerprint": fingerprint(path) if path else ""}
    if path and path != defaults.get("path"):
        known["name"] = Path(values.get("gguf_file") or folder or path).name.removesuffix(".gguf")
        if values.get("parameters") == defaults.get("parameters"):
            known["parameters"] = None
    size = None if folder is None else count_parameters(folder, known["fingerprint"])
    if size is not None:
        known["parameters"] = size
    model: ModelConfig = _section(ModelConfig, "model", {**values, **known})
    return model


def _term(name: str, values: Any) -> RewardTerm:
    bound = "must name a function with _target_ and a weight"
    require(isinstance(values, dict), f"reward.{name}", values, bound)
    arguments = dict(values)
    weight = arguments.pop("weight", 1.0)
    return RewardTerm(_component(name, arguments), weight)


def _section(kind: Any, name: str, values: Mapping[str, Any]) -> Any:
    known = {item.name for item in fields(kind)}
    for key in values:
        if key not in known:
            raise ConfigError(f"unknown key {f'{name}.{key}'!r}; {did_you_mean(key, known)}")
    for item in fields(kind):
        if item.default is MISSING and item.name not in values:
            raise ConfigError(f"{name}.{item.name} is missing; add it to the option {values['name']!r} of {name}")
    return kind(**values)


def _component(name: str, arguments: Mapping[str, Any]) -> Component:
    rest = dict(arguments)
    target = rest.pop("_target_", None)
    if not isinstance(target, str):
        raise ConfigError(f"{name!r} names no class; its YAML needs a line _target_: package.module.Class")
    return Component(name, target, rest)


def _sets(named: Any, folder: str | None) -> tuple[Component, ...]:
    """Evaluation sets: a list of options of the group task, or a mapping of names to tasks."""
    if isinstance(named, list):
        named = {str(name): load_option("task", str(name), folder) for name in named}
    require(named is None or isinstance(named, dict), "eval.sets", named, "must list tasks or map names to tasks")
    return tuple(starmap(_component, sorted((named or {}).items())))


def _data_digest(tree: Any) -> str:
    """A digest of all local files that a `path` below the tree names; "" where there is none."""
    found = sorted(set(_paths(tree)))
    return _hash("".join(map(_digest, found))) if found else ""


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _paths(tree: Any) -> Iterator[Path]:
    for key, value in items_of(tree):
        if key == "path" and isinstance(value, str) and Path(value).expanduser().exists():
            yield Path(value).expanduser().resolve()
        elif isinstance(value, str) and value.startswith("path:"):
            yield from _paths({"path": value.removeprefix("path:")})
        else:
            yield from _paths(value)


def _check_parts(run: RunConfig, point: Point) -> None:
    """Build every part once: its constructor knows its ranges."""
    strategy: Strategy = _checked(run.strategy, point, "strategy")
    if (blocks := run.model.blocks) is not None:
        try:
            strategy.check_blocks(blocks)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        except AttributeError as error:
            raise ConfigError(f"strategy={run.strategy.name}: {run.strategy.target} is no strategy ({error})") from error
    _: Task = _checked(run.task, point, "task")
    _checked(run.curriculum, point, "curriculum")
    for part in run.eval.sets:
        _checked(part, point, "eval")
    for term in run.reward:
        _checked(term.function, point, "reward")


def _checked(part: Component, point: Point, group: str) -> Any:
    """The built part; where its class or arguments are wrong, the error names the file."""
    try:
        return _built(_key(part))
    except ConfigError as error:
        if isinstance(error.__cause__, ValueError):
            raise
        raise ConfigError(f"{point.file(group)}: {group}={part.name}: {error}") from error


def _key(component: Component) -> str:
    return json.dumps([component.name, component.target, component.arguments], sort_keys=True)


@functools.lru_cache(maxsize=4096)
def _built(key: str) -> Any:
    return Component(*json.loads(key)).build()


@functools.lru_cache(maxsize=64)
def fingerprint(path: str) -> str:
    """A digest of a local model folder's files, "" for a hub name."""
    folder = local_folder(path)
    if folder is None:
        if path.startswith((".", "/", "~", "package:")):
            raise ConfigError(f"model.path={path!r} is not a folder on this machine; give a folder or a hub name")
        return ""
    return _digest(folder, "*")


def _digest(path: Path, pattern: str = "**/*") -> str:
    """16 hexadecimal digits over names, sizes and contents (the ends of large files) of files."""
    digest = hashlib.sha256()
    root, below = path, sorted(path.glob(pattern))
    if path.is_file():
        root, below = path.parent, [path]
    for file in below:
        if file.name.startswith(".") or not file.is_file():
            continue
        size = file.stat().st_size
        digest.update(f"{file.relative_to(root)} {size} ".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(SMALL_FILE_BYTES))
            if size > SMALL_FILE_BYTES:
                stream.seek(-(1 << 20), 2)
                digest.update(stream.read())
    return digest.hexdigest()[:16]


def to_dict(run: RunConfig) -> dict[str, Any]:
    """Plain nested values, for YAML and JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(run)))
    return plain


def from_dict(plain: Mapping[str, Any]) -> RunConfig:
    """The run that `to_dict` wrote; ConfigError where it is damaged."""
    try:
        return RunConfig(
            model=ModelConfig(**plain["model"]),
            prompt=PromptSettings(**plain["prompt"]),
            strategy=Component(**plain["strategy"]),
            task=Component(**plain["task"]),
            reward=tuple(RewardTerm(Component(**term["function"]), term["weight"]) for term in plain["reward"]),
            curriculum=Component(**plain["curriculum"]),
            grpo=GRPOSettings(**plain["grpo"]),
            eval=EvalSettings(**{**plain["eval"], "sets": tuple(Component(**part) for part in plain["eval"]["sets"])}),
            seed=plain["seed"],
            data=plain["data"],
        )
    except (KeyError, TypeError) as error:
        raise ConfigError(f"damaged run configuration: {error}") from error
