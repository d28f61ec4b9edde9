"""No evaluation question reaches the training data, and templates of generated problems do not count as one."""

import random
import string
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficient_rl.tasks.arithmetic import Arithmetic
from efficient_rl.tasks.chain import Chain
from efficient_rl.tasks.contamination import decontaminated, normalized
from efficient_rl.tasks.problem import Problem

STORY = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."


def text(question: str, key: str | None = None, free_text: bool = True) -> Problem:
    return Problem(question, question, "math", {"answer": "1"}, 1.0, "test", key or f"text {question}", free_text=free_text)


def survives(train: str, evaluation: str) -> bool:
    kept, dropped = decontaminated([text(train)], [text(evaluation)])
    assert len(kept) + len(dropped) == 1
    return bool(kept)


def test_a_problem_with_the_key_of_an_evaluation_problem_is_dropped_whatever_its_words() -> None:
    kept, dropped = decontaminated([text("a", "k 1"), text("b", "k 2")], [text("c", "k 1")])
    assert [p.question for p in kept] == ["b"]
    assert [p.question for p in dropped] == ["a"]


def test_eight_words_in_a_row_are_contamination_and_seven_are_not() -> None:
    assert not survives("Yesterday " + STORY, STORY + " How many clips?")
    assert not survives("one two three four five six seven eight tail", "head one two three four five six seven eight")
    assert survives("one two three four five six seven other tail of it", "head one two three four five six seven eight")


@pytest.mark.parametrize(
    "variant",
    [
        STORY.upper(),
        STORY.replace(",", ";").replace(" ", "  "),
        STORY.replace(" ", "\n"),
        STORY.replace("48", "$48$").replace("clips to", "clips\\, to"),
        STORY.replace("48", "４８"),
    ],
)
def test_case_punctuation_spacing_and_latex_spacing_do_not_hide_a_passage(variant: str) -> None:
    assert not survives(variant, STORY)


def test_latex_spacing_and_sizing_commands_disappear() -> None:
    assert normalized(r"Let $x\,=\;3$ \quad and $\left( y \right)$") == "let x = 3 and ( y )"


def test_short_questions_are_compared_whole_with_their_signs() -> None:
    assert not survives("Solve $x + 3 = 7$.", "solve x+3=7")
    assert survives("Solve $x - 3 = 7$.", "solve x+3=7")
    assert survives("Solve $x + 3 = 7$ for x in the whole numbers below ten please", "solve x+3=7")


@pytest.mark.parametrize("generated", ["train", "evaluation"])
def test_words_count_only_between_two_questions_in_free_text(generated: str) -> None:
    train = text("Yesterday " + STORY, free_text=generated != "train")
    evaluation = text(STORY, free_text=generated != "evaluation")
    assert decontaminated([train], [evaluation])[1] == []
    others = text("something else with quite a few words in it and no more")
    assert decontaminated([train], [evaluation, others])[1] == []


def test_generated_problems_are_not_dropped_for_their_template() -> None:
    for task in (Arithmetic((2,)), Chain()):
        train, held_out = task.problems("train", 300, 0), task.problems("held_out", 60, 1)
        assert decontaminated(train, held_out) == (train, [])
        assert decontaminated([*train, held_out[3]], held_out)[1] == [held_out[3]]
    marked = [replace(problem, free_text=True) for problem in Chain().problems("train", 300, 0)]
    assert len(decontaminated(marked, [replace(p, free_text=True) for p in Chain().problems("held_out", 60, 1)])[1]) > 0


@given(st.lists(st.integers(0, 12), min_size=1, max_size=24), st.lists(st.integers(0, 12), min_size=1, max_size=24))
@settings(max_examples=300, deadline=None)
def test_it_drops_exactly_what_a_naive_comparison_would(first: list[int], second: list[int]) -> None:
    runs = {tuple(second[i : i + 4]) for i in range(len(second) - 3)} if len(second) >= 4 else {tuple(second)}
    own = {tuple(first[i : i + 4]) for i in range(len(first) - 3)} if len(first) >= 4 else {tuple(first)}
    train, evaluation = [text(" ".join(f"w{i}" for i in numbers), str(numbers)) for numbers in (first, second)]
    assert bool(decontaminated([train], [evaluation], n=4)[1]) == (bool(own & runs) or first == second)


def test_forty_thousand_questions_are_compared_with_ten_thousand_in_seconds() -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices(string.ascii_lowercase, k=5)) for _ in range(5000)]
    questions = [text(" ".join(rng.choices(words, k=45))) for _ in range(50_000)]
    started = time.process_time()
    kept, dropped = decontaminated([*questions[:40_000], questions[45_000]], questions[40_000:])
    assert time.process_time() - started < 20
    assert len(kept) == 40_000
    assert dropped == [questions[45_000]]


def test_zero_words_are_refused() -> None:
    with pytest.raises(ValueError, match=r"n=0 words must be at least 1"):
        decontaminated([], [], n=0)
