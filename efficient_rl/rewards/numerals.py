"""Reads numbers as people and LaTeX write them, exactly, and says when two agree."""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from efficient_rl.rewards.arithmetic import Value, evaluate
from efficient_rl.rewards.latex import is_enclosed, sides
from efficient_rl.rewards.names import is_name
from efficient_rl.rewards.notation import plain
from efficient_rl.rewards.units import CURRENCIES, PERCENT, read_unit, same_unit

MAX_CHARACTERS = 200
PLAIN = re.compile(r"([+-]?)(\d{1,100})(?:\.(\d{1,100}))?\.?", re.ASCII)
FRACTION = re.compile(
    r"(-?)\s*\\frac\s*(?:\{\s*([+-]?)\s*(\d{1,100})\s*\}|(\d))\s*(?:\{\s*([+-]?)\s*(\d{1,100})\s*\}|(\d))", re.ASCII
)
THOUSANDS = re.compile(r"(?<![\d.])[1-9]\d{0,2}(?:,\d{3})+(?!\d)", re.ASCII)
IN_BRACKETS = re.compile(r"([+-]?)\s*\((.*)\)", re.DOTALL)
NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s*(?P<money>{'|'.join(map(re.escape, CURRENCIES))})?\s*(?P<low>[+-]?)\s*"
    r"(?:(?:(?P<mixed>\d{1,100})\s+)?(?P<top>\d{1,100})\s*/\s*(?P<open>\(\s*)?(?P<below>-?)(?P<bottom>\d{1,100})(?!\d)(?(open)\s*\))"
    r"|(?P<whole>\d{0,100})(?:\.(?P<decimals>\d{0,100})(?:\\overline\s*\{\s*(?P<again>\d{1,100})\s*\})?)?(?!\d)"
    r"(?:\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{\s*(?P<power>[+-]?\d{1,2})\s*\}|(?P<digit>\d)))?)"
    r"(?P<gap>\s*)(?P<unit>.*)",
    re.ASCII | re.DOTALL,
)
BRACED = re.compile(r"\\\{(.+)\\\}", re.DOTALL)  # a set of one
PRODUCT = re.compile(r"\\times|\\cdot")


@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact value with its unit: 50% is 1/2 in percent; `unreduced` marks 84/2, left undone."""

    value: Fraction
    unit: str = ""
    unreduced: bool = False


def parse_number(text: str) -> Fraction | None:
    """The exact value of one number, or None for anything else, 50% being 1/2.

    Accepted: `1,234`, `1\\,234`, `$5.50`, `-3`, `.5`, `7.`, `1/2`, `\\frac{1}{2}`, `3 1/2`,
    `0.\\overline{3}`, `1.5 \\times 10^{3}`, `7 million`, `$5M`, a unit behind it, LaTeX or Markdown
    delimiters around it. Only ASCII digits, at most 100 in a row, 200 characters in all.
    """
    found = read_quantity(plain(text)) if len(text) <= MAX_CHARACTERS else None
    return None if found is None else found.value


@lru_cache(maxsize=4096)
def read_quantity(text: str) -> Quantity | None:
    """The number that a text in plain notation is, with its unit, or None; see `parse_number`."""
    if len(text) > MAX_CHARACTERS:
        return None
    bare = PLAIN.fullmatch(text)
    if bare:
        sign, whole, decimals = bare.groups()
        return Quantity(_signed(_decimal(whole, decimals or ""), sign))
    before = ""
    while (bracketed := IN_BRACKETS.fullmatch(text)) and is_enclosed(text[len(bracketed[1]) :].strip()):
        if before and bracketed[1]:
            return None
        before, text = before or bracketed[1], bracketed[2].strip()
    match = NUMBER.fullmatch(FRACTION.sub(_ratio_of, THOUSANDS.sub(_joined, text)).strip())
    if match is None or (before and (match["sign"] or match["low"])):
        return None
    return _quantity(match, before)


def _joined(grouped: re.Match[str]) -> str:
    return grouped[0].replace(",", "")


def _ratio_of(fraction: re.Match[str]) -> str:
    before, above, top, digit, below, bottom, low_digit = fraction.groups(default="")
    sign = "-" * ((before + above + below).count("-") % 2)
    return f" {sign}{top or digit}/{bottom or low_digit} "


def _quantity(match: re.Match[str], before: str) -> Quantity | None:
    part = match.groupdict(default="")
    value = _ratio(part) if part["bottom"] else _scaled(part)
    found = read_unit(part["unit"], attached=not part["gap"], currency=CURRENCIES.get(part["money"], ""))
    if value is None or found is None or (part["sign"] and part["low"]):
        return None
    factor, unit = found
    value = _signed(value, before or part["sign"] or part["low"])
    undone = bool(part["bottom"]) and not part["mixed"] and int(part["bottom"]) != 1 and value.denominator == 1
    value *= factor
    return Quantity(value / 100 if unit == PERCENT else value, unit, undone)


def _signed(value: Fraction, sign: str) -> Fraction:
    return value if sign in ("", "+") else -value


def _decimal(whole: str, decimals: str) -> Fraction:
    return Fraction(int(whole + decimals), 10 ** len(decimals))


def _ratio(part: dict[str, str]) -> Fraction | None:
    top, bottom = int(part["top"]), int(part["bottom"])
    if bottom == 0 or (part["mixed"] and (top >= bottom or part["below"])):
        return None
    return _signed(Fraction(top, bottom), part["below"]) + int(part["mixed"] or 0)


def _scaled(part: dict[str, str]) -> Fraction | None:
    if not (part["whole"] or part["decimals"] or part["again"]):
        return None
    value = _decimal(part["whole"] or "0", part["decimals"])
    if part["again"]:
        value += Fraction(int(part["again"]), 10 ** len(part["decimals"]) * (10 ** len(part["again"]) - 1))
    return value * Fraction(10) ** int(part["power"] or part["digit"] or 0)


def answers(text: str, wanted: Quantity) -> bool:
    """Whether a text in plain notation gives exactly the wanted number, also as an equation.

    Of the sides of an equation those that only name something (see `is_name`) do not count; all
    others must be the wanted number: `x + y = 3 + 4 = 7`, `7 = x`. 50% is 0.5 and, as questions
    that ask for a percentage have bare answers, also 50 (not 0.5% for 0.5); a bare 50 is 50%. Units
    that contradict each other are wrong, and so is a division left undone (84/2) where a whole
    number is wanted.
    """
    if len(text) > MAX_CHARACTERS:
        return False
    alone = BRACED.fullmatch(text)
    *before, last = values(alone[1] if alone else text) or [""]
    given = read_quantity(last)
    return given is not None and _agree(given, wanted) and set(map(_worth, before)) <= {wanted.value}


def values(text: str) -> list[str]:
    """The sides of an equation that are no names, without an empty one in front."""
    first, *others = sides(text)
    stated = [first, *others] if first or not others else others
    return [side for side in stated if read_quantity(side) is not None or not is_name(side)]


def _agree(given: Quantity, wanted: Quantity) -> bool:
    if given.unreduced and wanted.value.denominator == 1 and not wanted.unreduced:
        return False
    if (given.unit, wanted.unit) == ("", PERCENT) and given.value == 100 * wanted.value:
        return True
    if (given.unit, wanted.unit) == (PERCENT, "") and 100 * given.value == wanted.value and abs(wanted.value) >= 1:
        return True
    return same_unit(given.unit, wanted.unit) and given.value == wanted.value


def _worth(side: str) -> Value | None:
    found = evaluate(PRODUCT.sub("*", side).replace("\\div", "/"), strict=True)
    if found is not None:
        return found.value
    quantity = read_quantity(side)
    return None if quantity is None else quantity.value
