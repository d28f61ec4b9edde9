"""Checks an answer in LaTeX or text: numbers exactly, lists item by item, the rest by sympy.

What sympy sees is one expression each time, without words, integrals or large powers, in a bounded
process (`judge`).
"""

import re
from collections.abc import Callable, Mapping
from itertools import chain, repeat
from typing import Any

from efficient_rl.rewards.judge import JUDGES
from efficient_rl.rewards.judge_bounds import ANSWER_CALLS, SHARED_CALLS
from efficient_rl.rewards.latex import depth_of, is_name, sides, split_items, unwrap
from efficient_rl.rewards.notation import MAX_DEPTH, apart, compact, has_words, in_latex, is_word, judgeable, plain, spoken
from efficient_rl.rewards.numerals import answers, read_quantity

MAX_ANSWER_CHARACTERS = 2000
MAX_ITEMS = 32
BASE = re.compile(r"[0-9A-Za-z]+_\{?\d+\}?", re.ASCII)
BRACKETED = re.compile(r"(\(|\[)(.+)(\)|\])", re.DOTALL)
BRACED = re.compile(r"\\\{(.+)\\\}", re.DOTALL)
REALS = re.compile(r"\\mathbb\s*\{?R\}?")
BETWEEN = re.compile(r"([^<>]+?)\s*(<|\\le\b)\s*[A-Za-z]\s*(<|\\le\b)([^<>]+)", re.ASCII)
BOUNDED = re.compile(r"[A-Za-z]\s*(<|\\le\b|>|\\ge\b)([^<>]+)", re.ASCII)
BOUNDING = re.compile(r"([^<>]+?)\s*(<|\\le\b|>|\\ge\b)\s*[A-Za-z]", re.ASCII)
BOUNDED_LETTER = re.compile(
    r"(?<![A-Za-z\\])(?:([A-Za-z])\s*(?:[<>]|\\[lg]e\b)|(?:[<>]|\\[lg]e\b)\s*([A-Za-z]))(?![A-Za-z])"
)
LEFT = {">": "(", "\\ge": "["}  # the ends of intervals
RIGHT = {"<": ")", "\\le": "]"}
FLIPPED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}
MEMBER = re.compile(r"[A-Za-z]\s*\\in\b\s*", re.ASCII)
Equal = Callable[[str, str], bool]


def math(answer: str, gold: Mapping[str, Any]) -> bool:
    """Whether the answer is `gold["answer"]`: a number, word, expression, list or interval.

    A gold number is decided by exact arithmetic alone, so `\\sqrt{25}` is no answer where 5 is
    wanted. A list of another length than the gold one is wrong, whatever is in it; order counts
    inside ( ) and [ ] only. An equation in the answer is right if all its sides are, a name in
    front apart. Over 2,000 characters, or over ANSWER_CALLS Python calls of sympy in all, is wrong.
    """
    if len(answer) > MAX_ANSWER_CHARACTERS or depth_of(answer) > MAX_DEPTH:
        return False
    given, wanted = plain(answer), plain(str(gold["answer"]))
    for work in (Work(SHARED_CALLS, alone=False), Work(ANSWER_CALLS, alone=True)):
        try:
            return equal(given, wanted, work)
        except OverLimit:
            continue
    return False


class OverLimit(Exception):
    """Judging an answer reached its limit of calls."""


class Work:
    """Asks the judge until the Python calls allowed for one answer are made; then raises OverLimit.

    What a process judged before saves calls, so an answer that needs SHARED_CALLS in the
    shared one is judged again, each of its pairs alone: that number depends on the answer only.
    """

    def __init__(self, calls: int, alone: bool) -> None:
        self.left = calls
        self.alone = alone

    def same(self, answer: str, gold: str) -> bool:
        """Whether the judge finds two expressions equal."""
        right, made = JUDGES.same(answer, gold, self.left, self.alone)
        if made > self.left:
            raise OverLimit
        self.left -= made
        return right


def equal(answer: str, gold: str, work: Work) -> bool:
    """Whether two plain texts are the same answer; `work` bounds sympy's share in all."""
    wanted = read_quantity(gold)
    if wanted is not None:
        alone = BRACED.fullmatch(answer)
        return answers(alone[1] if alone else answer, wanted)
    if not answer or not gold:
        return False
    if compact(answer) == compact(gold):
        return True
    if is_word(gold):
        return spoken(answer) == spoken(gold)
    given, asked = bounded_letters(answer), bounded_letters(gold)
    if given and asked and given != asked:
        return False
    kind, theirs = items(answer)
    wanted_kind, ours = items(gold)
    if kind != wanted_kind or len(theirs) != len(ours) or len(ours) > MAX_ITEMS:
        return False
    if len(ours) == 1 and not kind:
        return equal_expressions(theirs[0], ours[0], work)
    unknowns = {compact(item.partition("=")[0]) for item in ours if "=" in item}
    ordered = len(unknowns) > 1 and not all("=" in item for item in theirs)  # x=1, y=2 answered by 1, 2
    if kind or ordered:
        return all(map(equal, theirs, ours, repeat(work)))
    return paired(theirs, ours, work)


def paired(theirs: list[str], ours: list[str], work: Work) -> bool:
    """Whether every gold item has an item of the answer to itself."""
    left = list(theirs)
    for wanted in ours:
        found = next((item for item in left if equal(item, wanted, work)), None)
        if found is None:
            return False
        left.remove(found)
    return True


def items(text: str) -> tuple[str, list[str]]:
    """The brackets of a tuple or interval ("" for all else) and the parts inside."""
    member = MEMBER.match(text)
    text = text[member.end() :] if member else text
    bracketed = BRACKETED.fullmatch(text)
    if bracketed:
        inside = split_items(bracketed[2])
        if len(inside) > 1 and len(split_items(text)) == 1:
            return bracketed[1] + bracketed[3], inside
    braced = BRACED.fullmatch(text)
    listed = split_items(braced[1] if braced else text)
    parts = list(chain.from_iterable(map(both_signs, listed)))
    intervals = list(map(as_interval, parts))
    if len(parts) == 1:
        return items(intervals[0]) if intervals[0] else ("", parts)
    return "", [interval or part for interval, part in zip(intervals, parts, strict=True)]


def both_signs(text: str) -> list[str]:
    """The two expressions that one with a single \\pm stands for."""
    if len(re.findall(r"\\pm\b", text)) != 1:
        return [text]
    before, after = re.split(r"\\pm\b", text)
    positive = f"{before}+{after}" if before.strip() else after.strip()
    return [positive, f"{before}-{after}"]


def as_interval(text: str) -> str | None:
    """The interval that an inequality in one letter describes, or all reals; else None."""
    if REALS.fullmatch(text):
        return "(-\\infty, \\infty)"
    found = BETWEEN.fullmatch(text)
    if found:
        low, first, second, high = found.groups()
        return f"{LEFT[FLIPPED[first]]}{low.strip()}, {high.strip()}{RIGHT[second]}"
    bounded = BOUNDED.fullmatch(text)
    if bounded:
        relation, bound = bounded.groups()
    elif bounded := BOUNDING.fullmatch(text):
        bound, relation = bounded[1], FLIPPED[bounded[2]]
    else:
        return None
    if relation in LEFT:
        return f"{LEFT[relation]}{bound.strip()}, \\infty)"
    return f"(-\\infty, {bound.strip()}{RIGHT[relation]}"


def bounded_letters(text: str) -> set[str]:
    """The letters that inequalities bound: x in `x > 3`."""
    return {found[1] or found[2] for found in BOUNDED_LETTER.finditer(text)}


def equal_expressions(answer: str, gold: str, work: Work) -> bool:
    """Whether two single expressions or equations are equal."""
    if "=" not in gold:
        return all(map(equal_values, sides(answer), repeat(gold), repeat(work)))
    name, _, value = gold.partition("=")
    if not is_name(name.strip()) or "=" in value:
        return "=" in answer and judged(answer, gold, work)
    if "=" not in answer:
        return equal(answer, value.strip(), work)
    given_name, _, given = answer.partition("=")
    if compact(given_name) == compact(name):
        return all(map(equal, given.split("="), repeat(value.strip()), repeat(work)))
    return not is_name(given_name.strip()) and judged(answer, gold, work)


def equal_values(answer: str, gold: str, work: Work) -> bool:
    """Whether two expressions without an equals sign are equal."""
    wanted = read_quantity(gold)
    if wanted is not None:
        return answers(answer, wanted)
    if compact(answer) == compact(gold):
        return True
    return not (BASE.fullmatch(answer) or BASE.fullmatch(gold)) and judged(answer, gold, work)


def judged(answer: str, gold: str, work: Work) -> bool:
    """What sympy says of two expressions, where they are fit for it."""
    if has_words(unwrap(answer)) or has_words(gold):
        return False
    given, wanted = apart(in_latex(answer), in_latex(gold))
    return judgeable(given, wanted) and work.same(given, wanted)
