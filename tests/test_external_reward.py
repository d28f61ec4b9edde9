"""Reward functions of others work by their import path, and what is wrong with a path is said."""

import json
from pathlib import Path
from typing import Any

import pytest

from efficient_rl.rewards.external import Imported

GOLD = [json.dumps({"answer": "4"}), json.dumps({"numbers": [1, 3], "target": 4})]
MODULE = """
def lengths(completions):
    return [len(text) for text in completions]

def roles(completions, **columns):
    return [float(messages[0]["role"] == "assistant" and sorted(columns)[0] == "gold") for messages in completions]

def matches(completions, solution, source):
    return [float(text == answer and name == "a") for text, answer, name in zip(completions, solution, source, strict=True)]

def short(completions, **columns):
    return [1.0]

def word(completions, **columns):
    return ["good"] * len(completions)

def missing(completions, **columns):
    return [None] * len(completions)

def constant(value):
    return lambda completions, **columns: [value] * len(completions)

NUMBER = 3
"""


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of somebody else's, of a new name each time, since paths are resolved once."""
    name = f"theirs_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_trls_own_functions_work() -> None:
    text = "a</think>b"
    tagged = Imported("trl.rewards.think_format_reward")
    assert tagged.__name__ == "think_format_reward"
    assert tagged([text, text], prefill=["<think>", ""], gold=GOLD, trainer_state=None) == [1.0, 0.0]
    overlong = Imported(
        "trl.rewards.get_soft_overlong_punishment", arguments={"max_completion_len": 100, "soft_punish_cache": 20}
    )
    assert overlong.__name__ == "soft_overlong_punishment"
    assert overlong(["a"], completion_ids=[[1] * 90]) == [-0.5]


def test_a_solution_comes_from_gold_and_where_there_is_none_there_is_no_verdict(theirs: str) -> None:
    reward = Imported(f"{theirs}.matches", messages=False)
    assert reward(["4", "4"], gold=GOLD, source=["a", "a"], other=[1, 2]) == [1.0, None]
    assert reward(["4", "4"], gold=GOLD[:1] * 2, source=["b", "a"]) == [0.0, 1.0]
    assert reward(["4"], source=["a"]) == [None]


def test_trls_accuracy_gets_the_solution() -> None:
    reward = Imported("trl.rewards.accuracy_reward")
    assert reward([r"\boxed{4}", r"\boxed{4}", r"\boxed{5}"], gold=[*GOLD, GOLD[0]]) == [1.0, None, 0.0]


def test_a_function_gets_only_what_it_takes(theirs: str) -> None:
    assert Imported(f"{theirs}.lengths", messages=False)(["abc"], gold=GOLD[:1], prefill=["<think>"]) == [10.0]
    assert Imported(f"{theirs}.lengths", messages=False, whole=False)(["abc"], prefill=["<think>"]) == [3.0]
    assert Imported(f"{theirs}.roles")(["abc"], gold=GOLD[:1]) == [1.0]
    assert Imported(f"{theirs}.missing")(["abc"]) == [None]


def test_arguments_make_the_function(theirs: str) -> None:
    assert Imported(f"{theirs}.constant", arguments={"value": 0.25})(["a", "b"]) == [0.25, 0.25]


@pytest.mark.parametrize(
    "path", ["", "think_format_reward", "trl..rewards", "trl.rewards.", "os.system('true')", "a b.c", "../x"]
)
def test_a_path_that_is_none_is_refused_when_it_is_built(path: str) -> None:
    with pytest.raises(ValueError, match=r"must be a dotted path such as trl\.rewards"):
        Imported(path)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nothing", AttributeError, "has no 'nothing'; name one of its functions"),
        ("NUMBER", TypeError, "names 3, which cannot be called"),
        ("short", ValueError, "returned 1 values for 2 completions"),
        ("word", ValueError, "returned 'good'; a reward must be a finite number or None"),
    ],
)
def test_errors_name_the_path(theirs: str, name: str, error: type[Exception], message: str) -> None:
    reward = Imported(f"{theirs}.{name}")
    with pytest.raises(error, match=message) as raised:
        reward(["a", "b"])
    assert f"{theirs}.{name}" in str(raised.value)


def test_a_package_that_is_not_there_is_named() -> None:
    with pytest.raises(ImportError, match=r"'not_there\.rewards\.f'.*install the package that has not_there\.rewards"):
        Imported("not_there.rewards.f")(["a"])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(theirs: str, value: Any) -> None:
    with pytest.raises(ValueError, match="must be a finite number"):
        Imported(f"{theirs}.constant", arguments={"value": value})(["a"])
