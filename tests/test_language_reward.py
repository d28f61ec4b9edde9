"""The language reward knows scripts, leaves mathematics out, and says what it cannot tell apart."""

import gzip
import json
import time
from pathlib import Path

import pytest

from efficient_rl.rewards.language import LanguageConsistency, without_formulas
from efficient_rl.rewards.scripts import SCRIPTS, letters_by_script, script_of

MGSM = Path(__file__).resolve().parents[2] / "shared" / "data" / "mgsm" / "test.jsonl.gz"
needs_mgsm = pytest.mark.skipif(not MGSM.exists(), reason="MGSM is not part of the project; put it beside the checkout")
WORDS = "we add the apples of both baskets "


def mgsm() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with gzip.open(MGSM, "rt") as lines:
        for row in map(json.loads, lines):
            found.setdefault(row["lang"], []).append(row["question"])
    return found


def test_the_value_is_the_share_of_letters() -> None:
    text = "abcdefghij \u0430\u0431\u0432\u0433\u0434\u0435\u0436\u0437\u0438\u043a"  # ten of each script
    assert LanguageConsistency("en").share(text) == 0.5
    assert LanguageConsistency("ru").share(text + "xx xx xxxxxx") == pytest.approx(1 / 3)


def test_few_letters_give_no_verdict() -> None:
    assert LanguageConsistency("en")(["a" * 19, "a" * 20, "<think>3*7=21</think><answer>21</answer>"]) == [None, 1.0, None]
    assert LanguageConsistency("en", min_letters=5).share("a" * 5) == 1.0


FORMULAS = [
    *("$x + \\text{abcdefgh}$", "$$\nabcdefgh\n$$", "\\(abcdefgh\\)", "\\[abcdefgh\\]", "```python\nabcdefgh\n```"),
    *("`abcdefgh`", "\\alpha\\beta", "<think>", "x"),
]


@pytest.mark.parametrize("formula", FORMULAS)
def test_mathematics_and_code_count_for_no_language(formula: str) -> None:
    russian = "\u0441\u043b\u043e\u0436\u0438\u043c \u044f\u0431\u043b\u043e\u043a\u0438 \u043e\u0431\u0435\u0438\u0445"
    assert LanguageConsistency("ru").share(f"{russian} {formula} {russian}") == 1.0


def test_prices_are_no_formulas() -> None:
    for text in ("one costs $5 and the other costs $7 more", "between $5-$7 or $5each and$7"):
        assert without_formulas(text) == text


def test_what_is_never_closed_stays() -> None:
    assert "hidden" in without_formulas("``` hidden words")
    assert "hidden" in without_formulas("\\[ hidden words")


def test_the_answer_is_not_reasoning() -> None:
    text = f"<think>{WORDS}</think><answer>\u043e\u0442\u0432\u0435\u0442 \u043e\u0442\u0432\u0435\u0442</answer>"
    assert LanguageConsistency("en")([text]) == [1.0]


def test_empty_think_tags_hide_nothing() -> None:
    text = "<think></think>" + "\u0441\u043b\u043e\u0432\u043e" * 10 + "<answer>4</answer>"
    assert LanguageConsistency("en")([text]) == [0.0]


def test_latin_languages_are_not_told_apart() -> None:
    assert LanguageConsistency("de").share(WORDS) == LanguageConsistency("sw").share(WORDS) == 1.0


def test_han_characters_are_chinese_or_japanese_by_their_sentence() -> None:
    chinese, japanese = (
        "\u6211\u4eec\u628a\u82f9\u679c\u52a0\u8d77\u6765\u3002",
        "\u308a\u3093\u3054\u3092\u8db3\u3057\u307e\u3059\u3002",
    )
    for text, ja, zh in ((chinese * 4, 0.0, 1.0), (japanese * 4, 1.0, 0.0), ((chinese + japanese) * 4, 0.5, 0.5)):
        assert LanguageConsistency("ja").share(text) == pytest.approx(ja, abs=0.05)
        assert LanguageConsistency("zh").share(text) == pytest.approx(zh, abs=0.05)


CHARACTERS = {
    "LATIN": "a\u00df\uff41",
    "CYRILLIC": "\u0431",
    "HAN": "\u6f22",
    "KANA": "\u3042\uff71\u30fc",
    "HANGUL": "\ud55c",
    "THAI": "\u0e01",
    "": "3 \U0001d465\u00b5\ue000",
}


@pytest.mark.parametrize(("character", "script"), [(each, script) for script, text in CHARACTERS.items() for each in text])
def test_letters_know_their_script(character: str, script: str) -> None:
    assert script_of(character) == script


def test_letters_are_counted_by_script() -> None:
    assert letters_by_script("ab \u0431 12") == {"LATIN": 2, "CYRILLIC": 1}


@needs_mgsm
def test_every_language_of_mgsm_is_recognised_by_its_script() -> None:
    texts = mgsm()
    assert len(texts) == 11
    for target in texts:
        reward = LanguageConsistency(target)
        for language, questions in texts.items():
            same = SCRIPTS[language] == SCRIPTS[target]
            shares = reward(questions)
            assert all(share is not None and (share > 0.5) == same for share in shares), (target, language)


@needs_mgsm
def test_thousands_of_texts_a_second() -> None:
    texts = [question for questions in mgsm().values() for question in questions]
    for language in ("en", "ru", "zh"):
        reward, best = LanguageConsistency(language), 1.0
        for _ in range(5):
            start = time.process_time()
            reward(texts)
            best = min(best, time.process_time() - start)
        assert len(texts) / best > 10_000  # twice that on a quiet core
