"""Problems are solvable, distinct, and never on both sides of the split."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficient_rl.rewards.arithmetic import evaluate
from efficient_rl.rewards.verify import CHECKERS
from efficient_rl.tasks.arithmetic import Arithmetic
from efficient_rl.tasks.countdown import Countdown
from efficient_rl.tasks.problem import Task, split_of

TASKS = [Countdown(), Countdown(operands=(2, 3, 4), max_number=50), Countdown(operands=(6,)), Arithmetic(), Arithmetic((3,))]


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_train_and_held_out_problems_never_overlap(task: Task) -> None:
    train = {problem.key for seed in range(3) for problem in task.problems("train", 400, seed)}
    held_out = {problem.key for seed in range(3) for problem in task.problems("held_out", 80, seed)}
    assert len(train) > 400
    assert not train & held_out


def test_the_order_of_numbers_does_not_cross_the_split() -> None:
    keys = {split_of(f"countdown {sorted(numbers)} 24") for numbers in ([3, 8, 1], [8, 1, 3], [1, 3, 8])}
    assert len(keys) == 1
    problem = Countdown().problems("train", 1, 0)[0]
    assert str(sorted(problem.gold["numbers"])) in problem.key


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_the_solution_of_every_problem_passes_its_checker(task: Task) -> None:
    for problem in task.problems("train", 300, 7):
        assert CHECKERS[problem.check](problem.solution, problem.gold), problem
        assert not CHECKERS[problem.check](problem.solution + "1", problem.gold)


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_every_step_of_a_countdown_solution_is_true_and_the_last_is_the_target(seed: int) -> None:
    for problem in Countdown(operands=(2, 3, 4)).problems("train", 5, seed):
        for step in problem.steps:
            left, right = step.split("=")
            evaluated = evaluate(left, strict=True)
            assert evaluated is not None
            assert evaluated.value == int(right) > 0
        assert problem.steps[-1].endswith(f"={problem.gold['target']}")


def test_every_step_of_an_arithmetic_working_is_true_and_the_last_is_the_answer() -> None:
    for problem in Arithmetic((1, 2, 3)).problems("train", 500, 3):
        for step in problem.steps:
            left, right = step.split("=")
            evaluated = evaluate(left, strict=True)
            assert evaluated is not None
            assert evaluated.value == int(right)
        assert problem.steps[-1].split("=")[1] == problem.gold["answer"]


def test_the_same_seed_gives_the_same_problems_and_another_seed_others() -> None:
    task = Countdown()
    assert task.problems("train", 50, 1) == task.problems("train", 50, 1)
    assert task.problems("train", 50, 1) != task.problems("train", 50, 2)


def test_difficulty_is_the_number_of_operands() -> None:
    problems = Countdown(operands=(2, 4)).problems("train", 100, 0)
    assert {problem.difficulty for problem in problems} == {2.0, 4.0}
    assert all(len(problem.gold["numbers"]) == problem.difficulty for problem in problems)


def test_asking_for_more_problems_than_there_are_says_how_many() -> None:
    with pytest.raises(ValueError, match=r"only \d+ of 500 distinct held_out problems found; ask for fewer"):
        Countdown(operands=(2,), max_number=5).problems("held_out", 500, 0)


@pytest.mark.parametrize(
    "bad", [{"operands": ()}, {"operands": (1,)}, {"operands": (7,)}, {"max_number": 1}, {"max_target": 0}]
)
def test_impossible_ranges_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"task\."):
        Countdown(**bad)  # type: ignore[arg-type]


def test_about_a_tenth_of_all_content_is_held_out() -> None:
    share = sum(split_of(f"countdown {i}") == "held_out" for i in range(20_000)) / 20_000
    assert 0.09 < share < 0.11
