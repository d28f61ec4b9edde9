"""Converts Unicode and plain-text mathematics to LaTeX; filters what math-verify must not see."""

import re
import string

from efficient_rl.rewards.latex import closes_at, depth_of, unwrap
from efficient_rl.rewards.units import DEGREE_SIGN, DEGREES, common, read_unit

SYMBOLS = {
    "\u2212": "-", "\u2013": "-", "\u00d7": "\\times ", "\u00b7": "\\cdot ", "\u00f7": "\\div ", "\u03c0": "\\pi ",
    "\u221e": "\\infty ", "\u2264": "\\le ", "\u2265": "\\ge ", "\u2260": "\\ne ", "\u222a": "\\cup ", "\u2229": "\\cap ",
    "\u2208": "\\in ", "\u00b1": "\\pm ", "\u00b0": "^\\circ ", "\u00b2": "^2", "\u00b3": "^3", "\u2205": "\\emptyset ",
    "\u2103": "^\\circ C", "\u2109": "^\\circ F", "\u00ba": "^\\circ ", "\u2248": "\\approx ",
    "\u03b8": "\\theta ", "\u211d": "\\mathbb{R} ", "\u00a0": "~", "\u2009": "~", "\u202f": "~", "\u221a": "\\sqrt ",
}  # fmt: skip
UNICODE = str.maketrans(SYMBOLS)
BARE_NUMBER = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)
EMPHASIS = re.compile(r"(?<![^\s(\[{:=$])(\*\*|__)(?=\S)([^*\n]+?)(?<=\S)\1(?!\w)")
HEADING = re.compile(r"\s*#{1,6} ")
GROUP_MARK = r"(?:\{,\}|,\\!\s*|\\,|\\ |~)"
REPLACED = (
    (re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])"), ""),
    (re.compile(r"~=|=~"), r"\\approx "),
    (re.compile(r":=|={2,3}"), "="),
    (
        re.compile(rf"(?<![\d.])[1-9]\d{{0,2}}(?:{GROUP_MARK}\d{{3}})+(?!\d)", re.ASCII),
        lambda found: re.sub(r"\D", "", found[0]),
    ),
    (re.compile(r"(?<!\\)\\[,;:! ]|\\(?:quad|qquad|displaystyle|limits)(?![A-Za-z])|~"), " "),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"=>"), r"\\Rightarrow "),
    (re.compile(r"\\(?:leqslant|leq|le)(?![A-Za-z])|<=|=<"), r"\\le "),
    (re.compile(r"\\(?:geqslant|geq|ge)(?![A-Za-z])|>="), r"\\ge "),
    (re.compile(r"\\lt(?![A-Za-z])"), "<"),
    (re.compile(r"\\gt(?![A-Za-z])"), ">"),
    (re.compile(r"\\neq(?![A-Za-z])|\\not\s*=|!="), r"\\ne "),
    (re.compile(r"\.(\d{0,30})\\dot\s*\{?(\d)\}?(?:(\d{0,30})\\dot\s*\{?(\d)\}?)?", re.ASCII), r".\1\\overline{\2\3\4}"),
    (re.compile(r"\.(\d{0,30})\\(?:bar|overline)\s*(?:\{(\d{1,30})\}|(\d)(?!\d))", re.ASCII), r".\1\\overline{\2\3}"),
    (re.compile(r"\\(?:varnothing|O)(?![A-Za-z])"), r"\\emptyset "),
    (re.compile(r"\\[lr]brace(?![A-Za-z])"), lambda found: "\\{" if found[0] == "\\lbrace" else "\\}"),
    (re.compile(r"\\(?:text|mathrm|textrm|mbox)\s*\{\s*,?\s*(or|and)\s*\}"), r" \1 "),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"(?<![\\A-Za-z])\+?(?:\\infty(?![A-Za-z])|infinity\b|inf\b|oo\b)"), r"\\infty "),
)
FUNCTIONS = re.findall(r"\w+", "sqrt pi sin cos tan cot sec csc log ln exp theta arcsin arccos arctan")
BARE = re.compile(rf"(?<![\\A-Za-z])(?:{'|'.join(FUNCTIONS)})(?![A-Za-z])")
ROOT = re.compile(r"\\sqrt\s*(?=\()")
LOOSE_ROOT = re.compile(r"\\sqrt\s+(\d+|[A-Za-z])")
LETTER = re.compile(r"\\[A-Za-z]+|[A-Z]")
COMMAND = re.compile(r"\\[A-Za-z]+")
TEXTUAL = re.compile(r"\\(?:text|mathrm|textrm|mbox|textbf|mathbf|textit|operatorname)\s*\{([^{}]*)\}")
TRAILING_TEXT = re.compile(r"\s*(\\(?:text|mathrm|textrm|mbox)\s*\{[^{}]*\}(?:\s*\^\s*\{?[23]\}?)?)\s*$")
WORD = re.compile(r"[A-Za-z]{3,}")
APPROXIMATELY = re.compile(r"\\approx.*", re.DOTALL)
UNFINISHED = ("\\int", "\\sum", "\\prod", "\\lim", "\\det", "\\frac{d}", "\\partial", "\\oint", "\\iint")
BOMBS = re.compile(
    r"\^\s*[{(\s]*-?\s*\d{4,}"  # an exponent of a thousand or more
    r"|\d\s*[})]*\s*\^\s*[{(\s]*-?\s*\d+\s*[})\s]*\^"  # powers of powers of numbers
    r"|\d{3,}\s*[})]*\s*!|!\s*[)}]*\s*!"  # factorials of large numbers, and of factorials
    r"|\\binom\s*\{?\s*\d{4,}|\d{60,}|\\u[0-9a-f]{4}|__|[\"'`;@&#$]{2}"
)
MAX_FORMULA_CHARACTERS = 400  # a new kind of formula of this length takes two CPU seconds to read
MAX_DEPTH = 24
MAX_POWERS = 24


def plain(text: str) -> str:
    """The text in one notation: LaTeX without delimiters, spacing and sizing commands."""
    if BARE_NUMBER.fullmatch(text):
        return text
    text = unwrap(EMPHASIS.sub(r"\2", HEADING.sub("", text))).translate(UNICODE)
    for pattern, replacement in REPLACED:
        text = pattern.sub(replacement, text)
    return unwrap(text.strip().removesuffix("."))


def compact(text: str) -> str:
    """The text without spaces and braces that change nothing: for comparing as strings."""
    text = re.sub(r"(\\frac)\s*(\d)\s*(\d)", r"\1{\2}{\3}", TEXTUAL.sub(r"\1", text))
    return re.sub(r"\{(\w)\}(?!\w)", r"\1", re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text)).removesuffix(".")


def spoken(text: str) -> str:
    """The words of a text, in lower case, without articles and brackets."""
    words = re.sub(r"[^\w\s-]", " ", TEXTUAL.sub(r" \1 ", text)).casefold().split()
    return " ".join(word for word in words if word not in ("the", "a", "an") or len(words) == 1)


def is_word(gold: str) -> bool:
    """Whether a gold answer is words or an option letter: \\text{even}, Monday, \\text{(C)}."""
    letters = TEXTUAL.sub(r"\1", gold)
    textual = letters != gold
    if not re.fullmatch(r"[\w\s().,'-]+", letters, re.ASCII) or re.search(r"\d", letters):
        return False
    option = re.fullmatch(r"\(?[A-Z]\)?", letters) is not None
    return textual or option or not set(WORD.findall(letters)) <= {*FUNCTIONS, "and"}


def has_words(text: str) -> bool:
    """Whether there are words that no formula has: prose, hedges, code."""
    text = re.sub(r"\\(?:begin|end)\s*\{[a-z]+\*?\}", " ", _without_unit(text))
    words = set(WORD.findall(COMMAND.sub(" ", text))) - set(FUNCTIONS)
    return bool(TEXTUAL.search(text)) or not all(map(str.isupper, words))


def in_latex(text: str) -> str:
    """A formula as LaTeX that the judge reads: \\sqrt{3} for `sqrt(3)`, no units at its end."""
    text = BARE.sub(lambda found: f"\\{found[0]} ", _without_unit(text))
    text = LOOSE_ROOT.sub(r"\\sqrt{\1}", text)
    while root := ROOT.search(text):
        end = closes_at(text, root.end())
        if end < 0:
            break
        text = f"{text[: root.start()]}\\sqrt{{{text[root.end() + 1 : end]}}}{text[end + 1 :]}"
    return APPROXIMATELY.sub("", text).strip()


def _without_unit(text: str) -> str:
    return split_unit(text)[0]


def split_unit(text: str) -> tuple[str, str]:
    """A formula without the unit at its end, and that unit in its common form, "" for none."""
    unit = TRAILING_TEXT.search(text)
    found = read_unit(unit[1], attached=False) if unit else None
    if unit and found and found[0] == 1 and found[1]:
        return text[: unit.start()], found[1]
    marks = DEGREES.findall(text)
    if len(marks) != 1:
        return text, ""
    return DEGREES.sub("", text), common(DEGREE_SIGN.sub("degree ", marks[0]))


def apart(answer: str, gold: str) -> tuple[str, str]:
    """Both formulas with capitals renamed where the gold one has a letter in both cases.

    The judge reads all letters in lower case.
    """
    letters = set(COMMAND.sub(" ", gold))
    capitals = sorted(letter for letter in letters if letter in string.ascii_uppercase and letter.lower() in letters)
    if not capitals:
        return answer, gold
    taken = {letter.lower() for letter in COMMAND.sub(" ", answer + " " + gold)}
    free = [letter for letter in "abcfghjklmnopqrstuvwxyz" if letter not in taken]
    names = dict(zip(capitals, free, strict=False))

    def rename(found: re.Match[str]) -> str:
        return names.get(found[0], found[0])

    return LETTER.sub(rename, answer), LETTER.sub(rename, gold)


def judgeable(answer: str, gold: str) -> bool:
    """Whether a symbolic judge may see the answer: ASCII, short, shallow, without huge powers."""
    return (
        0 < len(answer) <= MAX_FORMULA_CHARACTERS
        and answer.isascii()
        and answer.isprintable()
        and depth_of(answer) <= MAX_DEPTH
        and answer.count("^") <= MAX_POWERS
        and not BOMBS.search(answer)
        and not any(operation in answer and operation not in gold for operation in UNFINISHED)
    )
