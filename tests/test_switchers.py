"""Rewards take what TRL and Open-R1 hand to theirs: message lists, unreadable golds, answers in the thinking."""

import json
import pickle
import re
from typing import Any

import pytest

from efficient_rl.rewards.answer import Accuracy, AnswerFormat
from efficient_rl.rewards.columns import text_of
from efficient_rl.rewards.format import ReasoningSteps, TagCount, ThinkFormat
from efficient_rl.rewards.length import Cosine, KimiLength, Repetition
from efficient_rl.rewards.process import StepRewards
from efficient_rl.rewards.tinyzero import TinyZeroMultiply
from efficient_rl.rewards.verify import has_verdict
from tests.conftest import ROOT
from tests.test_rewards import BOUNDED, COUNTDOWN, columns

TEXTS = [
    "<think>Step 1: 3*7=21\nStep 2: 21+2=23</think><answer>3*7+2</answer>",
    "<think>3*7=20</think><answer>4</answer>",
    "so \\boxed{4}",
    "",
]
ASKING_FOR_GOLD: list[Any] = [Accuracy(), KimiLength(), Cosine(100), StepRewards()]


def said(*contents: Any) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": content} for content in contents]


@pytest.mark.parametrize("check", ["number", "countdown"])
def test_every_reward_takes_lists_of_messages_as_it_takes_texts(check: str) -> None:
    lengths = [len(text) for text in TEXTS]
    plain = columns(TEXTS, lengths, check, COUNTDOWN) | {"prefill": ["", "<think>", "", ""]}
    for completions in ([said(text) for text in TEXTS], [[{"content": text}] for text in TEXTS]):
        for reward, _, _ in BOUNDED:
            assert reward(**plain | {"completions": completions}) == reward(**plain), reward


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("a", "a"), ([], ""), (said("a"), "a"), (said(""), ""), (said(None), ""), ([{"content": "a"}], "a"),
        (said([{"type": "text", "text": "a"}, {"type": "image", "image": "b"}]), "a"),
        ([*said(None), {"role": "tool", "content": "\\boxed{4}"}, *said("a")], "a"), (said("a", "b"), "a\nb"),
    ],
)  # fmt: skip
def test_a_completion_is_what_the_model_says_in_its_messages(completion: Any, text: str) -> None:
    assert text_of(completion) == text


@pytest.mark.parametrize("completion", [7, None, [7], b"a"])
def test_what_is_no_completion_is_refused_with_its_type(completion: Any) -> None:
    with pytest.raises(TypeError, match=r"of type (int|NoneType); give a text or a list of messages"):
        Accuracy()([completion], check=["number"], gold=['{"answer": "4"}'])


@pytest.mark.parametrize(
    ("check", "gold", "readable"),
    [
        ("number", "4", True), ("number", "7 million", True), ("number", "\\frac12", True), ("number", "forty two", False),
        ("number", "", False), ("number", "4 or 5", False), ("math", "\\text{even}", True), ("math", "Monday", True),
        ("math", "x+1", True), ("math", "forty two", False), ("math", "Answer is forty two.", False), ("math", "", False),
        ("math", "unparseable_latex", False), ("math", "x" * 2001, False), ("math", "101_2", True), ("choice", "(B)", True),
        ("choice", "b", True), ("choice", "F", False), ("choice", "maybe", False),
    ],
)  # fmt: skip
def test_where_no_answer_could_match_the_gold_one_there_is_no_verdict(check: str, gold: str, readable: bool) -> None:
    assert has_verdict(check, {"answer": gold}) is readable
    for text in ("\\boxed{4}", "<answer>B</answer>", f"\\boxed{{{gold}}}"):
        given = columns([text, text], [3, 5], check, json.dumps({"answer": gold}))
        for reward in ASKING_FOR_GOLD:
            assert [value is not None for value in reward(**given)] == [readable] * 2, (reward, text)


def test_problems_with_and_without_a_verdict_stand_in_one_batch() -> None:
    golds = [json.dumps({"answer": gold}) for gold in ("4", "4", "forty", "forty")]
    given = columns(["\\boxed{4}", "5", "\\boxed{4}", "5"], [3, 5, 3, 5]) | {"gold": golds, "prompts": list("aabb")}
    assert Accuracy()(**given) == [1.0, 0.0, None, None]
    assert KimiLength()(**given) == [0.5, -0.5, None, None]
    assert TinyZeroMultiply()(**given) == [1.0, 0.0, None, None]
    assert [value is None for value in Cosine(10)(**given)] == [False, False, True, True]


def test_a_checker_that_does_not_exist_has_no_verdicts() -> None:
    with pytest.raises(ValueError, match="check='maths' is unknown; use one of countdown, number"):
        has_verdict("maths", {"answer": "4"})


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("<think> My answer is \\boxed{4} </think> Some other text.", [0.0, 0.0]),
        ("<think> \\boxed{4} </think> Here's a wrong answer: \\boxed{5}.", [0.0, 0.0]),
        ("<think> partial answers \\boxed{4} but no final answer", [0.0, 0.0]),
        ("<think> <answer>4</answer> </think> done", [0.0, 0.0]),
        ("<think> so </think> \\boxed{4}", [1.0, 1.0]), ("so </think> \\boxed{4}", [1.0, 1.0]),
        ("\\boxed{4} </think>", [0.0, 0.0]), ("partial \\boxed{4}", [1.0, 0.0]), ("<answer>4</answer>", [1.0, 1.0]),
    ],
)  # fmt: skip
def test_an_answer_inside_the_thinking_is_none(text: str, values: list[float]) -> None:
    """Without and with a prompt that opened the thinking."""
    given = columns([text, text], gold=json.dumps({"answer": "4"}))
    assert Accuracy()(**given, prefill=["", "<think>"]) == values
    assert [value == 1.0 for value in StepRewards()(**given, prefill=["", "<think>"])] == [value == 1.0 for value in values]
    assert AnswerFormat()(["<think><answer>4</answer></think>"]) == [0.0]


def test_rewards_can_be_pickled_for_workers() -> None:
    for reward in (*ASKING_FOR_GOLD, Repetition(), ThinkFormat(), TagCount(), ReasoningSteps()):
        assert pickle.loads(pickle.dumps(reward)) == reward


def test_the_page_has_one_table_for_those_who_come_from_trl_or_open_r1() -> None:
    page = (ROOT / "docs" / "rewards.md").read_text()
    table = page[page.index("## Coming from TRL or Open-R1") :]
    functions = set(re.findall(r"^\| (?:both|TRL|Open-R1): `(\w+)` \| .+ \| .+ \|$", table, re.MULTILINE))
    assert functions >= {"accuracy_reward", "reasoning_accuracy_reward", "get_cosine_scaled_reward", "len_reward"}
