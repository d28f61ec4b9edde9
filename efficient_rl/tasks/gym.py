"""Generators of reasoning-gym, with explicit configurations and our own checks."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from efficient_rl.errors import require
from efficient_rl.tasks.parsing import plain_number
from efficient_rl.tasks.problem import Problem, Split, attempts, first_distinct

SPACING = 1_000_000_000  # between the items of two seeds: the library seeds item i with seed + i
Metadata = Mapping[str, Any]


@dataclass(frozen=True)
class Generator:
    """One generator of the library: its configuration, and content and difficulty of an item.

    `fixed` is the part of the configuration that is not to be changed. `content` identifies a
    problem whatever the order of its numbers and its wording; `in_symbols`: the embedded model's
    characters can write the content.
    """

    config: Mapping[str, Any]
    content: Callable[[Metadata], str]
    difficulty: Callable[[Metadata], float]
    in_symbols: bool = False
    fixed: Mapping[str, Any] = field(default_factory=dict)


def _expression(metadata: Metadata) -> str:
    return str(metadata["expression"]).replace(" ", "")


def _terms(metadata: Metadata) -> float:
    return float(metadata["num_terms"])


def _digits(*names: str) -> Callable[[Metadata], float]:
    """Digits of the longest of the named numbers."""
    return lambda metadata: float(max(len(str(metadata[name])) for name in names))


def _animals(metadata: Metadata) -> str:
    return ",".join(f"{count} {animal}" for animal, count in sorted(metadata["animals"].items()))


TERMS = {"min_terms": 2, "max_terms": 4, "min_digits": 1, "max_digits": 2}
GENERATORS: Mapping[str, Generator] = {
    "basic_arithmetic": Generator(
        {**TERMS, "allow_parentheses": True, "allow_negation": False},
        _expression,
        _terms,
        True,
        {"operators": ["+", "-", "*"], "format_style": "simple", "whitespace": "single"},  # its quotients are rounded down
    ),
    "decimal_chain_sum": Generator(
        {**TERMS, "min_decimal_places": 1, "max_decimal_places": 2, "allow_negation": False}, _expression, _terms, True
    ),
    "fraction_simplification": Generator(
        {"min_value": 1, "max_value": 100, "min_factor": 2, "max_factor": 20},
        lambda metadata: f"{metadata['numerator']}/{metadata['denominator']}",
        _digits("numerator", "denominator"),
        True,
        {"styles": ["plain"]},
    ),
    "count_primes": Generator(
        {"min_n": 1, "max_n": 200}, lambda metadata: f"{metadata['start']}..{metadata['end']}", _digits("start", "end")
    ),
    "count_bits": Generator({"min_n": 1, "max_n": 10_000}, lambda metadata: str(metadata["number"]), _digits("number")),
    "leg_counting": Generator(
        {"min_animals": 2, "max_animals": 5, "min_instances": 1, "max_instances": 9},
        _animals,
        lambda metadata: float(metadata["num_animals"]),
    ),
}


@dataclass(frozen=True)
class ReasoningGym:
    """A generator of reasoning-gym (https://github.com/open-thought/reasoning-gym, Apache-2.0).

    `config` overrides entries of the generator's explicit configuration in `GENERATORS`. Only those
    are allowed whose answer is exactly one number, which our `number` check judges: the library's
    own `score_answer` pays for near misses and, in some of its tasks, executes what the model
    wrote. Split and distinctness go by content, as everywhere.
    """

    generator: str = "basic_arithmetic"
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        bound = f"is not on the list of generators; use one of {', '.join(GENERATORS)}"
        require(self.generator in GENERATORS, "task.generator", self.generator, bound)
        known = GENERATORS[self.generator].config
        if unknown := sorted(set(self.config) - set(known)):
            raise ValueError(f"task.config of {self.generator} has no {', '.join(unknown)}; use {', '.join(known)}")

    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        """`count` distinct problems of one split; ValueError where reasoning-gym refuses."""
        return first_distinct(self._draws(seed, attempts(count)), split, count)

    def _draws(self, seed: int, number: int) -> Iterator[Problem]:
        try:
            from reasoning_gym import create_dataset
        except ImportError as error:
            raise ValueError("this task needs reasoning-gym; install the extra `generators` of efficient_rl") from error
        generator = GENERATORS[self.generator]
        config = copy.deepcopy({**generator.config, **self.config, **generator.fixed})
        try:
            items = create_dataset(self.generator, seed=seed * SPACING, size=number, **config)
        except (AssertionError, TypeError) as error:
            raise ValueError(
                f"reasoning-gym refuses task.config={dict(self.config)} of {self.generator}: {error}"
            ) from error
        for index in range(number):
            yield self._problem(generator, items[index])

    def _problem(self, generator: Generator, item: Mapping[str, Any]) -> Problem:
        metadata, question = item["metadata"], str(item["question"]).strip()
        content = generator.content(metadata)
        answer = plain_number(str(item["answer"]))
        if answer is None:
            raise ValueError(
                f"{self.generator} gave the answer {item['answer']!r}, which is not one number; use another task.config"
            )
        gold: dict[str, Any] = {"answer": answer}
        if "/" in answer:
            gold["lowest"] = True
        return Problem(
            question=question,
            symbols=f"{content}:" if generator.in_symbols else question,
            check="number",
            gold=gold,
            difficulty=generator.difficulty(metadata),
            source=self.generator,
            key=f"{self.generator} {content}",
            solution=answer,
        )
