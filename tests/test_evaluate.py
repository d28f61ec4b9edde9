"""What evaluation reports, worked out by hand, and what a run measures itself on."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from efficient_rl.datasets import load_splits
from efficient_rl.errors import ConfigError
from efficient_rl.evaluate import difficulty_levels, interval, majority, pass_at, standard_error
from tests.conftest import execute_tiny, tiny_run


def test_pass_at_k_is_the_unbiased_estimate() -> None:
    # 4 samples, 1 right: of the 6 pairs 3 hold it
    assert pass_at(2, 4, 1) == pytest.approx(0.5)
    assert pass_at(1, 8, 2) == pytest.approx(0.25)
    # 5 samples, 2 right, k=3: of 10 triples only 1 lacks both
    assert pass_at(3, 5, 2) == pytest.approx(0.9)
    assert pass_at(4, 4, 0) == 0
    assert pass_at(4, 4, 1) == 1


@pytest.mark.parametrize(
    ("verdicts", "right"),
    [
        ([(True, "0.5"), (False, "3"), (True, "1/2")], True),  # equal numbers vote together
        ([(False, "3"), (True, "7"), (False, "3")], False),
        ([(True, "7"), (False, "3")], True),  # a tie goes to the first
        ([(False, "3"), (True, "7")], False),
        ([(False, None), (False, None), (True, "7")], True),  # no answer is no vote
        ([(False, None)], False),
        ([(True, "X + 1"), (True, "x+1"), (False, "2"), (False, "2")], True),
    ],
)
def test_the_majority_of_answers_decides(verdicts: Sequence[tuple[bool, str | None]], right: bool) -> None:
    assert majority(verdicts) is right


def test_the_standard_error_is_over_problems() -> None:
    # shares 1, 0, 0.5, 0.5: variance (0.25 + 0.25) / 3 = 1/6, over 4 problems
    assert standard_error([1, 0, 0.5, 0.5]) == pytest.approx((1 / 6 / 4) ** 0.5)
    assert standard_error([0.4]) == 0


def test_the_interval_is_wilsons() -> None:
    # 10 problems, 8 right: standard error that of a binomial, so draws = 10; Wilson's 95% interval is 0.490 to 0.943
    assert interval(0.8, (0.8 * 0.2 / 10) ** 0.5, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    # none of 10: 0 to 0.278
    assert interval(0.0, 0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=50))
def test_the_interval_holds_the_mean(right: list[int]) -> None:
    shares = [count / 4 for count in right]
    mean = sum(shares) / len(shares)
    low, high = interval(mean, standard_error(shares), len(shares))
    assert 0 <= low <= mean + 1e-12
    assert mean - 1e-12 <= high <= 1


def test_few_difficulties_are_levels_and_many_are_fifths() -> None:
    assert difficulty_levels([3, 2, 10, 2]) == (["2", "3", "10"], ["3", "2", "10", "2"])
    names, levels = difficulty_levels([float(value) for value in range(100)])
    assert names == ["up_to_19", "up_to_39", "up_to_59", "up_to_79", "up_to_99"]
    assert [levels.count(name) for name in names] == [20] * 5
    assert levels[20] == "up_to_39"


def test_a_run_evaluates_on_all_its_sets(tmp_path: Path) -> None:
    result, record = execute_tiny(tmp_path, "eval.sets=[arithmetic]", "task.operands=[2,3]", "eval.steps=2")
    own, other = result.evaluation, result.evaluation["sets"]["arithmetic"]
    assert set(own["by_difficulty"]) == {"2", "3"}
    assert own["pass_at"]["1"] == pytest.approx(own["accuracy"])
    assert own["low"] <= own["accuracy"] <= own["high"]
    assert list(other["by_source"]) == ["arithmetic"]
    assert (other["problems"], other["samples"]) == (12, 2)
    lines = [row["metrics"] for row in record.metrics() if "eval/accuracy" in row["metrics"]]
    assert len(lines) == 3  # before, after two steps, at the end
    assert lines[-1]["eval/arithmetic/accuracy"] == other["accuracy"]
    assert lines[-1]["eval/majority_accuracy"] == own["majority_accuracy"]


def table(folder: Path, name: str, questions: Sequence[str]) -> str:
    """A local data set; the answer is the number of its row."""
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"question": text, "answer": str(n)}) + "\n" for n, text in enumerate(questions)))
    return str(path)


def test_no_training_problem_is_in_any_evaluation_set(tmp_path: Path) -> None:
    asked = [
        f"Tom has {number} red apples, {number} green ones and {number} pears, all of {number} grams."
        for number in range(40)
    ]
    own = table(tmp_path, "own", asked)
    other = table(tmp_path, "other", [f"What now? {asked[3]}", *(f"Something else entirely, number {n}?" for n in range(7))])
    sets = f"{{other: {{_target_: efficient_rl.tasks.datasets.Table, path: {other}, check: number, held_out: all}}}}"
    overrides = ("task=table", f"task.path={own}", "task.check=number", "grpo.train_problems=20", "eval.problems=2")
    alone = load_splits(tiny_run(*overrides))
    assert alone.contaminated == 0
    problems = load_splits(tiny_run(*overrides, f"eval.sets={sets}", "eval.problems=4"))
    assert list(problems.eval_sets) == ["table", "other"]
    measured = " ".join(problem.question for held_out in problems.eval_sets.values() for problem in held_out)
    assert not any(problem.question in measured for problem in problems.train)


def test_what_a_table_holds_out_stays_out_of_training_though_it_is_not_measured(tmp_path: Path) -> None:
    test = [f"Row{n} asks how many of the {n} blue cats{n} are asleep now" for n in range(30)]
    others = [f"Is it {n}?" for n in range(30)]
    held_out, own = table(tmp_path, "test", test), table(tmp_path, "own", [*(f"More: {text}" for text in test), *others])
    overrides = ("task=table", f"task.path={own}", f"task.held_out=path:{held_out}", "grpo.train_problems=60")
    problems = load_splits(tiny_run(*overrides, "task.check=number", "eval.problems=2"))
    assert {problem.question for problem in problems.train} == set(others)
    assert problems.contaminated == 30


def test_what_is_dropped_is_told_with_a_passage_and_more_than_half_is_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    test = [f"Row{n} asks how many of the {n} blue cats{n} are asleep now" for n in range(12)]
    held_out, own = (
        table(tmp_path, "test", test),
        table(tmp_path, "own", [*(f"More: {text}" for text in test), *"abcdefghij"]),
    )
    overrides = ("task=table", f"task.path={own}", f"task.held_out=path:{held_out}", "task.check=number", "eval.problems=2")
    said = r"12 of 22 training problems share a passage with an evaluation set, such as 'row\d+ asks .*'; more than half"
    with pytest.raises(ConfigError, match=said) as caught:
        load_splits(tiny_run(*overrides, "grpo.train_problems=22"))
    assert "prompt.template" in str(caught.value)
    table(tmp_path, "own", [*(f"More: {text}" for text in test), *"abcdefghijkl"])
    assert load_splits(tiny_run(*overrides, "grpo.train_problems=24")).contaminated == 12
    assert "12 of 24 training problems share a passage with an evaluation set, such as 'row" in caplog.text


@pytest.mark.parametrize("sources", [1, 2, 4, 12])
def test_an_instruction_that_questions_of_a_source_share_costs_no_training_problem(tmp_path: Path, sources: int) -> None:
    rule = "Think step by step and put the final number between the tags of book {0}, page {0}."
    rows = [f"Case {n}: Kim finds {n} of {n * 7} eggs. {rule.format(n % sources)}" for n in range(120)]
    own = table(tmp_path, "own", rows)
    overrides = ("task=table", f"task.path={own}", "task.check=number", "grpo.train_problems=40", "eval.problems=2")
    problems = load_splits(tiny_run(*overrides))
    assert (len(problems.train), problems.contaminated) == (40, 0)


def test_examples_of_a_prompt_are_not_trained_on() -> None:
    overrides = ("task=arithmetic", "task.operators=[+]", "task.digits=[1]", "grpo.train_problems=40", "eval.problems=4")
    problems = load_splits(tiny_run(*overrides, "prompt=few_shot", "model.prompt=plain"))
    assert len(problems.examples) == 4
    assert not {problem.key for problem in problems.examples} & {problem.key for problem in problems.train}


def test_an_evaluation_set_with_the_tasks_name_but_other_problems_is_refused() -> None:
    config = tiny_run("task.operands=[2]", "eval.sets=[countdown]")
    with pytest.raises(ConfigError, match="another 'countdown' than task"):
        load_splits(config)


def test_data_in_folders_below_counts_as_content(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "train"
    folder.mkdir(parents=True)
    table(folder, "own", ["a?"])
    first = tiny_run("task=table", f"task.path={tmp_path / 'data'}").config_hash
    table(folder, "own", ["b?"])
    assert tiny_run("task=table", f"task.path={tmp_path / 'data'}").config_hash != first


def test_a_run_whose_data_changed_is_another_run(tmp_path: Path) -> None:
    overrides = ("task=table", f"task.path={table(tmp_path, 'own', ['a?', 'b?'])}")
    first = tiny_run(*overrides).config_hash
    assert tiny_run(*overrides).config_hash == first
    table(tmp_path, "own", ["a?", "c?", "d?"])
    assert tiny_run(*overrides).config_hash != first


def test_an_unknown_evaluation_set_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown task 'gsm9k'; did you mean 'gsm8k'"):
        tiny_run("eval.sets=[gsm9k]")
