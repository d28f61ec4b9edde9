"""The checkers give the right verdict on hard answers and never execute, raise or hang."""

import re
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficient_rl.rewards.answer import Accuracy, AnswerFormat
from efficient_rl.rewards.arithmetic import evaluate
from efficient_rl.rewards.extract import last_box
from efficient_rl.rewards.verify import (
    CHECKERS,
    PLACES,
    extract_answer,
    is_correct,
    math,
    number,
    parse_number,
)
from tests.conftest import ROOT

GOLD = {"numbers": [3, 7, 2], "target": 24}


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("(7+3+2)*2", False),  # 2 twice
        ("3*7+2", False),  # 23
        ("2*(7+3)", False),  # 20
        ("(3+7)*2+4", False),
        ("7*3+3", False),
        ("", False),
        ("24", False),
        ("9**9**9**9", False),
        ("7//3*2", False),
        ("__import__('os').system('true')", False),
        ("(" * 500, False),
        ("3/0*7+2", False),
        ("３+７*2", False),
        ("0x3+7*2", False),
        ("3.0*7+2", False),
        ("1" * 100_000, False),
        ("3*(7+2)-3", False),
    ],
)
def test_wrong_countdown_answers_are_wrong(answer: str, right: bool) -> None:
    assert is_correct(f"<answer>{answer}</answer>", "countdown", GOLD) is right


@pytest.mark.parametrize(
    ("numbers", "target", "answer"),
    [
        ([3, 7, 2], 23, "3*7+2"),
        ([6, 4, 2], 3, "6/4*2"),
        ([1, 3, 6], 2, "6/(1*3)"),
        ([5, 8], -3, "5-8"),
        ([2, 9], 7, " -2 + 9 "),
    ],
)
def test_right_countdown_answers_are_right_with_exact_fractions(numbers: list[int], target: int, answer: str) -> None:
    assert is_correct(f"so <answer>{answer}</answer>", "countdown", {"numbers": numbers, "target": target})


@pytest.mark.parametrize(
    ("text", "value"),
    [("42", 42), (" -3 ", -3), ("0.5", Fraction(1, 2)), ("1/2", Fraction(1, 2)), ("2/4", Fraction(1, 2)), ("+7", 7)],
)
def test_numbers_are_read_exactly(text: str, value: Fraction) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text", ["7 or 8", "1,2", "٣", "0x10", "1e3", "1/0", "--3", "", "9" * 101, "nan", "inf", "1_000", "½"]
)
def test_what_is_not_one_plain_number_is_no_number(text: str) -> None:
    assert parse_number(text) is None


def test_the_last_closed_answer_counts() -> None:
    assert extract_answer("<answer>1</answer> no, <answer> 2 </answer>") == "2"
    assert extract_answer("<answer>1</answer> then <answer>2") == "1"
    assert extract_answer("no tags") is None
    assert extract_answer("</answer><answer>") is None


def test_tinyzero_values_are_0_and_a_tenth_and_1() -> None:
    completions = ["3*7+2", "<answer>3*7</answer>", "<answer>3*7+2</answer>"]
    gold = ['{"numbers": [3, 7, 2], "target": 23}'] * 3
    accuracy = Accuracy()(completions=completions, check=["countdown"] * 3, gold=gold)
    layout = AnswerFormat()(completions=completions)
    assert [0.1 * f + 0.9 * a for f, a in zip(layout, accuracy, strict=True)] == pytest.approx([0.0, 0.1, 1.0])


@given(st.text(st.characters(), max_size=400), st.sampled_from(PLACES))
@settings(max_examples=500, deadline=None)
def test_no_text_makes_a_checker_raise(text: str, place: str) -> None:
    for check, gold in (
        ("countdown", GOLD),
        ("number", {"answer": "5"}),
        ("math", {"answer": "5"}),
        ("choice", {"answer": "B"}),
    ):
        for completion in (text, f"<answer>{text}</answer>", f"\\boxed{{{text}}}", f"#### {text}"):
            assert is_correct(completion, check, gold, place) in (True, False)


def grouped(value: int, mark: str) -> str:
    return f"{value:,}".replace(",", mark)


def printed(value: Fraction) -> list[str]:
    """The forms in which people and LaTeX write a number."""
    top, bottom, sign = abs(value.numerator), value.denominator, "-" if value < 0 else ""
    if bottom == 1:
        forms = [
            f"{top}",
            f"{top}.",
            f"{top}.0",
            f"{top}.00",
            f"0{top}",
            f"{top}/1",
            f"{top} apples",
            f"{top}\\text{{ m}}^2",
        ]
        forms += [grouped(top, mark) for mark in (",", "\\,", "{,}", ",\\!", "\u202f")]
        forms += [f"${top}", f"\\${top}", f"{top} \\times 10^0", f"{top}^\\circ", f"{100 * top}%", f"{100 * top}\\%"]
    else:
        forms = [f"{top}/{bottom}", f"{top} / {bottom}", f"{3 * top}/{3 * bottom}"]
        forms += [f"\\{kind}{{{top}}}{{{bottom}}}" for kind in ("frac", "dfrac", "tfrac")]
        if top > bottom:
            whole, rest = divmod(top, bottom)
            forms += [f"{whole} {rest}/{bottom}", f"{whole}\\frac{{{rest}}}{{{bottom}}}"]
        if 10**6 % bottom == 0:
            forms += [f"{top * 10**6 // bottom / 10**6:.6f}", f"{top * 10**6 // bottom}\\cdot 10^{{-6}}"]
    signed = [sign + form for form in forms]
    plain = [f"{sign}{form}" for form in forms if not form.endswith(".")]
    return signed + [
        form.format(text) for text in plain[:3] for form in ("${}$", "**{}**", "x = {}", "\\text{{{}}}", "({})")
    ]


@given(
    st.fractions(min_value=-(10**9), max_value=10**9, max_denominator=1000) | st.integers(-(10**12), 10**12).map(Fraction)
)
@settings(max_examples=300, deadline=None)
def test_every_printed_form_of_a_number_is_that_number_and_not_the_next(value: Fraction) -> None:
    for form in printed(value):
        for judge in (number, math):
            assert judge(form, {"answer": str(value)}), (form, value)
            assert not judge(form, {"answer": str(value + 1)}), (form, value)
            assert value == 0 or not judge(form, {"answer": str(-value)}), (form, value)


@given(
    st.recursive(
        st.text("ab7+ \\", max_size=4), lambda inner: st.lists(inner, max_size=3).map(lambda x: "{" + "".join(x) + "}")
    )
)
@settings(max_examples=500, deadline=None)
def test_a_printed_box_gives_its_content(content: str) -> None:
    content = content.replace("\\", "\\q")
    for text in (
        f"\\boxed{{{content}}}",
        f"\\boxed{{1}} then \\boxed{{{content}}}.",
        f"{{\\boxed{{{content}}}}} \\boxed{{2",
    ):
        assert extract_answer(text, "boxed") == content.strip()
    assert extract_answer(f"<answer> \\boxed{{{content}}} </answer>") == content.strip()


@given(st.text(alphabet="0123456789+-*/() ", max_size=250))
@settings(max_examples=1000, deadline=None)
def test_an_expression_evaluates_exactly_or_not_at_all(text: str) -> None:
    found = evaluate(text, strict=True)
    if found is not None:
        assert isinstance(found.value, int | Fraction)
        assert found.numbers
        assert found == evaluate(text) or len(text) > 30


@pytest.mark.parametrize(
    ("text", "strict", "free"),
    [("007+1", None, 8), ("1.5*2", None, 3), ("1,000-1", None, 999), ("3x4", None, 12), ("3\t+4", None, 7),
     ("00+1", 1, 1), ("9" * 31, int("9" * 31), None), ("(" * 30 + "1" + ")" * 30, 1, None), ("2**3", None, None),
     ("7//2", None, None), ("+1", None, None), ("1/0", None, None), ("-(2-3)*4", 4, 4)],
)  # fmt: skip
def test_a_strict_expression_has_plain_whole_numbers_only(text: str, strict: int | None, free: int | None) -> None:
    for wanted, found in ((strict, evaluate(text, strict=True)), (free, evaluate(text))):
        assert (found and found.value) == wanted


def test_an_expression_names_the_numbers_that_it_uses() -> None:
    found = evaluate("(3 + 7) * 2 - 3", strict=True)
    assert found is not None
    assert found.numbers == (3, 7, 2, 3)


@pytest.mark.parametrize(
    ("text", "skipping", "strict_last"),
    [
        (r"\boxed{1} then \boxed{2", "1", None), (r"\fbox{3}", None, "3"), (r"\boxed 5", None, "5"),
        (r"\boxed{1} and \boxed 7", "1", "7"), (r"\boxed{a \boxed{b}", "b", "b"), (r"\boxed{\boxed{b} a", "b", "b"),
    ],
)  # fmt: skip
def test_a_box_that_stays_open_and_other_forms_of_boxes_follow_the_flags(
    text: str, skipping: str | None, strict_last: str | None
) -> None:
    assert last_box(text) == skipping
    assert last_box(text, any_form=True, last_only=True) == strict_last


def test_a_bomb_costs_less_than_a_fifth_of_a_second() -> None:
    bombs = ["9**" * 60 + "9", "(" * 199, "-" * 199 + "1", "9" * 199, "9*" * 99 + "9", "<answer>" * 20_000, "1/" * 99 + "3"]
    for bomb in bombs:
        started = time.process_time()
        is_correct(f"<answer>{bomb}</answer>", "countdown", GOLD)
        is_correct(f"<answer>{bomb}</answer>", "number", {"answer": "1"})
        assert time.process_time() - started < 0.2, bomb[:20]


def test_the_page_names_every_place_and_checker() -> None:
    page = (ROOT / "docs" / "verifier.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == {*PLACES, *CHECKERS, "check", "place"}


def test_a_fraction_wanted_in_lowest_terms_is_not_copied_from_the_question() -> None:
    gold = {"answer": "25/49", "lowest": True}
    assert is_correct("<answer>25/49</answer>", "number", gold)
    assert is_correct("\\boxed{\\frac{25}{49}}", "number", gold)
    assert not is_correct("<answer>375/735</answer>", "number", gold)
    assert is_correct("<answer>6/8</answer>", "number", {"answer": "3/4"})


def test_words_that_change_a_number_are_no_units() -> None:
    for words in ("eighths", "quarters", "hundredths", "lakh", "gross", "score", "factorial"):
        assert not is_correct(f"<answer>7 {words}</answer>", "number", {"answer": "7"}), words


def test_what_the_prompt_wrote_of_the_answer_counts_for_its_reward() -> None:
    columns = {"check": ["number"], "gold": ['{"answer": "7"}'], "place": ["tags"]}
    assert Accuracy()(["7</answer>"], prefill=["<answer>"], **columns) == [1.0]
    assert Accuracy()(["7</answer>"], prefill=[""], **columns) == [0.0]
