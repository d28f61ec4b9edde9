"""Checks without torch: a run's problems, prompt characters, reward paths, model files, sampler."""

import json
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

from efficient_rl.config.options import items_of
from efficient_rl.config.run_config import RunConfig
from efficient_rl.datasets import load_splits
from efficient_rl.errors import first_line
from efficient_rl.launch.gpus import visible_names
from efficient_rl.preflight.alphabet import read_alphabet
from efficient_rl.preflight.faults import ERRORS, Check, Key
from efficient_rl.preflight.imports import trouble_with

OURS, SLOW = "efficient_rl.tasks.", "efficient_rl.tasks.gym."  # whose problems are read at planning, but for the slow one's
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LARGEST_BYTES = 32 << 20  # of a task's files that are read at planning
WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "*.index.json")


def names_dataset(tree: object) -> bool:
    """Whether a task's arguments name a data set of the hub."""
    if isinstance(tree, Mapping):
        here = bool(tree.get("dataset")) and not tree.get("path")
        return here or any(map(names_dataset, tree.values()))
    return isinstance(tree, list | tuple) and any(map(names_dataset, tree))


def check_files(run: RunConfig) -> Iterator[str]:
    """The files that the tasks name are there."""
    for part in (run.task, *run.eval.sets):
        for name, path in _paths(part.arguments):
            if not path.exists():
                yield (
                    f"task={part.name}: {name}={str(path)!r} is neither a file nor a folder here; give one, "
                    "or the name of a data set on the hub as task.dataset"
                )


def check_problems(run: RunConfig) -> Iterable[str]:
    """The problems that the run asks for are there; not of tasks that take long to ask."""
    if any(check_files(run)):
        return ()
    return check_splits(run) if is_quick(run) else check_words(run)


def check_words(run: RunConfig) -> Iterator[str]:
    """A model that writes no letters is not asked to read a data set on the hub."""
    alphabet = read_alphabet(run.model.folder)
    if alphabet is None or len(alphabet.unknown(LETTERS)) < len(LETTERS) / 2:
        return
    for part in (run.task, *run.eval.sets):
        if names_dataset(part.arguments):
            yield (
                f"model={run.model.name} has no tokens for words, which the data set of task={part.name} is in; use a task "
                "that it reads, such as task=countdown or task=arithmetic with prompt=model, or another model"
            )


def is_quick(run: RunConfig) -> bool:
    """Whether the problems are generated here, or lie in files that are quickly read."""
    parts = (run.task, *run.eval.sets)
    targets = list(_targets([{"_target_": part.target, **part.arguments} for part in parts]))
    generated = all(target.startswith(OURS) and not target.startswith(SLOW) for target in targets)
    paths = list(chain.from_iterable(_paths(part.arguments) for part in parts))
    small = sum(_size(path) for _, path in paths) <= LARGEST_BYTES
    return generated and small and not any(names_dataset(part.arguments) for part in parts)


def check_splits(run: RunConfig) -> Iterator[str]:
    """The problems that the run asks for are there, and the model can write them."""
    try:
        problems = load_splits(run)
    except ERRORS as error:
        yield f"task={run.task.name}: {in_words(error)}"
        return
    alphabet = read_alphabet(run.model.folder)
    if alphabet is None:
        return
    template = run.prompt.template
    in_symbols = run.model.prompt == "symbols" if template is None else "{question}" not in template
    for name, members in {**problems.eval_sets, run.task.name: problems.train}.items():
        texts = [problem.symbols if in_symbols else problem.question for problem in members]
        text = next(filter(alphabet.unknown, texts), None)
        if text is not None:
            yield (
                f"model={run.model.name} has no tokens for {alphabet.unknown(text)!r}, which problems of task={name} hold, "
                f"such as {text!r}; use a task that it reads, such as task=countdown or task=arithmetic with prompt=model, "
                "or another model"
            )


def in_words(error: Exception) -> str:
    """Our own errors as they are, others with their type."""
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {first_line(error)}"


def check_reward(run: RunConfig) -> Iterator[str]:
    """Functions that the reward names by a path are there, as far as their files say."""
    for term in run.reward:
        path = term.function.arguments.get("path")
        if term.function.target.endswith(".Imported") and isinstance(path, str):
            trouble = trouble_with(path)
            if trouble is not None:
                yield f"reward.{term.function.name}.path={path!r}: {trouble}"


def check_model_files(run: RunConfig) -> Iterator[str]:
    """A local model folder holds a configuration and weights."""
    model, folder = run.model, run.model.folder
    if folder is None:
        return
    named = model.gguf_file or "config.json"
    if not (folder / named).is_file():
        yield f"model.path={model.path!r} has no {named}; give a folder that save_pretrained wrote"
    elif model.gguf_file is None and not any(any(folder.glob(name)) for name in WEIGHTS):
        yield f"model.path={model.path!r} has no weights (model.safetensors); give a folder that save_pretrained wrote"
    elif _chat_is_missing(run):
        yield (
            f"the tokenizer of {model.path} has no chat template, which prompt={run.prompt.name} with "
            f"model.prompt={model.prompt} needs; use model.prompt=plain, or the instruction-tuned version of the model"
        )


def check_sampler(run: RunConfig, gpus: float) -> Iterator[str]:
    """The sampler and the attention can work with that many GPUs a run."""
    sampler, attention = run.grpo.sampler, run.model.attn_implementation
    remedy = "use grpo.sampler=own"
    if sampler in ("vllm_colocate", "continuous_batching") and not gpus:
        yield f"grpo.sampler={sampler} needs a GPU, and a run has none here; {remedy}"
    elif sampler.startswith("vllm") and find_spec("vllm") is None:
        yield f"grpo.sampler={sampler} needs the package vllm, which is not installed here; install it, or {remedy}"
    if attention == "flash_attention_2" and not gpus:
        yield "model.attn_implementation=flash_attention_2 needs a GPU, and a run has none here; use auto"


def quick_checks(gpus: float) -> list[tuple[Key, Check]]:
    """All of them, each with what its verdict depends on."""
    return [
        (lambda run: (run.task, run.eval.sets), check_files),
        (data_key, check_problems),
        (lambda run: run.reward, check_reward),
        (lambda run: (run.model, run.prompt), check_model_files),
        (lambda run: (run.grpo.sampler, run.model.attn_implementation), lambda run: check_sampler(run, gpus)),
    ]


def gpus_of(launcher: Any) -> float:
    """How many GPUs a run of the launcher has."""
    if launcher.detaches:
        return float(launcher.gpus_per_run)
    return float(launcher.gpus_per_run) if visible_names() else 0.0


def data_key(run: RunConfig) -> object:
    """What decides which problems a run has, and whether its model can write them."""
    model = run.model.path, run.model.prompt, run.prompt
    return run.task, run.eval, run.grpo.train_problems, run.data, model


def _paths(tree: Any, name: str = "task") -> Iterator[tuple[str, Path]]:
    """Every local file or folder that a task's arguments name, with its key."""
    for key, value in items_of(tree):
        where = f"{name}.{key}"
        if key == "path" and isinstance(value, str):
            yield where, Path(value).expanduser()
        elif key == "held_out" and isinstance(value, str) and value.startswith("path:"):
            yield where, Path(value.removeprefix("path:")).expanduser()
        elif not isinstance(value, str):
            yield from _paths(value, where)


def _targets(tree: Any) -> Iterator[str]:
    """Every class that a component's arguments name."""
    if isinstance(tree, Mapping):
        if isinstance(tree.get("_target_"), str):
            yield tree["_target_"]
        tree = list(tree.values())
    if isinstance(tree, list | tuple):
        for value in tree:
            yield from _targets(value)


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else 0


def _chat_is_missing(run: RunConfig) -> bool:
    folder: Path | None = run.model.folder
    is_chat = run.prompt.chat if run.prompt.template is not None else run.model.prompt == "chat"
    if folder is None or not is_chat or run.model.gguf_file is not None:
        return False
    return not ((folder / "chat_template.jinja").is_file() or _has_template(folder / "tokenizer_config.json"))


def _has_template(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")).get("chat_template"))
    except (OSError, ValueError, AttributeError):
        return True  # unknown: what loads the tokenizer says more
