"""Turns a row of a data set into a problem."""

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from efficient_rl.errors import require_one_of
from efficient_rl.rewards.extract import last_box
from efficient_rl.tasks.contamination import normalized
from efficient_rl.tasks.files import Row
from efficient_rl.tasks.parsing import Difficulty, first, group, plain_math, plain_number, plain_text, question_text
from efficient_rl.tasks.problem import Problem

CHECKS = ("number", "math", "choice")
LETTER = re.compile(r"\(?([A-Z])\)?\.?")
OPTION = re.compile(r"\s*\(?([A-Z])\s*[).:]\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class LeftOut:
    """Why a row is no problem, and the value that is at fault."""

    reason: str
    value: Any


@dataclass(frozen=True)
class Layout:
    """Which columns hold what; of several names for one thing the first that a row has is read."""

    question: tuple[str, ...]
    answer: tuple[str, ...]
    answer_pattern: str | None
    boxed: bool
    check: str
    options: tuple[str, ...]
    solution: tuple[str, ...]
    difficulty: Difficulty
    source: tuple[str, ...]
    label: str
    where: tuple[tuple[str, Any], ...]

    def __post_init__(self) -> None:
        if not self.question or not self.answer:
            raise ValueError("task.question and task.answer must name a column each")
        require_one_of("task.check", self.check, CHECKS)
        if (self.check == "choice") != bool(self.options):
            raise ValueError(
                f"task.check={self.check} and task.options={list(self.options)}: choice and options need each other"
            )
        if self.boxed and self.answer_pattern is not None:
            raise ValueError(f"task.boxed and task.answer_pattern={self.answer_pattern!r} exclude each other; keep one")
        group("answer_pattern", self.answer_pattern)

    @property
    def columns(self) -> list[str]:
        """All columns that are read."""
        parts = (self.question, self.answer, self.options, self.solution, self.source, self.difficulty.columns)
        return sorted(set[str]().union(*parts, dict(self.where)))

    def absent(self, there: Collection[str], needed: bool) -> list[tuple[str, str]]:
        """The options that name no column which is there, with the first name of each.

        Those without which no row is a problem, or the others.
        """
        named = {"question": self.question, "answer": self.answer, "options": self.options}
        optional = {"solution": self.solution, "source": self.source}
        (named if self.difficulty.default is None else optional)["difficulty"] = self.difficulty.columns
        if not needed:
            named = optional
        options = [*named.items(), *(("where", (column,)) for column, _ in self.where if needed)]
        return [(option, names[0]) for option, names in options if names and not set(names) & set(there)]

    def problem(self, row: Row) -> Problem | LeftOut:
        """The problem of a row, or why it has none."""
        for column, wanted in self.where:
            if row.get(column) not in wanted:
                return LeftOut(f"other {column}", row.get(column))
        question, answer = question_text(first(row, self.question)), self._answer(row)
        if question is None or not question.strip():
            return LeftOut("no question", first(row, self.question))
        if answer is None:
            return LeftOut("no answer that parses", first(row, self.answer))
        difficulty = self.difficulty.of(row)
        if difficulty is None:
            return LeftOut("no difficulty", first(row, self.difficulty.columns))
        return self._problem(row, question.strip(), answer, difficulty)

    def _problem(self, row: Row, question: str, answer: str, difficulty: float) -> Problem:
        if self.options:
            for letter, text in _options(first(row, self.options)).items():
                question += f"\n{letter}) {text}"
        steps = map(str.strip, str(first(row, self.solution) or "").splitlines())
        return Problem(
            question=question,
            symbols=question,
            check=self.check,
            gold={"answer": answer},
            difficulty=difficulty,
            source=str(first(row, self.source) or self.label),
            key=text_key(question),
            steps=tuple(filter(None, steps)),
            solution=answer,
            free_text=True,
        )

    def _answer(self, row: Row) -> str | None:
        text = plain_text(first(row, self.answer)) or ""
        if self.boxed:
            text = plain_text(last_box(text, any_form=True, last_only=True)) or ""
        elif self.answer_pattern is not None:
            found = list(re.finditer(self.answer_pattern, text))
            text = plain_text(found[-1][1] if found else None) or ""
        if self.check == "number":
            return plain_number(text)
        if self.check == "math":
            return plain_math(text)
        letter = LETTER.fullmatch(text.strip())
        return letter[1] if letter and letter[1] in _options(first(row, self.options)) else None


def _options(value: Any) -> dict[str, str]:
    """The options by their letters, which they carry themselves or get in order."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return {}
    texts = list(map(str, value))
    letters = list(map(chr, range(ord("A"), ord("A") + len(texts))))
    marks = list(map(OPTION.fullmatch, texts))
    if letters == [mark and mark[1] for mark in marks]:
        texts = [mark[2] for mark in marks if mark]
    return dict(zip(letters, map(str.strip, texts), strict=True))


def text_key(question: str) -> str:
    """What identifies a question in words in every data set: a digest of its normalised text."""
    return f"text {hashlib.blake2b(normalized(question).encode(), digest_size=12).hexdigest()}"
