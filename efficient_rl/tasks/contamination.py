"""Keeps evaluation problems, and questions that share a passage with one, out of training."""

import re
import unicodedata
from collections.abc import Iterator, Sequence

from efficient_rl.tasks.problem import Problem

LATEX_SPACING = re.compile(r"\\(?:[,;:!> ]|quad\b|qquad\b|left\b|right\b|displaystyle\b)|[~$]")
WORD = re.compile(r"[^\W_]+")
TOKEN = re.compile(r"[^\W_]+|[^\w\s]")


def decontaminated(
    train: Sequence[Problem], evaluation: Sequence[Problem], n: int = 8
) -> tuple[list[Problem], list[Problem]]:
    """The training problems that are safe, and those to drop, both in their order.

    A problem is dropped if an evaluation problem has its key. One in free text is also dropped if
    it shares `n` words in a row with an evaluation problem in free text, whatever their case,
    punctuation and LaTeX spacing; questions of fewer than `n` words are compared whole, signs
    included. Generated problems have exact keys and a common template, so words say nothing about
    them: they are compared by key alone. Words are runs of letters or digits; text in scripts
    without spaces is in effect compared by clause. Paraphrases and translations pass.
    """
    if n < 1:
        raise ValueError(f"n={n} words must be at least 1")
    keys: set[str] = set()
    passages: set[str] = set()
    for problem in evaluation:
        keys.add(problem.key)
        if problem.free_text:
            passages.update(_passages(problem.question, n))
    kept: list[Problem] = []
    dropped: list[Problem] = []
    for problem in train:
        known = problem.key in keys
        if not known and problem.free_text and passages:
            known = not passages.isdisjoint(_passages(problem.question, n))
        (dropped if known else kept).append(problem)
    return kept, dropped


def normalized(question: str) -> str:
    """The question in lower case and NFKC, without LaTeX spacing, with single spaces."""
    text = unicodedata.normalize("NFKC", question).lower()
    return " ".join(LATEX_SPACING.sub(" ", text).split())


def _passages(question: str, n: int) -> Iterator[str]:
    """All runs of `n` words, or all tokens of a shorter question."""
    text = normalized(question)
    words = WORD.findall(text)
    if len(words) < n:
        yield " ".join(TOKEN.findall(text)).rstrip(" .?!:")
    for start in range(len(words) - n + 1):
        yield " ".join(words[start : start + n])
