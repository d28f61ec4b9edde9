"""TinyZero's scorers: every known fault is reproduced when asked for, and mended otherwise."""

import json
import operator
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from efficient_rl.rewards.tinyzero import TinyZeroCountdown, TinyZeroMultiply, python_value

PROMPT = "A conversation between User and Assistant.\nUser: make 23.\nAssistant: Let me solve this step by step.\n<think>"
NUMBERS, TARGET = [3, 7, 2], 23


def score(
    completion: str, compat: bool, numbers: list[int] = NUMBERS, target: int = TARGET, prompt: str = PROMPT, **extra: Any
) -> Any:
    gold = json.dumps({"numbers": numbers, "target": target})
    reward = TinyZeroCountdown(tinyzero_compat=compat, **extra)
    return reward([completion], check=["countdown"], gold=[gold], prompts=[prompt], prefill=["<think>"])[0]


@pytest.mark.parametrize(
    ("completion", "published", "strict"),
    [
        ("<answer>3*7+2</answer>", 1.0, 1.0),
        ("so </think>\n<answer> 3 * 7 + 2 </answer>", 1.0, 1.0),
        ("no tags", 0.0, 0.0),
        ("<answer>3*7-2</answer>", 0.1, 0.1),
        ("<answer>3*7</answer>", 0.1, 0.1),
        ("<answer>3*7+2</answer> <answer>3*7-2</answer>", 0.1, 0.1),  # the last one counts
        # 1: only the last line is seen
        ("<answer>3*7+2</answer>\n", 0.0, 1.0),
        ("<answer>\n3*7+2\n</answer>", 0.0, 1.0),
        ("<answer>3*7+2</answer>\nThat is it.", 0.0, 1.0),
        # 3: ** and // pass the filter
        ("<answer>3**2*7</answer>", 0.1, 0.0),
        ("<answer>7**(3//2)</answer>", 0.1, 0.0),
        # 5: any tags are paid
        ("<answer>junk</answer>", 0.1, 0.0),
        ("<answer></answer>", 0.1, 0.0),
        ("<answer>__import__('os')</answer>", 0.1, 0.0),
        ("<answer>3*7+2 = 23</answer>", 0.1, 0.0),
        ("<answer>3/0*7+2</answer>", 0.1, 0.0),
        ("<answer>(3)(7)+2</answer>", 0.1, 0.0),
        ("<answer>03*7+2</answer>", 0.1, 0.0),
        ("<answer>\uff13*7+2</answer>", 0.1, 0.0),
    ],
)
def test_the_published_scorer_and_the_strict_one(completion: str, published: float, strict: float) -> None:
    assert score(completion, compat=True) == published
    assert score(completion, compat=False) == strict


@pytest.mark.parametrize(
    ("answer", "numbers", "target", "published", "strict"),
    [
        ("3**2", [3, 2], 9, 1.0, 0.0),  # 3: a power is paid as right
        ("7//2", [7, 2], 3, 1.0, 0.0),
        ("2**-3", [2, 3], 0, 0.1, 0.0),
        ("1_0", [1, 0], 10, 0.1, 0.0),  # outside the filter, though Python reads 10
        ("1e1", [1, 1], 10, 0.1, 0.0),
        ("(-8)**3", [8, 3], -512, 1.0, 0.0),
        ("1.5*2", [1, 5, 2], 3, 1.0, 0.0),  # 4: a decimal is two whole numbers
        ("1/3*3", [1, 3, 3], 1, 1.0, 1.0),
        ("8/(3-8/3)", [8, 3, 8, 3], 24, 1.0, 1.0),
        ("100001/100000", [100001, 100000], 1, 0.1, 0.1),
        ("1000001/1000000", [1000001, 1000000], 1, 1.0, 0.1),  # 6: near enough
    ],
)
def test_what_the_published_arithmetic_accepts(
    answer: str, numbers: list[int], target: int, published: float, strict: float
) -> None:
    assert score(f"<answer>{answer}</answer>", True, numbers, target) == published
    assert score(f"<answer>{answer}</answer>", False, numbers, target) == strict


def test_the_published_scorer_needs_the_assistant_in_prompt_or_completion() -> None:
    answer = "<answer>3*7+2</answer>"
    assert score(answer, True, prompt="make 23") == 0.0
    assert score(answer, True, prompt="<|im_start|>assistant") == 1.0
    assert score("Assistant: " + answer, True, prompt="make 23") == 1.0
    assert score(answer, False, prompt="make 23") == 1.0


def test_the_published_scorer_sees_tags_that_the_prompt_wrote_on_the_last_line() -> None:
    assert score("3*7+2</answer>", True, prompt="Assistant: <answer>") == 1.0
    assert score("3*7+2</answer>", True, prompt="Assistant: <answer>\n") == 0.0


@pytest.mark.parametrize("answer", ["9**9**9**9", "9**99**9", "9*" * 400 + "9", "(" * 900 + "9", "-" * 899 + "9", "9**9**6"])
def test_bombs_cost_nothing_and_get_the_format_score(answer: str) -> None:
    start = time.process_time()
    numbers = [9] * answer.count("9")
    assert score(f"<answer>{answer}</answer>", True, numbers, 9) == 0.1
    assert score(f"<answer>{answer}</answer>", False, numbers, 9) in (0.0, 0.1)
    assert time.process_time() - start < 0.2


def test_numbers_may_stay_unused_where_the_prompt_allows_it() -> None:
    """2: the prompt forbids using a number twice, the scorer demands every number."""
    assert score("<answer>3*7</answer>", False, target=21) == 0.1
    assert score("<answer>3*7</answer>", False, target=21, all_numbers=False) == 1.0
    assert score("<answer>3*7+3-3</answer>", False, target=21, all_numbers=False) == 0.1
    assert score("<answer>21</answer>", False, target=21, all_numbers=False) == 0.1


def test_scores_are_arguments_and_other_problems_have_none() -> None:
    assert score("<answer>3*7+2</answer>", False, score=2, format_score=0) == 2.0
    assert TinyZeroCountdown()(["<answer>4</answer>"], check=["number"], gold=['{"answer": "4"}']) == [None]


EXPRESSIONS = st.recursive(
    st.integers(1, 12).map(str),
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "**"]), inner).map(
        lambda p: f"({''.join(p)})"
    ),
    max_leaves=4,
)


@given(EXPRESSIONS)
def test_arithmetic_without_execution_has_pythons_value(text: str) -> None:
    try:
        value = python_value(text)
    except (ArithmeticError, ValueError):
        return
    assert value == _reference(text)


def _reference(text: str) -> Any:
    if text.isdigit():
        return int(text)
    depth = 0
    for place, character in enumerate(text[1:-1], start=1):
        depth += (character == "(") - (character == ")")
        if depth == 0 and character in "+-*/":
            signs = {"**": operator.pow, "//": operator.floordiv, "+": operator.add, "-": operator.sub}
            signs |= {"*": operator.mul, "/": operator.truediv}
            sign = text[place : place + 2] if text[place : place + 2] in signs else character
            return signs[sign](_reference(text[1:place]), _reference(text[place + len(sign) : -1]))
    raise AssertionError(text)


@pytest.mark.parametrize(
    ("completion", "value"),
    [
        ("<answer>56088</answer>", 1.0),
        ("<answer> +56088 </answer>\n", 1.0),
        ("<answer>56089</answer>", 0.1),
        ("<answer>123*456</answer>", 0.0),
        ("<answer>56088.0</answer>", 0.0),
        ("<answer>" + "9" * 5000 + "</answer>", 0.0),
        ("56088", 0.0),
    ],
)
def test_a_product_is_a_whole_number_in_tags(completion: str, value: float) -> None:
    assert TinyZeroMultiply()([completion], gold=['{"answer": "56088"}']) == [value]


def test_a_product_needs_a_whole_gold_answer() -> None:
    gold = ['{"answer": "1/2"}', '{"target": 3, "numbers": [1, 2]}', '{"answer": 6}']
    assert TinyZeroMultiply()(["<answer>6</answer>"] * 3, gold=gold) == [None, None, 1.0]
