"""Which words after a number are a unit or a magnitude, and when two units are the same."""

import re

from efficient_rl.rewards.latex import unwrap

CURRENCIES = {
    "US$": "dollar", "USD": "dollar", "\\$": "dollar", "$": "dollar", "EUR": "euro", "€": "euro", "GBP": "sterling",
    "£": "sterling", "¥": "yen", "₹": "rupee", "Rs.": "rupee", "Rs": "rupee", "INR": "rupee", "¢": "cent",
}  # fmt: skip
MONIES = {*CURRENCIES.values(), "pound", "penny", "pence"}
PERCENT = "percent"
SPACING = re.compile(r"\\[ ,;:!]|~|\\(?:q?quad|thinspace)\b|[\u00a0\u2009\u202f]")
TEXT = re.compile(r"\\(?:text|mathrm|textrm|mbox|textnormal)\s*\{([^{}]*)\}")
POWER = re.compile(r"\s*\^\s*\{?\s*([23])\s*\}?$")
DEGREE_SIGN = re.compile(r"(?:\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z]))")
DEGREES = re.compile(DEGREE_SIGN.pattern + r"\s*(?:[CF](?![A-Za-z]))?")
MONEY = re.compile(r"\\?\$|[€£¥₹¢]")
WORDS = re.compile(r"[A-Za-z]+(?:(?:[ -]|\s*/\s*)[A-Za-z]+(?:'s?)?){0,7}", re.ASCII)
MAGNITUDES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
OF_MONEY = {"k": 10**3, "m": 10**6, "mm": 10**6, "mn": 10**6, "b": 10**9, "bn": 10**9, "t": 10**12, "tn": 10**12}
MAGNITUDE = re.compile(rf"({'|'.join(MAGNITUDES)})s?(?![A-Za-z])", re.IGNORECASE)
MONEY_MAGNITUDE = re.compile(rf"({'|'.join(sorted(OF_MONEY, key=len, reverse=True))})(?![A-Za-z])", re.IGNORECASE)


def _spellings(lines: str) -> dict[str, str]:
    """What each line names first, by all the spellings that follow it."""
    found: dict[str, str] = {}
    for line in lines.strip().splitlines():
        unit, *spellings = line.split()
        found |= dict.fromkeys(spellings, unit)
    return found


SYMBOLS = _spellings("""
    meter m
    centimeter cm CM
    millimeter mm
    nanometer nm
    decimeter dm
    kilometer km Km KM
    gram g
    kilogram kg Kg KG
    milligram mg
    lb lb lbs
    ounce oz
    liter l L
    milliliter ml mL
    centiliter cl cL
    deciliter dl dL
    foot ft
    inch in
    yard yd
    mile mi
    hour h hr hrs
    minute min
    second s sec
    millisecond ms
    rupee rs Rs
    am am AM
    pm pm PM
    mile/hour mph MPH
    kilometer/hour kph KPH kmh
    watt w W
    kilowatt kw kW
    volt v V
    hertz hz Hz
    kilobyte kb kB KB
    megabyte mb MB
    gigabyte gb GB
    square sq
    cubic cu
""")  # in exactly these spellings: 5 mm is a length, 5 MM is not
ALIASES = _spellings("""
    dollar usd buck
    euro eur
    sterling gbp
    rupee inr
    percent percentage pct
    degree deg
    meter metre
    centimeter centimetre
    millimeter millimetre
    kilometer kilometre
    liter litre
    inch inches
    foot feet
    second sec
    minute min
    hour hr hrs
    lb lbs
    meter^2 sqm
    foot^2 sqft
    kilometer/hour kmph
    person people
    child children
    man men
    woman women
""")  # in lower case, in the singular where they have one
PHRASES = {
    "degree celsius": "celsius", "degree c": "celsius", "degree fahrenheit": "fahrenheit", "degree f": "fahrenheit",
    "pound sterling": "sterling",
}  # fmt: skip
POWERS = {"square": "^2", "squared": "^2", "cubic": "^3", "cubed": "^3"}
MEANINGS = {"degree": {"degree", "celsius", "fahrenheit"}, "pound": {"pound", "lb", "sterling"}}
ARTICLES = ("of", "a", "an", "the")
PER_CENT = re.compile(r"\bper cent\b", re.IGNORECASE)
PER = re.compile(r"\s*(?:/|\bper\b|(?<!\bof )\b(?:an?|each|every)\b(?=\s+\w))\s*", re.IGNORECASE)
PLURAL = re.compile(r"(?<=ss)es$|(?<=x)es$|(?<=ch)es$|(?<=sh)es$|(?<=[a-z]{2}[^su])s$")
NUMBER_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
        eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion trillion
        """,
    )
)
NOT_UNITS = NUMBER_WORDS | set(
    re.findall(
        r"\w+",
        """
        or and maybe perhaps possibly probably either not no nor but minus plus times over divided squared cubed
        hundreds thousands millions billions trillions half halves dozen dozens mil mill mln mio bil thou grand fold ish
        third thirds fourth fourths fifth fifths tenth tenths pi to between through if unless except wrong about
        approximately around almost nearly roughly mod then instead sixth sixths seventh sevenths eighth eighths ninth
        ninths twelfth twelfths quarter quarters hundredth hundredths thousandth thousandths tens lakh lakhs crore crores
        gross score scores factorial inverse negative sin cos tan cot csc log exp sqrt
        """,
    )
)


def read_unit(text: str, attached: bool, currency: str = "") -> tuple[int, str] | None:
    """The factor and the unit after a number, in a common form; None for text that is neither.

    `7 million km` has the factor 1,000,000 and the unit `kilometer`, without either (1, "").
    `currency` stands in front of the number; with one, `M` is a million. `attached` says that no
    space parts the text from the number: `7cm` and `7apples` carry a unit, `7x` and `7ab` do not.
    """
    text = SPACING.sub(" ", text).strip()
    if text in ("%", "\\%"):
        return None if currency else (1, PERCENT)
    spelled = MONEY.sub(lambda mark: f" {CURRENCIES[mark[0]]} ", TEXT.sub(r" \1 ", text))
    spelled = " ".join(DEGREE_SIGN.sub(" degree ", spelled).removesuffix(".").split())
    attached = attached and spelled == " ".join(text.removesuffix(".").split())
    factor, rest = _magnitude(spelled, with_money=bool(currency or MONEY.search(text)))
    if currency and rest.startswith("/"):
        rest = "per " + rest[1:]
    unit = _unit(rest, attached and rest == spelled)
    if unit is None or not currency:
        return None if unit is None else (factor, unit)
    named = unit.partition("/")[0].partition(" ")[0]
    if named in MONIES:
        return (factor, unit) if same_unit(named, currency) else None
    return factor, currency + unit[len(unit.partition("/")[0]) :]


def _magnitude(text: str, with_money: bool) -> tuple[int, str]:
    """The factor at the beginning of a text, and the rest of it."""
    word = MAGNITUDE.match(text)
    if word:
        return MAGNITUDES[word[1].lower()], text[word.end() :].strip()
    letters = MONEY_MAGNITUDE.match(text) if with_money else None
    if letters:
        return OF_MONEY[letters[1].lower()], text[letters.end() :].strip()
    return 1, text


def _unit(text: str, attached: bool) -> str | None:
    power = POWER.search(text)
    words = unwrap(text[: power.start()] if power else text).strip().removesuffix(".")
    if not words and not power:
        return ""
    if not WORDS.fullmatch(words) or not _named(words, attached):
        return None
    return common(words) + (f"^{power[1]}" if power else "")


def _named(words: str, attached: bool) -> bool:
    first, *others = re.split(r"[ \-/]+", words)
    known = {first.lower(), *map(str.lower, others)} - {"squared", "cubed"}
    if NOT_UNITS & known or not known:
        return False
    return first in SYMBOLS or (first in ARTICLES and bool(others)) or len(first) >= (4 if attached else 3)


def common(words: str) -> str:
    """A unit in words or symbols in a common form: `meter^2` for `square meters`, `mile/hour`."""
    parts = PER.sub("/", PER_CENT.sub(PERCENT, words)).split("/")
    return "/".join(map(_noun, parts))


def _noun(words: str) -> str:
    found = list(map(_singular, words.split()))
    power = ""
    for word in (found[0], found[-1]) if len(found) > 1 else ():
        power = power or POWERS.get(word, "")
    kept = [word for word in found if word not in ARTICLES and not (power and word in POWERS)]
    noun = kept[0] if kept and kept[0] in MONIES else " ".join(kept)  # 18 dollars in all
    return PHRASES.get(noun, noun) + power


def _singular(word: str) -> str:
    if word in SYMBOLS:
        return SYMBOLS[word]
    word = word.lower()
    if word not in ALIASES:
        word = PLURAL.sub("", re.sub(r"(?<=[a-z]{2})ies$", "y", word))
    return ALIASES.get(word, word)


def same_unit(given: str, wanted: str) -> bool:
    """Whether two common forms are the same unit or one is missing; percent is not judged here.

    Units are compared as a whole: `person/day` is not `day`. `degree` may be either scale's.
    """
    if "" in (given, wanted) or PERCENT in (given, wanted):
        return True
    first, second = given.split("/"), wanted.split("/")
    return len(first) == len(second) and all(map(_same_noun, first, second))


def _same_noun(given: str, wanted: str) -> bool:
    return not MEANINGS.get(given, {given}).isdisjoint(MEANINGS.get(wanted, {wanted}))
