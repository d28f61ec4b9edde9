"""Reads numbers as people and LaTeX write them, exactly, and says when two agree."""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from efficient_rl.rewards.arithmetic import Value, evaluate
from efficient_rl.rewards.latex import closes_at, sides, unwrap
from efficient_rl.rewards.units import CURRENCIES, PERCENT, same_unit, unit_of

MAX_CHARACTERS = 200
PLAIN = re.compile(r"([+-]?)(\d{1,100})(?:\.(\d{1,100}))?\.?", re.ASCII)
FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{\s*([+-]?\s*\d{1,100})\s*\}|(\d))\s*(?:\{\s*(\d{1,100})\s*\}|(\d))", re.ASCII)
GROUP = r"(?:,|\{,\}|,\\!|\\,|\\ |~|[\u00a0\u2009\u202f])"
THOUSANDS = re.compile(rf"(?<![\d.])[1-9]\d{{0,2}}(?:{GROUP}\d{{3}})+(?!\d)", re.ASCII)
NUMBER = re.compile(
    rf"(?P<sign>[+\-\u2212\u2013]?)\s*(?P<money>{'|'.join(map(re.escape, CURRENCIES))})?\s*(?P<low>[+\-]?)\s*"
    r"(?:(?:(?P<mixed>\d{1,100})\s+)?(?P<top>\d{1,100})\s*/\s*(?P<bottom>\d{1,100})(?!\d)"
    r"|(?P<whole>\d{0,100})(?:\.(?P<decimals>\d{0,100})(?:\\overline\s*\{\s*(?P<again>\d{1,100})\s*\})?)?(?!\d)"
    r"(?:\s*(?:\\times|\\cdot|\u00d7|\*)\s*10\s*\^\s*(?:\{\s*(?P<power>[+-]?\d{1,2})\s*\}|(?P<digit>\d)))?)"
    r"(?P<gap>\s*)(?P<unit>.*)",
    re.ASCII | re.DOTALL,
)
PRODUCT = re.compile(r"\\times|\\cdot|\u00d7")


@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact value with its unit: 50% is 1/2 in percent; `unreduced` marks 84/2, left undone."""

    value: Fraction
    unit: str = ""
    unreduced: bool = False


def parse_number(text: str) -> Fraction | None:
    """The exact value of one number, or None for anything else, 50% being 1/2.

    Accepted: `1,234`, `1\\,234`, `$5.50`, `-3`, `.5`, `7.`, `1/2`, `\\frac{1}{2}`, `3 1/2`,
    `0.\\overline{3}`, `1.5 \\times 10^{3}`, a unit behind it, LaTeX or Markdown delimiters around
    it. Only ASCII digits, at most 100 in a row, 200 characters in all.
    """
    found = read_quantity(text)
    return None if found is None else found.value


@lru_cache(maxsize=4096)
def read_quantity(text: str) -> Quantity | None:
    """The number that a text is, with its unit, or None; see `parse_number`."""
    if len(text) > MAX_CHARACTERS:
        return None
    plain = PLAIN.fullmatch(text.strip())
    if plain:
        sign, whole, decimals = plain.groups()
        return Quantity(_signed(_decimal(whole, decimals or ""), sign))
    text = unwrap(text)
    if text.startswith("(") and closes_at(text, 0) == len(text) - 1:
        text = text[1:-1].strip()
    text = FRACTION.sub(lambda f: f" {(f[1] or f[2]).replace(' ', '')}/{f[3] or f[4]} ", text).strip()
    match = NUMBER.fullmatch(THOUSANDS.sub(lambda grouped: re.sub(r"\D", "", grouped[0]), text))
    return _quantity(match) if match else None


def _quantity(match: re.Match[str]) -> Quantity | None:
    part = match.groupdict(default="")
    value = _ratio(part) if part["bottom"] else _scaled(part)
    unit = unit_of(part["unit"], attached=not part["gap"])
    if value is None or unit is None or (part["sign"] and part["low"]) or (part["money"] and unit == PERCENT):
        return None
    value = _signed(value, part["sign"] or part["low"])
    undone = bool(part["bottom"]) and not part["mixed"] and int(part["bottom"]) != 1 and value.denominator == 1
    if part["money"]:
        unit = f"{CURRENCIES[part['money']]} {unit}".strip()
    if unit == PERCENT:
        value /= 100
    return Quantity(value, unit, undone)


def _signed(value: Fraction, sign: str) -> Fraction:
    return value if sign in ("", "+") else -value


def _decimal(whole: str, decimals: str) -> Fraction:
    return Fraction(int(whole + decimals), 10 ** len(decimals))


def _ratio(part: dict[str, str]) -> Fraction | None:
    top, bottom = int(part["top"]), int(part["bottom"])
    if bottom == 0 or (part["mixed"] and top >= bottom):
        return None
    return Fraction(top, bottom) + int(part["mixed"] or 0)


def _scaled(part: dict[str, str]) -> Fraction | None:
    if not (part["whole"] or part["decimals"] or part["again"]):
        return None
    value = _decimal(part["whole"] or "0", part["decimals"])
    if part["again"]:
        value += Fraction(int(part["again"]), 10 ** len(part["decimals"]) * (10 ** len(part["again"]) - 1))
    return value * Fraction(10) ** int(part["power"] or part["digit"] or 0)


def answers(text: str, wanted: Quantity) -> bool:
    """Whether a text gives exactly the wanted number, also as an equation: `x = 3 + 4 = 7`.

    50% is 0.5 and, as questions that ask for a percentage have bare answers, also 50 (not 0.5% for
    0.5); a bare 50 is 50%. Units that contradict each other are wrong, and so is a division left
    undone (84/2) where a whole number is wanted.
    """
    if len(text) > MAX_CHARACTERS:
        return False
    *before, last = sides(unwrap(text))
    given = read_quantity(last)
    return given is not None and _agree(given, wanted) and set(map(_worth, before)) <= {wanted.value}


def _agree(given: Quantity, wanted: Quantity) -> bool:
    if given.unreduced and wanted.value.denominator == 1 and not wanted.unreduced:
        return False
    if (given.unit, wanted.unit) == ("", PERCENT) and given.value == 100 * wanted.value:
        return True
    if (given.unit, wanted.unit) == (PERCENT, "") and 100 * given.value == wanted.value and abs(wanted.value) >= 1:
        return True
    return same_unit(given.unit, wanted.unit) and given.value == wanted.value


def _worth(side: str) -> Value | None:
    written = PRODUCT.sub("*", side).replace("\u00f7", "/").replace("\\div", "/")
    found = evaluate(written, strict=True)
    return found.value if found is not None else parse_number(side)
