"""The typed, range-checked sections that a run's configuration is made of."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from efficient_rl.errors import ConfigError, check_types, require, require_known
from efficient_rl.rewards.verify import PLACES

PROMPTS = ("symbols", "plain", "chat")
DTYPES = ("auto", "float32", "bfloat16", "float16")
COMPUTES = ("float32", "bfloat16", "auto")
ATTENTION = ("auto", "eager", "sdpa", "flash_attention_2")
SPLITS = ("test", "validation")
SAMPLERS = ("own", "continuous_batching", "vllm_colocate", "vllm_server")
LOSS_TYPES = ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo")
DATE = "2024-07-26"  # what Llama 3's template writes where it cannot ask for the time


@dataclass(frozen=True)
class Component:
    """A class that YAML names, with its arguments; `name` is the option it came from."""

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
            place = str(error).partition("full_key: ")[2].strip()
            said = " ".join(str(cause).split()) + (f" (in {place})" if place else "")
            raise ConfigError(said) from cause


@dataclass(frozen=True)
class ModelConfig:
    """Where the model comes from, how it is loaded, and in what it computes.

    `dtype` is what the weights are loaded and trained in. `compute` is what matrix products run in
    where these are float32. `fingerprint` digests a local folder's files, "" for a hub name;
    `parameters` only serves estimates.
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
    compute: str = "float32"

    def __post_init__(self) -> None:
        check_types("model", self)
        require_known("model.prompt", self.prompt, PROMPTS)
        require_known("model.dtype", self.dtype, DTYPES)
        require_known("model.compute", self.compute, COMPUTES)
        whole = self.dtype in ("auto", "float32")
        bound = f"needs float32 weights, and model.dtype={self.dtype} already computes in {self.dtype}; use model.dtype=auto"
        require(whole or self.compute == "float32", "model.compute", self.compute, bound)
        require_known("model.attn_implementation", self.attn_implementation, ATTENTION)

    def half_products(self, on_gpu: bool, has_bfloat16: bool) -> bool:
        """Whether matrix products run in bfloat16, on such a machine, beside weights in `dtype`.

        By default only on a GPU, and there unless `dtype` is float32.
        """
        if self.compute == "float32":
            return on_gpu and has_bfloat16 and self.dtype != "float32"
        return self.compute == "bfloat16" or has_bfloat16

    @property
    def folder(self) -> Path | None:
        """The local folder of the model, or None for a hub name."""
        return local_folder(self.path)

    @property
    def blocks(self) -> int | None:
        """How many transformer blocks the model has, where a local folder says so."""
        if self.folder is None or not (self.folder / "config.json").is_file():
            return None
        try:
            blocks: int | None = json.loads((self.folder / "config.json").read_text()).get("num_hidden_layers")
        except (ValueError, AttributeError) as error:
            raise ConfigError(f"cannot load model.path={self.path}: its config.json is damaged ({error})") from error
        return blocks


Bound = tuple[Callable[[Any], bool], str]
ABOVE_ZERO: Bound = (lambda value: value > 0, "must be above 0")
COUNT: Bound = (lambda value: 1 <= value <= 10**9, "must be at least 1, at most 10^9")
NOT_NEGATIVE: Bound = (lambda value: value >= 0, "must not be negative")
BETA: Bound = (lambda value: 0 <= value < 1, "must lie in 0 <= beta < 1")
GRPO_BOUNDS: Mapping[str, Bound] = {
    **dict.fromkeys(("learning_rate", "epsilon", "temperature", "max_grad_norm", "epsilon_high"), ABOVE_ZERO),
    **dict.fromkeys(("max_steps", "per_device_train_batch_size", "gradient_accumulation_steps"), COUNT),
    **dict.fromkeys(("num_iterations", "max_completion_length", "train_problems"), COUNT),
    **dict.fromkeys(("beta", "top_k", "warmup_steps", "weight_decay", "trunk_cache_mib"), NOT_NEGATIVE),
    **dict.fromkeys(("adam_beta1", "adam_beta2"), BETA),
    "top_p": (lambda value: 0 < value <= 1, "must lie in 0 < top_p <= 1"),
    "num_generations": (lambda value: value >= 2, "must be at least 2"),
}
GRPO_CHOICES = {
    "loss_type": LOSS_TYPES,
    "scale_rewards": ("group", "batch", "none"),
    "importance_sampling_level": ("token", "sequence"),
    "sampler": SAMPLERS,
    "lr_scheduler_type": ("constant", "constant_with_warmup", "linear", "cosine"),
}


@dataclass(frozen=True)
class GRPOSettings:
    """GRPO's settings under TRL's names; `per_device_train_batch_size` counts completions."""

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
        for key, value in vars(self).items():
            if key in GRPO_CHOICES:
                require_known(f"grpo.{key}", value, GRPO_CHOICES[key])
            elif key in GRPO_BOUNDS and value is not None:
                holds, bound = GRPO_BOUNDS[key]
                require(holds(value), f"grpo.{key}", value, bound)
        batch = self.per_device_train_batch_size * self.gradient_accumulation_steps
        if batch % self.num_generations:
            near = max(self.num_generations, batch - batch % self.num_generations)
            raise ConfigError(
                f"grpo.num_generations={self.num_generations} does not divide the batch of {batch} completions "
                f"(per_device_train_batch_size x gradient_accumulation_steps); use a batch of {near}"
            )


@dataclass(frozen=True)
class PromptSettings:
    """How a problem becomes a prompt, and where the answer stands in the completion.

    `template` null: the model's own form (model.prompt). It may hold {question}, {symbols},
    {numbers}, {target} and {examples}: `shots` solved problems, each written by `example` (with
    {solution}). `chat`: the template is the user's message in the model's chat template. `lead` and
    `prefill` end the prompt; the prefill is the completion's own beginning and counts for rewards.
    A completion ends at `stop`, if one is given. `place`: where its answer is. `date`: the day that
    chat templates which write today's date are given instead.
    """

    name: str
    template: str | None
    chat: bool
    system: str | None
    lead: str
    prefill: str
    place: str
    stop: str | None
    shots: int
    example: str
    date: str = DATE

    def __post_init__(self) -> None:
        check_types("prompt", self)
        require(is_date(self.date), "prompt.date", self.date, f"must be a day such as {DATE}")
        require_known("prompt.place", self.place, PLACES)
        require(0 <= self.shots <= 1000, "prompt.shots", self.shots, "must lie in 0 to 1000")
        shown = "{examples}" in (self.template or "")
        both = "and {examples} in prompt.template need each other"
        require(bool(self.shots) == shown, "prompt.shots", self.shots, both)
        require(self.stop != "", "prompt.stop", self.stop, "must not be empty; null is none")


@dataclass(frozen=True)
class EvalSettings:
    """Held-out evaluation: `samples` completions of `problems` problems, also every `steps` steps.

    `sets` are further tasks whose held-out problems are measured too, each under its name. `split`:
    the test problems, or validation problems that are neither tested nor trained on.
    """

    problems: int
    samples: int
    steps: int
    sets: tuple[Component, ...] = ()
    split: str = "test"

    def __post_init__(self) -> None:
        check_types("eval", self)
        require(self.problems >= 1, "eval.problems", self.problems, "must be at least 1")
        require(self.samples >= 1, "eval.samples", self.samples, "must be at least 1")
        require_known("eval.split", self.split, SPLITS)
        require(self.steps >= 0, "eval.steps", self.steps, "must not be negative")


@dataclass(frozen=True)
class RewardTerm:
    """One term of the reward: a function with its weight."""

    function: Component
    weight: float

    def __post_init__(self) -> None:
        if type(self.weight) is int:
            object.__setattr__(self, "weight", float(self.weight))
        finite = type(self.weight) is float and math.isfinite(self.weight)
        require(finite, "weight", self.weight, "must be a number")


def is_date(text: str) -> bool:
    """Whether the text is a day as YYYY-MM-DD."""
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def local_folder(path: str) -> Path | None:
    """The folder of a model path: of this package (`package:...`) or local; None for a hub name."""
    if path.startswith("package:"):
        return Path(__file__).resolve().parents[1] / path.removeprefix("package:")
    folder = Path(path).expanduser()
    return folder.resolve() if folder.is_dir() else None
