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
from efficient_rl.rewards.latex import depth_of, is_enclosed, sides, split_items, split_outside, unwrap
from efficient_rl.rewards.names import is_name, is_pure_name, unknowns
from efficient_rl.rewards.notation import (
    MAX_DEPTH,
    apart,
    compact,
    has_words,
    in_latex,
    is_word,
    judgeable,
    plain,
    split_unit,
    spoken,
)
from efficient_rl.rewards.numerals import answers, read_quantity
from efficient_rl.rewards.units import same_unit

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
LISTING = (",", ";", "or", "and")
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
    try:
        return equal(given, wanted, Work(SHARED_CALLS))
    except OverLimit:
        pass  # maybe for what the worker did not know yet: the verdict must not depend on it
    with JUDGES.alone():
        try:
            return equal(given, wanted, Work(ANSWER_CALLS))
        except OverLimit:
            return False


class OverLimit(Exception):
    """Judging an answer reached its limit of calls."""


class Work:
    """Asks the judge until the calls allowed for one answer are made; then raises OverLimit."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def same(self, answer: str, gold: str) -> bool:
        """Whether the judge finds two expressions equal."""
        right, made = JUDGES.same(answer, gold, self.left)
        if made > self.left:
            raise OverLimit
        self.left -= made
        return right


def equal(answer: str, gold: str, work: Work) -> bool:
    """Whether two plain texts are the same answer; `work` bounds sympy's share in all."""
    wanted = read_quantity(gold)
    if wanted is not None:
        return answers(answer, wanted)
    if not answer or not gold:
        return False
    if compact(answer) == compact(gold):
        return True
    if is_word(gold):
        return spoken(answer) == spoken(gold)
    given, asked = bounded_letters(answer), bounded_letters(gold)
    if given and asked and given != asked:
        return False
    if named := statement(gold):
        return equal_to_named(answer, *named, work)
    if stated := values(answer, gold):
        return all(map(equal, stated, repeat(gold), repeat(work)))
    return equal_items(answer, gold, work)


def statement(gold: str) -> tuple[str, str] | None:
    """The name and the value of a gold answer such as `x = 5` or `(p, q) = (3, 2)`.

    An equation with any other left side is the answer itself: `x + y = 5` is a line and not 5,
    unless its right side is a tuple, a set or an interval, which no line is.
    """
    name, *others = sides(gold)
    if len(others) != 1:
        return None
    value = others[0]
    listed = split_items(value.removeprefix("\\")[1:-1].removesuffix("\\")) if is_enclosed(value) else []
    return (name, value) if is_pure_name(name) or (len(listed) > 1 and is_name(name)) else None


def equal_to_named(answer: str, name: str, value: str, work: Work) -> bool:
    """Whether an answer gives the value, by itself or under the same name, or an equal equation."""
    if len(sides(answer)) == 1:
        return equal(answer, value, work)
    named = [sides(item) for item in split_items(answer)]
    if all(len(parts) < 3 and (len(parts) == 1 or compact(parts[0]) == compact(name)) for parts in named):
        return equal(", ".join(parts[-1] for parts in named), value, work)
    first, *others = sides(answer)
    if compact(first) == compact(name):
        return all(map(equal, others, repeat(value), repeat(work)))
    return not is_pure_name(first) and judged(answer, f"{name} = {value}", work)


def values(answer: str, gold: str) -> list[str]:
    """The sides of an equation that must be the gold answer, which is none; empty for no equation.

    What has an unknown that the gold answer lacks is a name (see `is_name`); of two names the last
    side is the value. An empty first side is left out: `= 5`.
    """
    *before, last = sides(answer)
    if not before or len(sides(gold)) > 1 or any(len(split_outside(side, LISTING)) > 1 for side in before):
        return []
    known = unknowns(split_unit(gold)[0])
    stated = [side for side in [*before[not before[0] :], last] if not is_name(side, known)]
    return stated or [last]


def equal_items(answer: str, gold: str, work: Work) -> bool:
    """Whether two texts hold equal items: in any order, or in the order of their brackets."""
    kind, theirs = items(answer)
    wanted_kind, ours = items(gold)
    if kind != wanted_kind or len(theirs) != len(ours) or len(ours) > MAX_ITEMS:
        return False
    if len(ours) == 1 and not kind:
        return equal_expressions(theirs[0], ours[0], work)
    unknown = {compact(item.partition("=")[0]) for item in ours if "=" in item}
    ordered = len(unknown) > 1 and not all("=" in item for item in theirs)  # x=1, y=2 answered by 1, 2
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
    if bracketed and is_enclosed(text):
        inside = split_items(bracketed[2])
        if len(inside) > 1:
            return bracketed[1] + bracketed[3], inside
    braced = BRACED.fullmatch(text)
    listed = split_items(braced[1] if braced and is_enclosed(text) else text)
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
    """Whether two single expressions, or two equations without a name, are equal."""
    if len(sides(gold)) > 1:
        return len(sides(answer)) > 1 and judged(answer, gold, work)
    return len(sides(answer)) == 1 and equal_values(answer, gold, work)


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
    if has_words(unwrap(answer)) or has_words(gold) or not same_unit(split_unit(answer)[1], split_unit(gold)[1]):
        return False
    given, wanted = apart(in_latex(answer), in_latex(gold))
    return judgeable(given, wanted) and work.same(given, wanted)
