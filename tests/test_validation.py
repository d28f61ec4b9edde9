"""Validation problems are neither tested nor trained on, and what has nothing to do with them stays as it was."""

import json
from pathlib import Path

import pytest

from efficient_rl.config.run_config import RunConfig, from_dict, to_dict
from efficient_rl.datasets import load_splits
from efficient_rl.errors import ConfigError
from efficient_rl.tasks.problem import split_of
from tests.conftest import execute_tiny, tiny_run


def both(*overrides: str) -> tuple[RunConfig, RunConfig]:
    return tiny_run(*overrides), tiny_run(*overrides, "eval.split=validation")


@pytest.mark.parametrize("overrides", [(), ("task=arithmetic",), ("task=arithmetic", "prompt=few_shot", "prompt.shots=2")])
def test_validation_problems_are_neither_tested_nor_trained_on(overrides: tuple[str, ...]) -> None:
    test, validation = both("grpo.train_problems=600", "eval.problems=100", *overrides)
    tested, chosen = load_splits(test), load_splits(validation)
    (test_set,), (validation_set,) = tested.eval_sets.values(), chosen.eval_sets.values()
    assert len(test_set) == len(validation_set) == 100
    keys = {problem.key for problem in validation_set}
    assert keys.isdisjoint(problem.key for problem in test_set)
    assert keys.isdisjoint(problem.key for problem in (*chosen.train, *chosen.examples))
    assert {split_of(key) for key in keys} == {"train"}, "a larger test would not hold one of them either"
    assert chosen.contaminated == tested.contaminated


def test_validation_takes_from_training_only_its_own_problems() -> None:
    test, validation = both("grpo.train_problems=600", "eval.problems=100", "task=arithmetic", "task.digits=[1,2]")
    tested, chosen = load_splits(test), load_splits(validation)
    (validation_set,) = chosen.eval_sets.values()
    removed = {problem.key for problem in tested.train} - {problem.key for problem in chosen.train}
    assert removed, "with so few problems some are drawn on both sides; else this test shows nothing"
    assert removed <= {problem.key for problem in validation_set}


def table(folder: Path, rows: int, words: str = "") -> Path:
    path = folder / "rows.jsonl"
    lines = [
        {"question": f"{words}What is {number} plus {number * 7}?", "answer": str(8 * number)} for number in range(rows)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def of_table(path: Path, *overrides: str) -> tuple[str, ...]:
    return ("task=table", f"task.path={path}", "model.prompt=plain", *overrides)


def test_validation_problems_of_a_table_share_no_passage_with_its_test(tmp_path: Path) -> None:
    path = table(tmp_path, 300)
    _, validation = both(*of_table(path, "grpo.train_problems=200", "eval.problems=20"))
    chosen = load_splits(validation)
    (validation_set,) = chosen.eval_sets.values()
    assert len(validation_set) == 20
    assert {problem.key for problem in validation_set}.isdisjoint(problem.key for problem in chosen.train)
    assert {split_of(problem.key) for problem in validation_set} == {"train"}


def test_a_passage_that_all_questions_of_a_table_share_leaves_it_its_validation_problems(tmp_path: Path) -> None:
    path = table(tmp_path, 300, "On the way to the old mill by the river Anna counts. ")
    _, validation = both(*of_table(path, "grpo.train_problems=100", "eval.problems=20"))
    chosen = load_splits(validation)
    (validation_set,) = chosen.eval_sets.values()
    assert len(validation_set) == 20
    assert {problem.key for problem in validation_set}.isdisjoint(problem.key for problem in chosen.train)
    _, validation = both(*of_table(path, "grpo.train_problems=100", "eval.problems=290"))
    with pytest.raises(ConfigError, match=r"eval.problems=290, but only \d+ can be kept for validation"):
        load_splits(validation)


def test_the_test_split_keeps_the_hashes_from_before_there_were_splits() -> None:
    assert tiny_run().config_hash == "4729b001164ff29c"
    assert tiny_run("eval.split=validation").config_hash != "4729b001164ff29c"


def test_a_configuration_written_before_there_were_splits_is_of_the_test() -> None:
    plain = to_dict(tiny_run())
    del plain["eval"]["split"]
    assert from_dict(plain) == tiny_run()


def test_an_unknown_split_names_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"eval.split='dev' is not known; .*valid: test, validation"):
        tiny_run("eval.split=dev")


def test_a_run_is_measured_on_the_split_it_names(tmp_path: Path) -> None:
    on_test, _ = execute_tiny(tmp_path, "grpo.max_steps=1")
    on_validation, _ = execute_tiny(tmp_path, "grpo.max_steps=1", "eval.split=validation")
    assert on_test.evaluation["seed"] != on_validation.evaluation["seed"]
    assert on_test.evaluation_before["by_difficulty"] != on_validation.evaluation_before["by_difficulty"]
