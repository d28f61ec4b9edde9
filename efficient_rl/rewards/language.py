"""The reward for reasoning in the target language, recognized by the scripts of its letters."""

import re
from dataclasses import dataclass
from typing import Any

from efficient_rl.errors import require, require_one_of
from efficient_rl.rewards.columns import Completions, reasoning, whole_texts
from efficient_rl.rewards.scripts import SCRIPTS, letters_by_script

DELIMITED = (("```", "```"), ("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"))
FORMULA = re.compile(
    r"\$(?=[^\s$])[^$\n]{0,400}(?<=\S)\$(?!\d)"  # in dollars, but not the prices of "$5 and $7"
    r"|`[^`\n]{1,400}`"
    r"|</?[A-Za-z]{1,20}>"  # tags
    r"|\\[A-Za-z]{1,40}"  # LaTeX commands
    r"|(?<![^\W\d_])[A-Za-z](?![^\W\d_])"  # variables
)
SENTENCE = re.compile(r"[^\u3002\uff01\uff1f!?\n]+")
KANA_SHARE = 0.1


@dataclass(frozen=True)
class LanguageConsistency:
    """The share of the target language's letters in the reasoning (R1, arXiv:2501.12948).

    R1 counts words; letters by Unicode script need no list of words and no spaces between them.
    Code, formulas, tags and single-letter variables are left out first. Chinese and Japanese share
    characters: a sentence with kana is Japanese, one of Han characters alone is Chinese. Languages
    of one script count as one: English text counts in full for German. Completions with fewer
    than `min_letters` letters are not judged.
    """

    language: str = "en"
    min_letters: int = 20

    __name__ = "language"

    def __post_init__(self) -> None:
        require_one_of("reward.language.language", self.language, sorted(SCRIPTS))
        require(self.min_letters >= 1, "reward.language.min_letters", self.min_letters, "must be at least 1 letter")

    def __call__(self, completions: Completions, prefill: list[str] | None = None, **_: Any) -> list[float | None]:
        """One share in 0 to 1 a completion, None where too few letters remain."""
        return [self.share(reasoning(text)) for text in whole_texts(completions, prefill)]

    def share(self, text: str) -> float | None:
        """The share of the target language in a text, None below `min_letters` letters."""
        found = letters_by_script(without_formulas(text))
        total = sum(found.values())
        if total < self.min_letters:
            return None
        if self.language in ("ja", "zh") and "HAN" in found:
            return _east_asian(without_formulas(text), self.language) / total
        return sum(found.get(script, 0) for script in SCRIPTS[self.language]) / total


def without_formulas(text: str) -> str:
    """The text without code, formulas, tags and variables; what is never closed stays."""
    for opening, closing in DELIMITED:
        if opening in text:
            text = _cut(text, opening, closing)
    return FORMULA.sub(" ", text)


def _cut(text: str, opening: str, closing: str) -> str:
    """The text without what stands between the delimiters, in one pass."""
    kept, position = [], 0
    while (start := text.find(opening, position)) >= 0:
        end = text.find(closing, start + len(opening))
        if end < 0:
            break
        kept.append(text[position:start])
        position = end + len(closing)
    return " ".join([*kept, text[position:]])


def _east_asian(text: str, language: str) -> int:
    """Letters of Japanese or Chinese sentences; a tenth of kana makes a sentence Japanese."""
    letters = 0
    for sentence in SENTENCE.findall(text):
        found = letters_by_script(sentence)
        kana, han = found.get("KANA", 0), found.get("HAN", 0)
        japanese = kana > KANA_SHARE * (kana + han)
        if language == "ja":
            letters += kana + han if japanese else kana
        elif not japanese:
            letters += han
    return letters
