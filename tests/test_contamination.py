"""No evaluation question reaches the training data, and templates of generated problems do not count as one."""

import random
import string
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficient_rl.tasks.arithmetic import Arithmetic
from efficient_rl.tasks.chain import Chain
from efficient_rl.tasks.contamination import Leaks, decontaminated, normalized
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


@pytest.mark.slow
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


RULE = "Think step by step and put the final number between the answer tags, nothing else please."
SHOTS = "Q: How much is one and one? A: 2. Q: How much is two and five? A: 7. Now the question that you answer:"
THINGS = ("apples", "books", "coins", "doors", "eggs", "flags", "goats", "hats", "inks", "jars", "kites")
NAMES = ("Ann", "Bo", "Cy", "Di", "Ed", "Flo", "Gus", "Hal", "Ida", "Jo", "Kim", "Lea", "Max")


def story(number: int) -> str:
    """A question of its own for every number below 143, without eight words in a row that any two share."""
    return f"{NAMES[number % 13]} has {number} {THINGS[number % 11]} in {number * 7} boxes; how many is that?"


def rows(numbers: range, written: Callable[[int, str], str] = lambda number, question: question) -> list[Problem]:
    return [text(written(number, story(number))) for number in numbers]


@pytest.mark.parametrize(
    "written",
    [
        lambda number, question: f"{question} {RULE}",
        lambda number, question: f"{SHOTS} {question}",
        lambda number, question: f"{SHOTS} {question} {RULE}",
        lambda number, question: f"{RULE} {RULE} {question}",
        lambda number, question: question.replace(";", f". {RULE} "),
        lambda number, question: f"{question} {RULE}" if number % 10 else question,
        lambda number, question: f"{question} {RULE}" if number % 2 else question,
        lambda number, question: f"{question} {RULE}" if number % 7 == 0 else question,
        lambda number, question: (
            f"In source {number % 8} all of the people count like this, says page {number % 8}. {question}"
        ),
        lambda number, question: f"{question} {RULE}" if number >= 50 or number % 20 == 0 else question,  # the held-out rows
    ],
    ids=["end", "few-shot", "both", "twice", "middle", "most", "half", "few", "by-source", "held-out"],
)
def test_a_passage_of_many_questions_is_boilerplate_and_true_leaks_are_still_found(
    written: Callable[[int, str], str],
) -> None:
    train, evaluation = rows(range(40), written), rows(range(50, 70), written)
    assert decontaminated(train, evaluation) == (train, [])
    again = [text(problem.question.upper().replace("?", " ?!")) for problem in evaluation[:3]]
    longer = [text(f"{problem.question} Tell me, dear friend.") for problem in evaluation[3:6]]
    leaks = [*again, *longer]
    assert decontaminated([*train, *leaks], evaluation) == (train, leaks)


def test_a_question_with_and_one_without_the_shared_instruction_are_the_same_question() -> None:
    written, bare = rows(range(20), lambda _, question: f"{question} {RULE}"), rows(range(20, 40))
    extended = rows(range(20, 26), lambda _, question: f"{question} {RULE}")
    assert decontaminated([*written, *extended], [*bare, *rows(range(50, 70), lambda _, asked: f"{asked} {RULE}")]) == (
        written,
        extended,
    )


@pytest.mark.parametrize("instruction", [RULE, SHOTS])
def test_short_questions_below_a_shared_instruction_are_compared_whole(instruction: str) -> None:
    train = [text(f"{instruction} What is {n} - 3?") for n in range(20)]
    evaluation = [text(f"{instruction} What is {n} + 3?") for n in range(20)]
    assert decontaminated(train, evaluation) == (train, [])
    repeated = text(f"{instruction} WHAT is 7 + 3 ?")
    assert decontaminated([*train, repeated], evaluation) == (train, [repeated])


def test_a_template_with_a_number_in_it_drops_only_the_same_number() -> None:
    template = "Natalia sold clips to {} of her friends in April, and half as many in May, so how many in all?"
    train = [text(template.format(n)) for n in range(30)]
    evaluation = [text(template.format(n)) for n in range(100, 120)]
    assert decontaminated(train, evaluation) == (train, [])
    repeated = text(template.format(103).lower().replace(",", ""))
    assert decontaminated([*train, repeated], evaluation) == (train, [repeated])


def test_a_passage_of_fewer_than_five_questions_is_no_boilerplate() -> None:
    for copies, leaked in ((4, 4), (5, 0)):
        train = [text(f"{story(n)} {RULE}") for n in range(copies)]
        assert len(decontaminated(train, [text(f"{story(50)} {RULE}")])[1]) == leaked


def test_what_is_boilerplate_and_what_was_shared_is_known() -> None:
    leaks = Leaks(rows(range(40), lambda _, question: f"{question} {RULE}"), [text(f"{STORY} {RULE}")] * 3)
    assert "think step by step and put the final" in leaks.boilerplate
    assert leaks.find(text("Once, " + STORY)) == "natalia sold clips to 48 of her friends"
    assert leaks.find(text(story(3))) is None
