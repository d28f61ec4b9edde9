"""Rewards follow their formulas by hand-made numbers, stay in their bounds for any text, and cost little on hostile text."""

import json
import math
import time
import timeit
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficient_rl.rewards.answer import Accuracy, AnswerFormat
from efficient_rl.rewards.columns import groups, reasoning
from efficient_rl.rewards.consistency import LogicalConsistency
from efficient_rl.rewards.format import ReasoningSteps, TagCount, ThinkFormat
from efficient_rl.rewards.language import LanguageConsistency
from efficient_rl.rewards.length import Cosine, KimiLength, Repetition, SoftOverlong
from efficient_rl.rewards.process import StepRewards
from efficient_rl.rewards.tinyzero import TinyZeroCountdown, TinyZeroMultiply

FOUR = json.dumps({"answer": "4"})
COUNTDOWN = json.dumps({"numbers": [3, 7, 2], "target": 23, "answer": "7"})
BOUNDED: list[tuple[Any, float, float]] = [
    (Accuracy(), 0, 1),
    (AnswerFormat(), 0, 1),
    (ThinkFormat(), 0, 1),
    (TagCount(), 0, 1),
    (ReasoningSteps(), 0, 1),
    (KimiLength(), -0.5, 0.5),
    (Cosine(10), -1, 1),
    (Cosine(10, 2, 1, -10, 0, -10), -10, 2),
    (SoftOverlong(10, 4), -1, 0),
    (Repetition(2), -1, 0),
    (LanguageConsistency("en", 1), 0, 1),
    (LanguageConsistency("ja", 1), 0, 1),
    (LogicalConsistency(), 0, 1),
    (StepRewards(), 0, 1),
    (TinyZeroCountdown(), 0, 1),
    (TinyZeroCountdown(tinyzero_compat=True), 0, 1),
    (TinyZeroMultiply(), 0, 1),
]
PIECES = st.sampled_from(
    [
        *(
            "<think>",
            "</think>",
            "<answer>",
            "</answer>",
            "Assistant:",
            "3*7+2",
            "3*7=21",
            "=23",
            ";",
            "\n",
            "7",
            "-",
            "(",
            ")",
        ),
        *("**", "//", "\\frac{1}{2}", "\\boxed{4}", "$", "`", "Step 1: ", "First, ", "\u306e\u6f22\u5b57\u3002"),
        *("\u0441\u043b\u043e\u0432\u043e", "x", " ", "1,000", "\u0663", "\u066a"),
    ]
)
TEXTS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=25).map("".join))


def columns(texts: list[str], lengths: list[int] | None = None, check: str = "number", gold: str = FOUR) -> dict[str, Any]:
    """What the trainer hands a reward for one group of completions."""
    return {
        "completions": texts,
        "completion_ids": [list(range(length)) for length in lengths or [len(text) for text in texts]],
        "prompts": ["Assistant:"] * len(texts),
        "check": [check] * len(texts),
        "gold": [gold] * len(texts),
        "trainer_state": None,
    }


RIGHT, WRONG = "<answer>4</answer>", "<answer>5</answer>"


def test_accuracy_finds_the_answer_where_the_prompt_puts_it() -> None:
    texts = [" 4\nanother line", RIGHT, "so \\boxed{4}"]
    assert Accuracy()(**columns(texts), place=["first_line"] * 3) == [1.0, 0.0, 0.0]
    assert Accuracy()(**columns(texts), place=["boxed"] * 3) == [0.0, 0.0, 1.0]
    assert Accuracy()(**columns(texts))[1] == 1.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<think>a</think><answer>b</answer>", 1.0),
        ("  <think>a\nb</think>\n\n <answer>b\n</answer>\n", 1.0),
        ("<think>a</think> so <answer>b</answer>", 0.0),
        ("<think>a</think><answer>b</answer>.", 0.0),
        ("well <think>a</think><answer>b</answer>", 0.0),
        ("<think>a<think></think><answer>b</answer>", 0.0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0.0),
        ("<think>a<answer>b</answer></think><answer>", 0.0),
        ("<think>a<answer></think>b</answer>", 0.0),
        ("<answer>b</answer><think>a</think>", 0.0),
        ("", 0.0),
    ],
)
def test_the_think_format_is_the_whole_completion(text: str, value: float) -> None:
    assert ThinkFormat()([text]) == [value]


def test_the_think_format_counts_what_the_prompt_already_wrote() -> None:
    text = "a</think><answer>b</answer>"
    assert ThinkFormat()([text, text], prefill=["<think>", ""]) == [1.0, 0.0]
    assert TagCount()([text, text], prefill=["<think>", ""]) == [1.0, 0.75]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<think>a</think><answer>b</answer>", 1.0),  # no line breaks demanded
        ("<think><think>a</think><answer>b</answer>", 0.75),
        ("</think><answer>", 0.5),
        ("<think> <think>", 0.0),
        ("nothing", 0.0),
    ],
)
def test_a_quarter_for_each_tag_that_stands_once(text: str, value: float) -> None:
    assert TagCount()([text]) == [value]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("Step 1: add\nStep 2: halve\nStep 3: say", 3),
        ("1. add\n2. halve", 2),
        ("- add\n* halve\n\u2022 say", 3),
        ("First, we add. Then, we halve. Finally, we say it.", 3),
        ("1. First, we add", 1),  # one step, marked twice
        ("Step 1: add\nStep 2: add\nStep 3: add", 1),  # says the same
        ("Step 1:\nStep 2:\n- ", 0),  # says nothing
        ("3.5 apples\n-4 is less", 0),
        ("plain prose about the first steps", 0),
    ],
)
def test_steps_that_say_something_count(text: str, steps: int) -> None:
    assert ReasoningSteps()([text]) == [min(1.0, steps / 3)]
    assert ReasoningSteps(wanted=6)([text]) == [steps / 6]


def test_kimis_length_is_relative_to_the_group() -> None:
    texts = [RIGHT, WRONG, RIGHT, WRONG, RIGHT]
    found = KimiLength()(**columns(texts, [10, 10, 20, 30, 30]))
    assert found == [0.5, 0.0, 0.0, -0.5, -0.5]


def test_kimis_length_never_compares_completions_of_different_prompts() -> None:
    given = columns([RIGHT] * 6, [10, 20, 100, 200, 7, 7]) | {"prompts": ["a", "a", "b", "b", "c", "c"]}
    assert KimiLength()(**given) == [0.5, -0.5, 0.5, -0.5, 0.0, 0.0]


def test_lengths_are_tokens_and_never_characters() -> None:
    given = columns([RIGHT + " " * 1000, RIGHT], [5, 10])
    assert KimiLength()(**given) == [0.5, -0.5]
    short, long = Cosine(10)(**given)
    assert short > long


def test_groups_are_neighbours_with_equal_prompts() -> None:
    assert groups(["a", "a", "b", "a"]) == [range(0, 2), range(2, 3), range(3, 4)]
    assert groups([]) == []


@pytest.mark.parametrize(
    ("tokens", "right", "wrong"),
    [
        (0, 1.0, -1.0),
        (25, 0.5 + 0.25 * (1 + math.sqrt(0.5)), -0.5 - 0.25 * (1 + math.sqrt(0.5))),
        (50, 0.75, -0.75),
        (100, 0.5, -0.5),
        (170, 0.5, -0.5),  # stays there
    ],
)
def test_the_cosine_falls_for_right_and_rises_for_wrong_answers(tokens: int, right: float, wrong: float) -> None:
    assert Cosine(100)(**columns([RIGHT, WRONG], [tokens, tokens])) == pytest.approx([right, wrong])


def test_the_cosine_has_a_value_of_its_own_at_the_limit() -> None:
    reward = Cosine(100, right_short=2, right_long=1, wrong_short=-10, wrong_long=0, exceeded=-10)
    assert reward(**columns([RIGHT, RIGHT, WRONG, WRONG], [99, 100, 0, 99])) == pytest.approx([1.0, -10, -10, 0], abs=0.01)


def test_bounds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"right_short >= right_long > wrong_long >= wrong_short"):
        Cosine(100, wrong_short=-0.5, wrong_long=-1.0)


@pytest.mark.parametrize(("tokens", "value"), [(0, 0), (80, 0), (81, -0.05), (90, -0.5), (100, -1), (101, -1), (5000, -1)])
def test_the_overlong_penalty_grows_evenly_before_the_limit(tokens: int, value: float) -> None:
    assert SoftOverlong(100, 20)([[0] * tokens]) == [pytest.approx(value)]
    assert SoftOverlong(100)([[0] * tokens]) == [pytest.approx(value)]


def test_without_a_cache_only_what_is_beyond_the_limit_is_overlong() -> None:
    assert SoftOverlong(10, 0)([[0] * 10, [0] * 11]) == [0.0, -1.0]


@pytest.mark.parametrize(
    ("ids", "value"),
    [([1, 2, 3, 4], 0.0), ([5, 5, 5, 5, 5], -0.75), ([1, 2, 1, 2, 1], -0.5), ([1, 2], 0.0), ([1], 0.0), ([], 0.0)],
)
def test_repeated_pairs_of_tokens_cost_their_share(ids: list[int], value: float) -> None:
    assert Repetition(ngram=2)([ids]) == [value]
    assert Repetition(ngram=2, max_penalty=-0.5)([ids]) == [value / 2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ReasoningSteps(wanted=0), "wanted=0 must be at least 1"),
        (lambda: Cosine(0), "max_tokens=0 must be at least 1"),
        (lambda: Cosine(10, right_short=math.inf), "finite"),
        (lambda: SoftOverlong(10, 11), "cache_tokens=11 must lie in 0 to max_tokens=10"),
        (lambda: Repetition(0), "ngram=0 must be at least 1"),
        (lambda: Repetition(3, 1.0), "max_penalty=1.0 must be a finite number of at most 0"),
        (lambda: LanguageConsistency("xx"), "'xx' is not known; use one of ar, bg"),
        (lambda: LanguageConsistency("en", 0), "min_letters=0 must be at least 1"),
        (lambda: TinyZeroCountdown(format_score=1.0), "format_score=1.0 must lie below score=1.0"),
        (lambda: TinyZeroMultiply(format_score=-1.0), "format_score=-1.0 must lie below"),
    ],
)
def test_arguments_out_of_range_are_refused_with_their_bound(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        make()


def test_the_reasoning_is_all_before_the_last_answer_tag() -> None:
    assert reasoning("<think></think>hidden<answer>a</answer>b<answer>c</answer>").endswith("a</answer>b")
    assert reasoning("no tags") == "no tags"


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4), st.sampled_from(["number", "countdown"]), st.booleans())
def test_every_reward_stays_in_its_bounds_for_any_text(texts: list[str], check: str, prefilled: bool) -> None:
    given_columns = columns(texts, check=check, gold=COUNTDOWN)
    if prefilled:
        given_columns |= {"prefill": ["<think>"] * len(texts), "place": ["tags"] * len(texts)}
    for reward, low, high in BOUNDED:
        found = reward(**given_columns)
        assert len(found) == len(texts)
        for value in found:
            assert value is None or (isinstance(value, float) and low <= value <= high), reward


UNITS = [
    *("$", "$$", "```", "\\[", "<think>", "<answer>", "<answer></answer>", "(", "-", "1+", "1=", "=", "1+1=2;", "1+1=2\n"),
    *(" ", "\n", "- ", "1. a\n", "First, a ", "1,000", "1,", "\u3042\u6f22\u3002", "\\frac{1}{2}", "9**", "1 x ", "a "),
    *("</", "of ", "+".join("1" * 90) + "=2;", "<answer>9**9**9**9</answer>", "1/7+1/11=", "\ud83d"),
]


@pytest.mark.parametrize("unit", UNITS)
def test_hostile_text_is_cheap(unit: str) -> None:
    text = "Assistant: <answer>3" + unit * (100_000 // len(unit)) + "</answer>" + unit * 1000
    for hostile in (text, text.replace("<answer>3", "", 1)):
        for reward, _, _ in BOUNDED:
            call = partial(reward, **columns([hostile], [50_000], "countdown", COUNTDOWN))
            # Of two: a garbage collection may fall into one.
            assert min(timeit.repeat(call, timer=time.process_time, number=1, repeat=2)) < 0.2, reward
