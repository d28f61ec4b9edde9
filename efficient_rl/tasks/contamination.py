"""Keeps evaluation problems, and questions that share a passage with one, out of training."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, compress

from efficient_rl.tasks.problem import Problem

LATEX_SPACING = re.compile(r"\\(?:[,;:!> ]|quad\b|qquad\b|left\b|right\b|displaystyle\b)|[~$]")
WORD = re.compile(r"[^\W_]+")
TOKEN = re.compile(r"[^\W_]+|[^\w\s]")
BOILERPLATE_SHARE = 0.05  # a passage in so many of the training or of the evaluation questions,
BOILERPLATE_ROWS = 5  # and in at least so many, is boilerplate


class Leaks:
    """What the evaluation problems give away of training problems.

    `boilerplate` are the passages of `n` words that do not count, each with how many questions have
    it: a twentieth of the training questions `train`, or of the evaluation questions, and five at
    least.
    """

    def __init__(self, train: Sequence[Problem], evaluation: Sequence[Problem], n: int = 8) -> None:
        if n < 1:
            raise ValueError(f"n={n} words must be at least 1")
        self._n = n
        self._keys = {problem.key for problem in evaluation}
        asked, trained = _texts(evaluation), _texts(train)
        counts, again = Counter[str](), Counter[str]()
        for text in asked:
            counts.update(set(_windows(WORD.findall(text), n)))
        for text in trained if counts else ():
            again.update(counts.keys() & _windows(WORD.findall(text), n))
        self.boilerplate = _frequent(counts, len(asked)) | _frequent(again, len(trained))
        self._known = set(chain.from_iterable(map(self._passages, asked)))

    def find(self, problem: Problem) -> str | None:
        """The passage that a problem shares with an evaluation problem, None where it is safe."""
        if problem.key in self._keys:
            return problem.question
        if not problem.free_text or not self._known:
            return None
        return next(filter(self._known.__contains__, self._passages(normalized(problem.question))), None)

    def split(self, problems: Iterable[Problem]) -> tuple[list[Problem], list[Problem]]:
        """The problems that are safe, and those to drop, both in their order."""
        kept, dropped = list[Problem](), list[Problem]()
        for problem in problems:
            (kept if self.find(problem) is None else dropped).append(problem)
        return kept, dropped

    def _passages(self, text: str) -> Iterator[str]:
        """The runs of `n` words that count, or all tokens of a question that has none."""
        words = WORD.findall(text)
        windows = list(_windows(words, self._n))
        own = [True] * len(words)
        for start, passage in enumerate(windows):
            if passage in self.boilerplate:
                own[start : start + self._n] = [False] * self._n
        if not all(own):
            owned = [2 * sum(own[start : start + self._n]) >= self._n for start in range(len(windows))]
            windows = list(compress(windows, owned))
        return iter(windows or [" ".join(TOKEN.findall(text)).rstrip(" .?!:")])


def decontaminated(
    train: Sequence[Problem], evaluation: Sequence[Problem], n: int = 8
) -> tuple[list[Problem], list[Problem]]:
    """The training problems that are safe, and those to drop, both in their order.

    A problem is dropped if an evaluation problem has its key. One in free text is also dropped if
    it shares `n` words in a row with an evaluation problem in free text, whatever their case,
    punctuation and LaTeX spacing; questions of fewer than `n` words are compared whole, signs
    included. A run counts if at least half of its words are outside boilerplate (`Leaks`), such as
    a shared instruction; a question without such a run is compared whole too. Generated problems
    have exact keys and a common template, so words say nothing about them: they are compared by key
    alone. Words are runs of letters or digits; text in scripts without spaces is in effect compared
    by clause. Paraphrases and translations pass.
    """
    return Leaks(train, evaluation, n).split(train)


def normalized(question: str) -> str:
    """The question in lower case and NFKC, without LaTeX spacing, with single spaces."""
    text = unicodedata.normalize("NFKC", question).lower()
    return " ".join(LATEX_SPACING.sub(" ", text).split())


def _texts(problems: Iterable[Problem]) -> list[str]:
    return [normalized(problem.question) for problem in problems if problem.free_text]


def _windows(words: Sequence[str], n: int) -> Iterator[str]:
    for start in range(len(words) - n + 1):
        yield " ".join(words[start : start + n])


def _frequent(counts: Counter[str], rows: int) -> dict[str, int]:
    least = max(BOILERPLATE_ROWS, BOILERPLATE_SHARE * rows)
    return {passage: count for passage, count in counts.items() if count >= least}
