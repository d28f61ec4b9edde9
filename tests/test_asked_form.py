"""What a prompt shows as an example, and a right answer in the form that it asks for, pass the problem's own checker."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from efficient_rl.config.options import group_options
from efficient_rl.config.schema import ModelConfig
from efficient_rl.doctor.learning import FORMS, golden_completions
from efficient_rl.prompts import EXAMPLES, Prompts
from efficient_rl.rewards.verify import CHECKERS, extract_answer, is_correct
from efficient_rl.tasks.gym import GENERATORS
from efficient_rl.tasks.problem import Problem
from tests.conftest import tiny_run
from tests.odd_models import byte_tokenizer
from tests.test_datasets import PUBLISHED, hub, lines, sums, task_of

HUB_ONLY = {"math", "mgsm", "table"}  # read as tables below
GOLDS: dict[str, dict[str, Any]] = {"countdown": {"numbers": [1, 2, 3], "target": 1}}
ANSWERS = {"number": ("7", "-3", "1/2", "0.25"), "math": ("7", r"\frac{1}{2}", "x^2+1", "(1,2)"), "choice": ("A", "E")}


def problems_of(option: str, folder: Path) -> Iterator[Problem]:
    """Some problems of a task; of a published data set its sample in the tests."""
    if option in PUBLISHED:
        configs, _, _ = PUBLISHED[option]
        yield from task_of(f"task={option}", f"task.dataset={hub(folder, configs)}").problems("train", 0, 0)
    elif option == "gym":
        for generator in GENERATORS:
            yield from task_of("task=gym", f"task.generator={generator}").problems("train", 5, 0)
    elif option == "countdown_tinyzero":
        yield from task_of(f"task={option}", "task.source=generate").problems("train", 20, 0)
    elif option in HUB_ONLY:
        for check in ("number", "math"):
            path = lines(folder / f"{check}.jsonl", sums(5))
            yield from task_of("task=table", f"task.path={path}", f"task.check={check}").problems("train", 0, 0)
    else:
        yield from task_of(f"task={option}").problems("train", 20, 0)


def prompts_of(option: str, form: str = "chat", examples: Sequence[Problem] = ()) -> Prompts:
    model = ModelConfig("x", "x", form, "auto", "auto")
    return Prompts(model, tiny_run(f"prompt={option}").prompt, byte_tokenizer(), examples)


@pytest.mark.parametrize("option", group_options()["task"])
def test_what_a_prompt_shows_and_asks_for_passes_the_checker_of_its_problem(option: str, tmp_path: Path) -> None:
    problems = list(problems_of(option, tmp_path))
    for form in ("chat", "plain"):
        prompts = prompts_of("model", form)
        for problem in problems:
            shown = extract_answer(prompts.write(problem), "tags")
            assert shown == EXAMPLES[problem.check]
            gold = GOLDS.get(problem.check, {**problem.gold, "answer": shown})
            assert is_correct(f"<answer> {shown} </answer>", problem.check, gold), problem.question
    solved = [problem for problem in problems if problem.solution]
    assert solved
    for place in FORMS:
        for problem, text in zip(solved, golden_completions(place, solved), strict=True):
            assert is_correct(text, problem.check, problem.gold, place), text


@pytest.mark.parametrize("option", ["tinyzero_base", "tinyzero_instruct"])
def test_the_templates_for_countdown_show_an_expression(option: str) -> None:
    (problem,) = task_of("task=countdown").problems("train", 1, 0)
    shown = extract_answer(prompts_of(option).write(problem), "tags")
    assert is_correct(f"<answer>{shown}</answer>", "countdown", GOLDS["countdown"])


@pytest.mark.parametrize("option", ["arithmetic", "fractions", "equations", "countdown", "chain"])
def test_solved_examples_of_a_few_shot_prompt_pass(option: str) -> None:
    *examples, problem = task_of(f"task={option}").problems("train", 5, 0)
    text = prompts_of("few_shot", examples=examples).write(problem)
    answers = [part.partition("\n")[0] for part in text.split("Answer:")[1:-1]]
    assert len(answers) == 4
    for example, answer in zip(examples, answers, strict=True):
        assert is_correct(answer, example.check, example.gold, "first_line")


def test_every_checker_has_an_example_of_its_own() -> None:
    assert set(EXAMPLES) == set(CHECKERS)
    for check, answers in ANSWERS.items():
        for answer in answers:
            assert is_correct(f"<answer> {answer} </answer>", check, {"answer": answer}), answer


def test_an_answer_written_as_the_example_of_another_task_is_not_what_is_asked_for() -> None:
    (problem,) = task_of("task=arithmetic").problems("train", 1, 0)
    assert "(1 + 2) / 3" not in prompts_of("model").write(problem)
    assert not is_correct("<answer> (14 + 14) / 2 </answer>", "number", {"answer": "14"})
