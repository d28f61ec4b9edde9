"""Which words after a number are a unit, and when two units are the same."""

import re

from efficient_rl.rewards.latex import unwrap

CURRENCIES = {"US$": "dollar", "\\$": "dollar", "$": "dollar", "€": "euro", "£": "pound", "¥": "yen", "₹": "rupee"}
PERCENT = "percent"
DEGREE = "degree"
SPACING = re.compile(r"\\[ ,;:!]|~|\\(?:q?quad|thinspace)\b|[\u00a0\u2009\u202f]")
TEXT = re.compile(r"\\(?:text|mathrm|textrm|mbox|textnormal)\s*\{([^{}]*)\}")
POWER = re.compile(r"\s*(?:\^\s*\{?\s*([23])\s*\}?|([²³]))$")
DEGREES = re.compile(r"(?:\^\s*\{?\s*\\circ\s*\}?|°|\\degree)\s*[CF]?")
WORDS = re.compile(r"[A-Za-z]+(?:(?:[ -]|\s*/\s*)[A-Za-z]+(?:'s?)?){0,7}", re.ASCII)
_SHORT = """
    m g s h l cm mm km nm kg mg ml cl dl ft in yd mi lb lbs oz hr hrs min sec ms rs am pm mph kph kmh w kw v hz
    kb mb gb
"""
SHORT = frozenset(re.findall(r"\w+", _SHORT))
ALIASES = {
    "dollars": "dollar", "usd": "dollar", "bucks": "dollar", "percentage": PERCENT, "pct": PERCENT, "degrees": DEGREE,
    "m": "meter", "metre": "meter", "cm": "centimeter", "centimetre": "centimeter", "mm": "millimeter", "km": "kilometer",
    "kilometre": "kilometer", "in": "inch", "inches": "inch", "ft": "foot", "feet": "foot", "yd": "yard", "mi": "mile",
    "g": "gram", "kg": "kilogram", "lb": "pound", "lbs": "pound", "oz": "ounce", "l": "liter", "litre": "liter",
    "ml": "milliliter", "h": "hour", "hr": "hour", "hrs": "hour", "min": "minute", "s": "second", "sec": "second",
    "people": "person", "children": "child", "men": "man", "women": "woman", "miles/hour": "mph", "miles per hour": "mph",
}  # fmt: skip
_NOT_UNITS = """
    or and maybe perhaps possibly probably either not no nor but minus plus times over divided squared cubed
    hundred hundreds thousand thousands million millions billion billions trillion dozen dozens half halves
    third thirds fourth fourths fifth fifths tenth tenths pi to between through if unless except wrong about
    approximately around almost nearly roughly mod zero one two three four five six seven eight nine ten eleven
    twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy
    eighty ninety then instead sixth sixths seventh sevenths eighth eighths ninth ninths twelfth twelfths quarter
    quarters hundredth hundredths thousandth thousandths ten tens lakh lakhs crore crores gross score scores factorial
    inverse negative
"""
NOT_UNITS = frozenset(re.findall(r"\w+", _NOT_UNITS))


def unit_of(text: str, attached: bool) -> str | None:
    """The unit after a number, in a common form; "" for none, None for text that is no unit.

    `attached` says that no space parts it from the number: `7cm` and `7apples` carry a unit, `7x`
    and `7ab` do not.
    """
    text = SPACING.sub(" ", text).strip().rstrip(".").strip()
    if not text:
        return ""
    if text in ("%", "\\%"):
        return PERCENT
    if DEGREES.fullmatch(text):
        return DEGREE
    spelled = TEXT.sub(r" \1 ", text)
    attached = attached and spelled == text
    power = POWER.search(spelled)
    words = unwrap(spelled[: power.start()] if power else spelled).strip().rstrip(".").strip()
    if not WORDS.fullmatch(words) or not _named(words, attached):
        return None
    return _common(words) + ((power[1] or power[2]) if power else "")


def _named(words: str, attached: bool) -> bool:
    parts = re.split(r"[ \-/]+", words.lower())
    first = parts[0]
    if NOT_UNITS & set(parts):
        return False
    return first in SHORT or first in ("of", "a", "an") or len(first) >= (4 if attached else 3)


def _common(words: str) -> str:
    words = re.sub(r"\s*/\s*", "/", " ".join(words.lower().split()))
    last = ALIASES.get(words, words)
    return ALIASES.get(last.removesuffix("s"), last.removesuffix("s") if len(last) > 3 else last)


def same_unit(given: str, wanted: str) -> bool:
    """Whether two units are the same or one is missing; percent is not judged here."""
    if "" in (given, wanted) or PERCENT in (given, wanted):
        return True
    short, long = sorted((given.split(), wanted.split()), key=len)
    return short in (long[: len(short)], long[-len(short) :])
