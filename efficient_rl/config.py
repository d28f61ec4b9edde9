"""The typed, range-checked configuration of one run, and its hash."""

import functools
import hashlib
import json
import math
import sys
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from efficient_rl.compose import ConfigError, Point, suggest
from efficient_rl.strategies.protocol import Strategy
from efficient_rl.tasks.problem import Task

PROMPTS = ("symbols", "plain", "chat")
DTYPES = ("auto", "float32", "bfloat16", "float16")
ATTENTION = ("auto", "eager", "sdpa", "flash_attention_2")
SAMPLERS = ("own", "continuous_batching", "vllm_colocate", "vllm_server")
LOSS_TYPES = ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo")
NOT_CONTENT = ("name", "parameters")
SMALL_FILE_BYTES = 16 << 20


def _require(condition: bool, key: str, value: Any, bound: str) -> None:
    if not condition:
        raise ConfigError(f"{key}={value!r} {bound}")


def _require_known(key: str, value: str, valid: Collection[str]) -> None:
    if value not in valid:
        raise ConfigError(f"{key}={value!r} is not known; {suggest(value, valid)}")


def check_types(section: str, instance: Any) -> None:
    """Hold every field to its annotation: whole numbers become floats where floats are meant, nothing else is converted."""
    for item in fields(instance):
        value = getattr(instance, item.name)
        kinds = typing.get_args(item.type) if isinstance(item.type, types.UnionType) else (item.type,)
        allowed = [typing.get_origin(kind) or kind for kind in kinds]
        if float in allowed and type(value) is int:
            value = float(value) if abs(value) < sys.float_info.max else math.inf
            object.__setattr__(instance, item.name, value)
        if type(value) not in allowed or (type(value) is float and not math.isfinite(value)):
            names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in allowed)
            raise ConfigError(f"{section}.{item.name}={value!r} must be of type {names}")


@dataclass(frozen=True)
class Component:
    """A variant that YAML names by class: `target` with its arguments. `name` is the option it came from, for display."""

    name: str
    target: str
    arguments: Mapping[str, Any]

    def build(self) -> Any:
        """A new object of the class; what its constructor rejects becomes a ConfigError."""
        from hydra.errors import HydraException
        from hydra.utils import instantiate

        try:
            return instantiate({"_target_": self.target, **self.arguments}, _convert_="all")
        except HydraException as error:
            cause = error.__cause__ or error
            raise ConfigError(str(cause)) from error


@dataclass(frozen=True)
class ModelConfig:
    """Where the model comes from and how it is loaded.

    `fingerprint` digests a local folder's files, "" for a hub name; `parameters` only serves estimates.
    """

    name: str
    path: str
    prompt: str
    dtype: str
    attn_implementation: str
    gguf_file: str | None = None
    system_prompt: str | None = None
    fingerprint: str = ""
    parameters: int | None = None

    def __post_init__(self) -> None:
        check_types("model", self)
        for key, valid in (("prompt", PROMPTS), ("dtype", DTYPES), ("attn_implementation", ATTENTION)):
            value = getattr(self, key)
            _require_known(f"model.{key}", value, valid)

    @property
    def folder(self) -> Path | None:
        """The local folder of the model, or None for a hub name."""
        return local_folder(self.path)

    @property
    def blocks(self) -> int | None:
        """How many transformer blocks the model has, where a local folder says so."""
        path = self.folder / "config.json" if self.folder else None
        if path is None or not path.is_file():
            return None
        blocks = json.loads(path.read_text()).get("num_hidden_layers")
        return int(blocks) if blocks is not None else None


@dataclass(frozen=True)
class GRPOSettings:
    """The knobs of GRPO under TRL's names (trl.GRPOConfig); `per_device_train_batch_size` counts completions."""

    max_steps: int
    learning_rate: float
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    num_generations: int
    num_iterations: int
    beta: float
    epsilon: float
    epsilon_high: float | None
    loss_type: str
    scale_rewards: str
    importance_sampling_level: str
    mask_truncated_completions: bool
    temperature: float
    top_p: float
    top_k: int
    max_completion_length: int
    lr_scheduler_type: str
    warmup_steps: int
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    max_grad_norm: float
    gradient_checkpointing: bool
    sampler: str
    trunk_cache_mib: int
    train_problems: int

    def __post_init__(self) -> None:
        check_types("grpo", self)
        above_zero = ("learning_rate", "epsilon", "temperature", "max_grad_norm")
        for key in above_zero:
            _require(getattr(self, key) > 0, f"grpo.{key}", getattr(self, key), "must be above 0")
        whole = ("max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "num_iterations")
        for key in (*whole, "max_completion_length", "train_problems"):
            _require(1 <= getattr(self, key) <= 10**9, f"grpo.{key}", getattr(self, key), "must be at least 1, at most 10^9")
        for key in ("beta", "top_k", "warmup_steps", "weight_decay", "trunk_cache_mib"):
            _require(getattr(self, key) >= 0, f"grpo.{key}", getattr(self, key), "must not be negative")
        for key in ("adam_beta1", "adam_beta2"):
            _require(0 <= getattr(self, key) < 1, f"grpo.{key}", getattr(self, key), "must lie in 0 <= beta < 1")
        _require(0 < self.top_p <= 1, "grpo.top_p", self.top_p, "must lie in 0 < top_p <= 1")
        _require(self.num_generations >= 2, "grpo.num_generations", self.num_generations, "must be at least 2")
        _require(
            self.epsilon_high is None or self.epsilon_high > 0, "grpo.epsilon_high", self.epsilon_high, "must be above 0"
        )
        choices = {
            "loss_type": LOSS_TYPES,
            "scale_rewards": ("group", "batch", "none"),
            "importance_sampling_level": ("token", "sequence"),
            "sampler": SAMPLERS,
            "lr_scheduler_type": ("constant", "constant_with_warmup", "linear", "cosine"),
        }
        for key, valid in choices.items():
            value = getattr(self, key)
            _require_known(f"grpo.{key}", value, valid)
        batch = self.per_device_train_batch_size * self.gradient_accumulation_steps
        if batch % self.num_generations:
            near = max(self.num_generations, batch - batch % self.num_generations)
            raise ConfigError(
                f"grpo.num_generations={self.num_generations} does not divide the batch of {batch} completions "
                f"(per_device_train_batch_size x gradient_accumulation_steps); use a batch of {near}"
            )


@dataclass(frozen=True)
class EvalSettings:
    """Held-out evaluation: `samples` completions for each of `problems` problems, also every `steps` training steps."""

    problems: int
    samples: int
    steps: int

    def __post_init__(self) -> None:
        check_types("eval", self)
        _require(self.problems >= 1, "eval.problems", self.problems, "must be at least 1")
        _require(self.samples >= 1, "eval.samples", self.samples, "must be at least 1")
        _require(self.steps >= 0, "eval.steps", self.steps, "must not be negative")


@dataclass(frozen=True)
class RewardTerm:
    """One term of the reward: a function with its weight."""

    function: Component
    weight: float

    def __post_init__(self) -> None:
        if type(self.weight) is int:
            object.__setattr__(self, "weight", float(self.weight))
        _require(type(self.weight) is float and math.isfinite(self.weight), "weight", self.weight, "must be a number")


@dataclass(frozen=True)
class RunConfig:
    """All that decides a run's result. Two equal ones are the same run, whatever the options were called."""

    model: ModelConfig
    strategy: Component
    task: Component
    reward: tuple[RewardTerm, ...]
    curriculum: Component
    grpo: GRPOSettings
    eval: EvalSettings
    seed: int

    @functools.cached_property
    def config_hash(self) -> str:
        """16 hexadecimal digits over the content; what only serves display and estimates does not count."""
        content = json.dumps(_content(asdict(self)), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def flat(self) -> dict[str, Any]:
        """Every value under its dotted name, as MLflow's parameters and filters see it."""
        return flatten(asdict(self))


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted names; a component's arguments stand directly under its name."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if key == "reward":
            value = {term["function"]["name"]: {"weight": term["weight"], **term["function"]} for term in value}
        if key == "arguments":
            flat |= flatten(value, prefix)
        elif isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def _content(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _content(value) for key, value in tree.items() if key not in NOT_CONTENT}
    return [_content(item) for item in tree] if isinstance(tree, list | tuple) else tree


def parse_run(point: Point) -> RunConfig:
    """The typed configuration of one composed point; ConfigError names value, bound and remedy of what is wrong."""
    tree, names = point.config, point.choices
    strategy_arguments = dict(tree["strategy"])
    factor = strategy_arguments.pop("learning_rate_factor", 1)
    model_arguments = dict(tree["model"])
    base_rate = model_arguments.pop("learning_rate", 1e-6)
    rate = tree["grpo"]["learning_rate"]
    for key, value in (("model.learning_rate", base_rate), ("strategy.learning_rate_factor", factor)):
        _require(type(value) in (int, float) and value > 0, key, value, "must be a number above 0")
    for name, term in tree["reward"].items():
        _require(isinstance(term, dict), f"reward.{name}", term, "must name a function with _target_ and a weight")
    run = RunConfig(
        model=_section(
            ModelConfig,
            "model",
            {"name": names["model"], **model_arguments, "fingerprint": fingerprint(str(model_arguments["path"]))},
        ),
        strategy=_component(names["strategy"], strategy_arguments),
        task=_component(names["task"], tree["task"]),
        reward=tuple(
            RewardTerm(_component(name, {k: v for k, v in term.items() if k != "weight"}), term.get("weight", 1.0))
            for name, term in tree["reward"].items()
        ),
        curriculum=_component(names["curriculum"], tree["curriculum"]),
        grpo=_section(GRPOSettings, "grpo", {**tree["grpo"], "learning_rate": base_rate * factor if rate is None else rate}),
        eval=_section(EvalSettings, "eval", tree["eval"]),
        seed=tree["seed"],
    )
    _require(
        type(run.seed) is int and 0 <= run.seed < 2**32, "seed", run.seed, "must be a whole number, 0 or above, below 2^32"
    )
    _require(bool(run.reward), "reward", {}, "has no term; name at least one function")
    _check_parts(run)
    return run


def _section(kind: Any, name: str, values: Mapping[str, Any]) -> Any:
    known = {item.name for item in fields(kind)}
    for key in values:
        if key not in known:
            raise ConfigError(f"unknown key {f'{name}.{key}'!r}; {suggest(key, known)}")
    return kind(**values)


def _component(name: str, arguments: Mapping[str, Any]) -> Component:
    rest = dict(arguments)
    target = rest.pop("_target_", None)
    if not isinstance(target, str):
        raise ConfigError(f"{name!r} names no class; its YAML needs a line _target_: package.module.Class")
    return Component(name, target, rest)


def _check_parts(run: RunConfig) -> None:
    """Build every part once: its constructor knows its ranges."""
    strategy: Strategy = _built(_key(run.strategy))
    if run.model.blocks is not None:
        try:
            strategy.check_blocks(run.model.blocks)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        except AttributeError as error:
            raise ConfigError(f"strategy={run.strategy.name}: {run.strategy.target} is no strategy ({error})") from error
    _: Task = _built(_key(run.task))
    for part in (run.curriculum, *(term.function for term in run.reward)):
        _built(_key(part))


def _key(component: Component) -> str:
    return json.dumps([component.name, component.target, component.arguments], sort_keys=True)


@functools.lru_cache(maxsize=4096)
def _built(key: str) -> Any:
    return Component(*json.loads(key)).build()


def local_folder(path: str) -> Path | None:
    """The folder that a model path names: in this package (`package:...`), on this machine, or None for a hub name."""
    if path.startswith("package:"):
        return Path(__file__).resolve().parent / path.removeprefix("package:")
    folder = Path(path).expanduser()
    return folder.resolve() if folder.is_dir() else None


@functools.lru_cache(maxsize=64)
def fingerprint(path: str) -> str:
    """A digest of a local model folder's files (of large ones their size and ends), "" for a hub name."""
    folder = local_folder(path)
    if not path:
        raise ConfigError("model.path is empty; give a folder or a hub name")
    if folder is None:
        if path.startswith((".", "/", "~", "package:")):
            raise ConfigError(f"model.path={path!r} is not a folder on this machine; give a folder or a hub name")
        return ""
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size} ".encode())
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
            strategy=Component(**plain["strategy"]),
            task=Component(**plain["task"]),
            reward=tuple(RewardTerm(Component(**term["function"]), term["weight"]) for term in plain["reward"]),
            curriculum=Component(**plain["curriculum"]),
            grpo=GRPOSettings(**plain["grpo"]),
            eval=EvalSettings(**plain["eval"]),
            seed=plain["seed"],
        )
    except (KeyError, TypeError) as error:
        raise ConfigError(f"damaged run configuration: {error}") from error
