"""Written equations are found and judged exactly, whatever else surrounds them, and the consistency reward follows them."""

import gzip
import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from efficient_rl.rewards.arithmetic import evaluate
from efficient_rl.rewards.consistency import LogicalConsistency
from efficient_rl.rewards.equations import find_equations

GSM8K = Path(__file__).resolve().parents[2] / "shared" / "data" / "gsm8k"
PAGE = (Path(__file__).resolve().parents[1] / "docs" / "rewards.md").read_text()
needs_gsm8k = pytest.mark.skipif(not GSM8K.exists(), reason="GSM8K is not part of the project; put it beside the checkout")


@pytest.mark.parametrize(
    ("text", "verdicts"),
    [
        ("3+4=7", [True]),
        ("3 + 4 = 8", [False]),
        ("7 = 3 + 4", [True]),
        ("3*7=21;21+2=23", [True, True]),
        ("so 3+4=7, 7*2=14. Then 14-1=12.", [True, True, False]),
        ("3+4=7+1=8", [False, True]),  # a chain states both
        ("3+4=7=7", [True]),
        ("2 \u00d7 3 = 6 and 8 \u00f7 2 = 4 and 2 \u00b7 3 = 7", [True, True, False]),
        ("9 \u2212 10 = \u22121", [True]),
        ("3 x 4 = 12, 3x5=15", [True, True]),
        ("-3 + 5 = 2", [True]),
        ("the value is -3 + 5 = 2", [True]),
        ("-(3+4) = -7", [True]),
        ("(1 + 2) * 3 = 9, 2*(3+(4-1)) = 13", [True, False]),
        ("1.5 + 2.5 = 4, .5 * 4 = 2", [True, True]),
        ("0.1 + 0.2 = 0.3, 1/3 + 1/3 = 2/3", [True, True]),  # exact
        ("10/3 = 3.33", [False]),
        ("1,000 + 2 = 1,002", [True]),
        ("$3 + $4 = $7", [True]),
        (r"\frac{1}{2} + \frac{1}{4} = \frac{3}{4}", [True]),
        (r"3 \times 4 = 12, 8 \div 2 = 5", [True, False]),
        ("3+4=7 apples, 3+5=8cm", [True, True]),
        ("48/2 = <<48/2=24>>24", [True]),
        ("- 3 + 4 = 7\n2. 5 + 1 = 6\n(3) 2 + 2 = 4", [True, True, True]),  # marks of lists are no numbers
        ("3+4=7; 3 + 4 = 7", [True]),  # the same one twice
        ("30" + "0" * 40 + " + 1 = 2", []),  # beyond 30 digits
    ],
)
def test_equations_are_judged_exactly(text: str, verdicts: list[bool]) -> None:
    assert [equation.true for equation in find_equations(text).values()] == verdicts


@pytest.mark.parametrize(
    "text",
    [
        *(
            "x - 3 = 5",
            "2x - 3 = 5",
            "x + 3 = 8",
            "5 + 2x = 9",
            "3x = 12",
            "3 + 4 = 7x",
            "3+4=7 x - 2",
            "a_1 + 2 = 3",
            "y-3=5",
        ),
        *("2^3 + 1 = 9", "2**3 = 8", "7//2 = 3", "4! = 24", "50% of 20 + 1 = 10", "5 % 3 = 2", "3 + 4 = 70%", "3 + 4 = 7^2"),
        *(
            "10/3 = 3.333...",
            "7/2 = 3 remainder 1",
            "7/2 = 3 R1",
            "half of 3 + 5 = 4",
            "Week 4 = 48 + 48",
            "at 6:00+48=6:48",
        ),
        *(
            "3+4 != 8",
            "3+4 >= 8",
            "3+4 == 7",
            "3+4 => 7",
            "3+4=",
            "=7",
            "=",
            "5=5",
            "3/4 = 3/4",
            "1/0 = 3",
            "1 = 2",
            "3 + = 4",
        ),
        *("2 1/2 + 1 = 4", "3+(4=7", "\uff12+2=4", r"3 + 4 = \frac{x}{2}", r"3 + 4 = 7\sqrt{2}"),
    ],
)
def test_what_is_not_arithmetic_over_numbers_is_left_out(text: str) -> None:
    assert find_equations(text) == {}


def test_the_last_equation_is_the_one_written_last() -> None:
    values = [equation.value for equation in find_equations("3+4=7; 2*5=10; 3+4=7").values()]
    assert values == [10, 7]


def test_operations_of_sums_and_products_have_no_order() -> None:
    assert evaluate("4+3") == evaluate("3+4")
    written = evaluate("(7 + 3) * 2 - 1")
    assert written is not None
    assert written.value == 19
    assert written.operations == {("+", 3, 7), ("*", 2, 10), ("-", 20, 1)}


@pytest.mark.parametrize(
    "text", ["", "3+", "(3", "3)", "3 4", "2**3", "7//2", "a", "1/0", "(" * 30 + "1" + ")" * 30, "1+" * 100]
)
def test_what_is_no_sum_has_no_value(text: str) -> None:
    assert evaluate(text) is None


NUMBERS = st.integers(0, 99).map(str)
SUMS = st.recursive(
    NUMBERS,
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda parts: f"({''.join(parts)})"),
    max_leaves=8,
)


def _reference(text: str) -> Fraction | None:
    """The value of a fully parenthesised sum, by splitting it at its outermost operator."""
    if text.isdigit():
        return Fraction(int(text))
    depth = 0
    for place, character in enumerate(text[1:-1], start=1):
        depth += (character == "(") - (character == ")")
        if depth == 0 and character in "+-*/":
            left, right = _reference(text[1:place]), _reference(text[place + 1 : -1])
            if left is None or right is None or (character == "/" and right == 0):
                return None
            return {"+": left + right, "-": left - right, "*": left * right, "/": left / (right or 1)}[character]
    raise AssertionError(text)


@given(SUMS, st.integers(-2, 2))
def test_a_sum_and_its_value_are_a_true_equation_and_any_other_value_a_false_one(text: str, off: int) -> None:
    value = _reference(text)
    written = evaluate(text)
    assert (written.value if written else None) == value
    if value is not None and not text.isdigit():
        stated = value + off
        sign, magnitude = ("-" if stated < 0 else ""), abs(stated)
        right = f"{sign}{magnitude.numerator}" + (f"/{magnitude.denominator}" if magnitude.denominator > 1 else "")
        assert [equation.true for equation in find_equations(f"so {text} = {right}.").values()] == [off == 0]


@needs_gsm8k
def test_the_equations_of_gsm8k_are_true() -> None:
    found = true = 0
    for name in ("train", "test"):
        with gzip.open(GSM8K / f"{name}.jsonl.gz", "rt") as lines:
            for row in map(json.loads, lines):
                equations = find_equations(row["solution"]).values()
                found += len(equations)
                true += sum(equation.true for equation in equations)
    assert f"Of {found:,} equations in the solutions of GSM8K {true:,} are true ({true / found:.4f})" in PAGE
    assert true / found > 0.998


def consistency(text: str, check: str = "number", place: str | None = None) -> float | None:
    return LogicalConsistency()([text], check=[check], place=None if place is None else [place])[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<think>3*7=21;21+2=23</think><answer>23</answer>", 1.0),
        ("<think>3*7=21;21+2=23</think><answer>21</answer>", 0.0),  # not the last value
        ("<think>3*7=21;21+2=24</think><answer>24</answer>", 0.5),  # follows, from a false equation
        ("3 + 4 = 7; 7 / 2 = 7/2 <answer>3.5</answer>", 1.0),
        ("3 + 4 = 7 <answer>$7</answer>", 1.0),
        ("3 + 4 = 7 <answer>7 apples</answer>", 1.0),
        ("3 + 4 = 7 <answer>7 or 8</answer>", 0.0),
        ("3 + 4 = 7 <answer>seven</answer>", 0.0),
        ("3 + 4 = 7", 0.0),  # no answer
        ("<think></think>3 + 4 = 8<answer>8</answer>", 0.0),  # nothing hides behind empty tags
        ("no sum <answer>7</answer>", None),
        ("<answer>3+4=7</answer>", None),  # the answer is not the reasoning
    ],
)
def test_consistent_reasoning_is_true_and_leads_to_the_answer(text: str, value: float | None) -> None:
    assert consistency(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3*7=21;21+2=23<answer>3*7+2</answer>", 1.0),
        ("3*7=21;21+2=23<answer>2 + 7*3</answer>", 1.0),
        ("3+7=10;10*2=20;3*7=21;21+2=23<answer>3*7+2</answer>", 1.0),  # a search may fail first
        ("3*7+2=23<answer>3*7+2</answer>", 1.0),
        ("3*7=21<answer>3*7+2</answer>", 0.0),  # the last operation is nowhere
        ("3*7=20;21+2=23<answer>3*7+2</answer>", 0.0),  # one of them is false
        ("3*7=21;21+2=23;1+1=3<answer>3*7+2</answer>", pytest.approx(2 / 3)),
        ("3*7=21;21+2=23<answer>23</answer>", 0.0),  # no expression
        ("3*7=21<answer>import os</answer>", 0.0),
    ],
)
def test_a_countdown_answer_follows_from_equations_for_its_operations(text: str, value: float) -> None:
    assert consistency(text, "countdown") == value


def test_the_answer_is_looked_for_where_the_prompt_puts_it() -> None:
    assert consistency(r"3 + 4 = 7, so \boxed{7}", place="boxed") == 1.0
    assert consistency(r"3 + 4 = 7, so \boxed{8}", place="boxed") == 0.0
