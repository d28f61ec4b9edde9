"""Steps are judged one by one, and their rewards reach the tokens before them."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from efficient_rl.rewards.process import StepRewards, step_advantages, token_ends

GOLD = {"answer": "23"}


def test_each_line_or_part_with_an_equation_is_a_step_and_the_answer_the_last() -> None:
    text = "<think>we try\n3*7=21; 21+2=24 \n21+2=23;</think><answer>23</answer>"
    steps = StepRewards().steps(text, "number", GOLD)
    assert [(text[:end].rpartition("\n")[2], reward) for end, reward in steps] == [
        ("3*7=21", 1.0),
        ("3*7=21; 21+2=24", 0.0),
        ("21+2=23", 1.0),
        ("21+2=23;</think><answer>23</answer>", 1.0),
    ]


def test_a_step_with_one_false_equation_is_false() -> None:
    assert [reward for _, reward in StepRewards().steps("3+4=7, 7+1=9", "number", GOLD)] == [0.0, 0.0]


def test_a_step_written_again_is_no_step() -> None:
    assert len(StepRewards().steps("1+1=2\n" * 50, "number", GOLD)) == 2


def test_as_an_ordinary_reward_it_is_the_mean_of_the_steps() -> None:
    texts = ["3*7=21;21+2=24<answer>23</answer>", "<answer>23</answer>", "", "3*7=20"]
    gold = [json.dumps(GOLD)] * 4
    assert StepRewards()(texts, check=["number"] * 4, gold=gold) == [pytest.approx(2 / 3), 1.0, 0.0, 0.0]
    boxed = StepRewards()([r"3*7=21;21+2=23;\boxed{23}"], check=["number"], gold=gold[:1], place=["boxed"])
    assert boxed == [1.0]


def test_advantages_sum_the_normalised_rewards_of_later_steps() -> None:
    """Steps 1 0 1 and 0: mean 1/2, sample deviation sqrt(1/3)."""
    unit = 0.5 / (math.sqrt(1 / 3) + 1e-4)
    found = step_advantages([[1, 3, 4], [0]], [[1.0, 0.0, 1.0], [0.0]], [6, 2])
    assert found[0] == pytest.approx([unit, unit, 0.0, 0.0, unit, 0.0])
    assert found[1] == pytest.approx([-unit, 0.0])


def test_equal_rewards_give_no_advantage() -> None:
    assert step_advantages([[0, 1], [1]], [[0.1, 0.1], [0.1]], [2, 2]) == [[0.0, 0.0], [0.0, 0.0]]
    assert step_advantages([[1], []], [[1.0], []], [2, 0]) == [[0.0, 0.0], []]
    assert step_advantages([], [], []) == []


def test_an_end_beyond_the_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="ends at token 2 of a completion with 2 tokens"):
        step_advantages([[2]], [[1.0]], [2])


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 7), st.sampled_from([0.0, 0.5, 1.0])), max_size=5), min_size=1, max_size=4)
)
def test_the_first_token_carries_all_steps_of_its_completion(steps: list[list[tuple[int, float]]]) -> None:
    found = step_advantages([[e for e, _ in row] for row in steps], [[r for _, r in row] for row in steps], [8] * len(steps))
    every = [reward for row in steps for _, reward in row]
    for row, advantages in zip(steps, found, strict=True):
        if len(set(every)) > 1:
            mean = sum(every) / len(every)
            spread = math.sqrt(sum((r - mean) ** 2 for r in every) / (len(every) - 1)) + 1e-4
            assert advantages[0] == pytest.approx(sum((reward - mean) / spread for _, reward in row), abs=1e-9)
        else:
            assert advantages == [0.0] * 8
    assert sum(row[0] for row in found) == pytest.approx(0.0, abs=1e-9)  # every step counts once


def test_character_ends_become_the_tokens_that_write_the_last_character() -> None:
    pieces = ["3", "*7", "=21", ";", "21+", "2=23", "<eos>"]
    assert token_ends([6, 14], pieces) == [2, 5]
    assert token_ends([14, 6], pieces) == [5, 2]
    assert token_ends([0, 2, 3], pieces) == [0, 1, 1]
    assert token_ends([99], pieces) == [6]
    assert token_ends([3], []) == [0]


def test_with_the_text_a_last_step_ends_at_the_token_that_ends_the_text() -> None:
    text, pieces = "3*7=21;21+2=23", ["3", "*7", "=21", ";", "21+", "2=23", "<eos>"]
    assert token_ends([6, len(text)], pieces, text) == [2, 6]


def test_with_the_text_pieces_that_do_not_add_up_are_aligned() -> None:
    text = "\u00e9t\u00e9 so 3+4=7; 7+1=8"
    pieces = [
        "\ufffd",
        "\ufffd",
        "t\u00e9",
        "so",
        "3",
        "+",
        "4=",
        "7",
        ";",
        "7+1",
        "=8",
        "<|end|>",
    ]  # no spaces, a split letter
    first, last = text.index(";"), len(text)
    assert token_ends([first, last], pieces, text) == [7, 11]
    assert token_ends([first, last], pieces) != [7, 11]
