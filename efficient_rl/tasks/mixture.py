"""Several tasks as one, in fixed shares, with difficulties on a common scale."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from efficient_rl.errors import is_number, require
from efficient_rl.tasks.problem import Problem, Split, Task


@dataclass(frozen=True)
class Mixture:
    """Problems of several `sources`, each a mapping with `task`, `weight` and `difficulty`.

    `weight` (default 1) is a share of what is asked for, relative to the others': of `count`
    problems every source gives its exact part, rounded by largest remainder. (open-r1's weight is
    another thing: the fraction of a data set that is kept.) `difficulty` puts the source on a
    common scale: `{scale: a, shift: b}` is a * difficulty + b, any other mapping gives the new
    value of every old one. Problems keep their own `source`.
    """

    sources: Mapping[str, Mapping[str, Any]]

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("task.sources is empty; give at least one source with a task")
        object.__setattr__(self, "sources", {name: _parsed(name, part) for name, part in sorted(self.sources.items())})

    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        """`count` problems of one side in random order; ValueError where a source has too few."""
        if count < 1:
            raise ValueError(f"count={count} must be at least 1 for a mixture")
        parts = shares({name: part["weight"] for name, part in self.sources.items()}, count)
        mixed: dict[str, Problem] = {}
        for name, part in self.sources.items():
            if parts[name]:
                for problem in _fresh(part["task"], split, parts[name], seed, mixed):
                    mixed[problem.key] = replace(problem, difficulty=_mapped(name, part["difficulty"], problem.difficulty))
        order = list(mixed.values())
        Random(seed).shuffle(order)
        return order


def shares(weights: Mapping[str, float], count: int) -> dict[str, int]:
    """`count` split by weight into whole numbers, by the largest remainder."""
    total = sum(weights.values())
    exact = {name: count * weight / total for name, weight in weights.items()}
    parts = dict(zip(exact, map(int, exact.values()), strict=True))
    for name in sorted(exact, key=lambda name: (parts[name] - exact[name], name))[: count - sum(parts.values())]:
        parts[name] += 1
    return parts


def _fresh(task: Task, split: Split, count: int, seed: int, known: Mapping[str, Problem]) -> list[Problem]:
    """`count` problems of a task whose keys no other source gave."""
    asked = count
    while True:
        found = [problem for problem in task.problems(split, asked, seed) if problem.key not in known]
        if len(found) >= count:
            return found[:count]
        asked += count - len(found)


def _parsed(name: str, part: Mapping[str, Any]) -> dict[str, Any]:
    known = isinstance(part, Mapping) and {"task"} <= set(part) <= {"task", "weight", "difficulty"}
    bound = "must be a mapping with task, and if wanted weight and difficulty"
    require(known, f"task.sources.{name}", part, bound)
    task, weight = part["task"], part.get("weight", 1)
    is_task = callable(getattr(task, "problems", None))
    require(is_task, f"task.sources.{name}.task", task, "is no task; name its class with _target_")
    positive = is_number(weight) and 0 < weight < math.inf
    require(positive, f"task.sources.{name}.weight", weight, "must be a number above 0")
    difficulty = part.get("difficulty") or {}
    try:
        keys = list(difficulty)
        if not set(keys) <= {"scale", "shift"}:
            keys = list(map(float, keys))
        mapping = dict(zip(keys, map(float, difficulty.values()), strict=True))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"task.sources.{name}.difficulty={difficulty!r} must be {{scale: a, shift: b}} or map numbers to numbers"
        ) from error
    return {"task": task, "weight": float(weight), "difficulty": mapping}


def _mapped(name: str, mapping: Mapping[Any, float], difficulty: float) -> float:
    if set(mapping) <= {"scale", "shift"}:
        return mapping.get("scale", 1.0) * difficulty + mapping.get("shift", 0.0)
    if difficulty not in mapping:
        known = ", ".join(f"{value:g}" for value in sorted(mapping))
        raise ValueError(f"task.sources.{name}.difficulty has no value for {difficulty:g}; it maps {known}")
    return mapping[difficulty]
