"""Which Unicode scripts the letters of a language and of a text belong to."""

import unicodedata
from collections import Counter
from functools import lru_cache

LATIN = ("de", "en", "es", "fr", "id", "it", "nl", "pl", "pt", "sv", "sw", "tr", "vi")
SCRIPTS: dict[str, frozenset[str]] = {
    **dict.fromkeys(LATIN, frozenset({"LATIN"})),
    **dict.fromkeys(("bg", "ru", "uk"), frozenset({"CYRILLIC"})),
    **dict.fromkeys(("ar", "fa", "ur"), frozenset({"ARABIC"})),
    **dict.fromkeys(("hi", "mr", "ne"), frozenset({"DEVANAGARI"})),
    "bn": frozenset({"BENGALI"}),
    "el": frozenset({"GREEK"}),
    "he": frozenset({"HEBREW"}),
    "ja": frozenset({"KANA", "HAN"}),
    "ko": frozenset({"HANGUL"}),
    "ta": frozenset({"TAMIL"}),
    "te": frozenset({"TELUGU"}),
    "th": frozenset({"THAI"}),
    "zh": frozenset({"HAN"}),
}
SAME = {"CJK": "HAN", "KANGXI": "HAN", "IDEOGRAPHIC": "HAN", "HIRAGANA": "KANA", "KATAKANA": "KANA"}
SYMBOLS = ("MATHEMATICAL", "DOUBLE", "SCRIPT", "BLACK", "MICRO", "OHM", "KELVIN", "ANGSTROM", "MODIFIER", "FEMININE",
           "MASCULINE", "PLANCK", "SUPERSCRIPT", "SUBSCRIPT")  # fmt: skip


@lru_cache(maxsize=65_536)
def script_of(character: str) -> str:
    """The script of a letter: HAN, KANA, or its Unicode name's first word; "" for no script."""
    if not character.isalpha():
        return ""
    first, *others = unicodedata.name(character, "").replace("-", " ").split(" ")
    if first in ("FULLWIDTH", "HALFWIDTH"):
        first = others[0]
    return "" if first in SYMBOLS else SAME.get(first, first)


def letters_by_script(text: str) -> dict[str, int]:
    """How many letters of each script the text has."""
    found: dict[str, int] = {}
    for character, count in Counter(text).items():
        script = script_of(character)
        if script:
            found[script] = found.get(script, 0) + count
    return found
