"""The embedded model is what its script made, small, and leaves room to learn."""

import json
from pathlib import Path

import pytest
import torch

from efficient_rl.datasets import HELD_OUT_SEED
from efficient_rl.evaluate import Evaluator
from efficient_rl.models import load_model, load_tokenizer
from efficient_rl.nano.make import (
    BYTE_LEVEL,
    CHARACTERS,
    CONTROL,
    FOLDER,
    SHAPE,
    TAGS,
    batch,
    behave,
    digest,
    make_tokenizer,
    save,
    train,
)
from efficient_rl.prompts import Prompts
from efficient_rl.rewards.verify import is_correct
from efficient_rl.tasks.arithmetic import Arithmetic
from efficient_rl.tasks.countdown import Countdown
from efficient_rl.tasks.problem import Task
from efficient_rl.training.sampler import SamplingSettings
from tests.conftest import tiny_run


def accuracy(task: Task, count: int = 200) -> tuple[float, float]:
    """Sampled (temperature 1) and greedy accuracy on held-out problems."""
    torch.set_num_threads(1)
    config = tiny_run().model
    tokenizer, model = load_tokenizer(config), load_model(config)
    problems = task.problems("held_out", count, HELD_OUT_SEED)
    prompts = Prompts(config, tiny_run().prompt, tokenizer)
    evaluator = Evaluator(
        tokenizer=tokenizer,
        encode=lambda problem: prompts.encode(problem.symbols),
        stop_ids=prompts.stop_ids(model),
        sampling=SamplingSettings(64),
        samples=4,
        place="tags_or_boxed",
    )
    found = evaluator.evaluate(model, problems, seed=0)
    return found.accuracy, found.greedy_accuracy


def test_the_files_are_those_whose_digests_the_script_recorded() -> None:
    recorded = json.loads((FOLDER / "recipe.json").read_text())
    found = {path.name: digest(path) for path in FOLDER.iterdir() if path.name != "recipe.json"}
    assert found == recorded["sha256"]
    assert recorded["seed"] == 0
    assert recorded["steps"] == 5000


def test_the_model_is_at_most_two_megabytes_and_well_under_a_million_parameters() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 2e6
    assert sum(p.numel() for p in load_model(tiny_run().model).parameters()) < 500_000


def test_on_the_default_task_it_leaves_room_to_learn() -> None:
    sampled, greedy = accuracy(tiny_run().task.build())
    assert 0.10 <= sampled <= 0.35
    assert greedy > 0.5


@pytest.mark.slow
def test_it_knows_several_levels_of_difficulty_in_order() -> None:
    two, three, four = (accuracy(Countdown(operands=(n,)), 50 if n == 2 else 200)[0] for n in (2, 3, 4))
    assert two > three + 0.1 > four + 0.2
    assert four > 0.01
    one_digit, two_digits = (accuracy(Arithmetic(digits=(n,)), 9 if n == 1 else 200)[0] for n in (1, 2))
    assert one_digit > two_digits > 0.02


@pytest.mark.slow
def test_the_script_is_deterministic_and_saves_what_it_says(tmp_path: Path) -> None:
    a, tokenizer = train(steps=3, seed=7, size=4)
    b, _ = train(steps=3, seed=7, size=4)
    c, _ = train(steps=3, seed=8, size=4)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not all(torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))
    save(a, tokenizer, tmp_path / "made", {"steps": 3, "seed": 7})
    recorded = json.loads((tmp_path / "made" / "recipe.json").read_text())
    assert set(recorded["sha256"]) == {path.name for path in (tmp_path / "made").iterdir()} - {"recipe.json"}
    assert a.config.num_hidden_layers == SHAPE["num_hidden_layers"]


def test_every_character_is_one_token_and_comes_back_as_it_was() -> None:
    tokenizer = make_tokenizer()
    text = CHARACTERS + "".join(TAGS)
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(CHARACTERS) + len(TAGS)
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert len(tokenizer) == len(CONTROL) + len(TAGS) + len(CHARACTERS)
    assert set(BYTE_LEVEL) == {" ", "\n"}


def test_about_a_third_of_what_it_was_taught_is_right_and_in_format() -> None:
    from random import Random

    random = Random(0)
    problems = Countdown().problems("train", 500, 0)
    right = [is_correct(behave(problem, random), problem.check, problem.gold) for problem in problems for _ in range(4)]
    assert 0.45 < sum(right) / len(right) < 0.56  # 30% with reasoning, 20% without, few corrupted ones right by chance


def test_only_completions_are_taught() -> None:
    from random import Random

    pools = [task.problems("train", 5, 0) for task in (Countdown(operands=(2,)), Countdown(), Countdown((4,)), Arithmetic())]
    tokenizer = make_tokenizer()
    ids, labels = batch(pools, tokenizer, Random(0), 8)
    colon = tokenizer.convert_tokens_to_ids(":")
    for row, taught in zip(ids.tolist(), labels.tolist(), strict=True):
        start = row.index(colon) + 1
        assert set(taught[:start]) == {-100}
        assert taught[start] == row[start]
        assert tokenizer.eos_token_id in taught
