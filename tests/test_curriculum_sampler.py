"""What a curriculum draws is trained on, what it earns comes back, and groups without a signal are replaced."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig

from efficient_rl.curricula.protocol import Curriculum
from efficient_rl.curricula.scheduled import DynamicSampling
from efficient_rl.models import load_model, load_tokenizer
from efficient_rl.strategies.static import LastK
from efficient_rl.training.curriculum_sampler import groups_without_signal, rows_of_level_groups, with_groups_replaced
from efficient_rl.training.grpo import EfficientGRPOTrainer
from efficient_rl.training.process_rewards import ProcessRewards
from tests.conftest import execute_tiny, tiny_run

NANO = tiny_run().model
ROWS = [
    {"prompt": f"{number}+1=", "difficulty": float(number), "check": "number", "gold": json.dumps({"answer": "7"})}
    for number in range(1, 9)
]


class Counting(DynamicSampling):
    """Draws in order and writes down what it is told."""

    def __init__(self, refills: int) -> None:
        self.refills, self.drawn, self.seen = refills, 0, []  # type: ignore[var-annotated]

    def begin(self, difficulties: Sequence[float], seed: int, steps: int) -> None:
        self.pool, self.started = list(difficulties), (seed, steps)

    def draw(self, count: int, step: int) -> list[int]:
        indices = [position % len(self.pool) for position in range(self.drawn, self.drawn + count)]
        self.drawn += count
        return indices

    def observe(self, indices: Sequence[int], rewards: Sequence[Sequence[float]], step: int) -> None:
        self.seen.append((step, list(indices), [list(group) for group in rewards]))

    def beliefs(self) -> dict[str, float]:
        return {"drawn": float(self.drawn)}


def train(folder: Path, curriculum: Curriculum, reward: Callable[..., Any], **settings: Any) -> EfficientGRPOTrainer:
    base: dict[str, Any] = {
        "output_dir": str(folder), "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 6,
        "max_steps": 2, "learning_rate": 1e-3, "logging_steps": 1, "report_to": [], "disable_tqdm": True, "bf16": False,
        "use_cpu": True, "save_strategy": "no", "gradient_checkpointing": False, "seed": 3,
    }  # fmt: skip
    trainer = EfficientGRPOTrainer(
        load_model(NANO),
        reward,
        GRPOConfig(**(base | settings)),
        train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in ROWS]),
        processing_class=load_tokenizer(NANO),
        strategy=LastK(1),
        problems=ROWS,
        curriculum=curriculum,
    )
    trainer.train()
    return trainer


def varied(completions: list[str], **_: Any) -> list[float]:
    return [float(index % 4) for index in range(len(completions))]


def test_a_curriculum_sees_the_pool_the_length_of_training_and_what_its_problems_earned(tmp_path: Path) -> None:
    curriculum = Counting(refills=0)
    trainer = train(tmp_path, curriculum, varied)
    assert curriculum.pool == [float(number) for number in range(1, 9)]
    assert curriculum.started == (3, 2)
    assert curriculum.seen == [(0, [0, 1], [[0, 1, 2, 3]] * 2), (1, [2, 3], [[0, 1, 2, 3]] * 2)]
    logged = [line for line in trainer.state.log_history if "difficulty" in line]
    assert [line["difficulty"] for line in logged] == [1.5, 3.5]
    assert [line["curriculum/drawn"] for line in logged] == [2, 4]


def test_groups_without_a_signal_are_replaced_up_to_the_bound_and_their_tokens_count(tmp_path: Path) -> None:
    def only_problem_five(prompts: list[str], **_: Any) -> list[float]:
        return [float(index % 2) if prompt == "5+1=" else 0.0 for index, prompt in enumerate(prompts)]

    curriculum = Counting(refills=3)
    trainer = train(tmp_path, curriculum, only_problem_five, max_steps=1)
    # 1 and 2 have no signal; 3 and 4 neither; of 5 and 6 only 5 has; the last refill draws 7 in place of the other group
    assert [indices for _, indices, _ in curriculum.seen] == [[0, 1], [2, 3], [4, 5], [6]]
    (line,) = [line for line in trainer.state.log_history if "curriculum/refilled_groups" in line]
    assert line["curriculum/refilled_groups"] == 5
    assert line["frac_reward_zero_std"] == 1  # of the first draw, which alone is a sample of all problems
    assert line["num_tokens"] > 7 * 4 * len("5+1=")


def test_without_a_refill_nothing_is_generated_again(tmp_path: Path) -> None:
    curriculum = Counting(refills=3)
    train(tmp_path, curriculum, varied, max_steps=1)
    assert len(curriculum.seen) == 1


def test_replaced_groups_bring_their_rows_padded_on_the_right_side() -> None:
    def batch(rows: int, prompt: int, completion: int, value: int) -> dict[str, torch.Tensor]:
        return {
            "prompt_ids": torch.full((rows, prompt), value), "prompt_mask": torch.ones(rows, prompt, dtype=torch.long),
            "completion_ids": torch.full((rows, completion), value),
            "completion_mask": torch.ones(rows, completion, dtype=torch.long),
            "advantages": torch.full((rows,), float(value)), "num_items_in_batch": torch.tensor(rows * completion),
        }  # fmt: skip

    merged = with_groups_replaced(batch(4, 2, 3, 5), [1], batch(2, 3, 2, 7), size=2, pad_id=0)
    assert merged["prompt_ids"].tolist() == [[0, 5, 5], [0, 5, 5], [7, 7, 7], [7, 7, 7]]
    assert merged["prompt_mask"].tolist() == [[0, 1, 1], [0, 1, 1], [1, 1, 1], [1, 1, 1]]
    assert merged["completion_ids"].tolist() == [[5, 5, 5], [5, 5, 5], [7, 7, 0], [7, 7, 0]]
    assert merged["advantages"].tolist() == [5, 5, 7, 7]
    assert merged["num_items_in_batch"] == 3 + 3 + 2 + 2


def test_groups_are_level_up_to_rounding_only() -> None:
    rewards = torch.tensor([0.1, 0.1 + 1e-8, 0.1, 0.1001, 0.0, 0.0, -3.0, -3.0])
    assert rows_of_level_groups(rewards, 2).tolist() == [True, True, False, False, True, True, True, True]


def test_a_group_has_a_signal_if_any_token_has_an_advantage() -> None:
    assert groups_without_signal(torch.tensor([0.0, 0.0, 1.0, -1.0]), 2) == [0]
    assert groups_without_signal(torch.tensor([[0.0, 0.0], [0.0, 0.5], [0.0, 0.0], [0.0, 0.0]]), 2) == [1]


@pytest.mark.parametrize("level", [0.1, 0.7, 12.3])
def test_equal_rewards_that_floats_cannot_hold_are_no_signal(tmp_path: Path, level: float) -> None:
    curriculum = Counting(refills=2)
    trainer = train(tmp_path, curriculum, lambda completions, **_: [level] * len(completions), max_steps=1)
    assert [len(indices) for _, indices, _ in curriculum.seen] == [2, 2, 2]
    assert trainer.state.log_history[0]["loss"] == 0


class Steps:
    """Every digit is a step, worth its value."""

    __name__ = "steps"

    def __call__(self, completions: list[str], **_: Any) -> list[float]:
        return [0.0] * len(completions)

    def steps(self, completion: str, check: str, gold: Any, place: str | None) -> list[tuple[int, float]]:
        assert (check, gold, place) == ("number", {"answer": "7"}, None)
        return [(index + 1, float(character)) for index, character in enumerate(completion) if character.isdigit()]


def test_step_rewards_become_advantages_of_the_tokens_before_their_ends() -> None:
    tokenizer = load_tokenizer(NANO)
    weights = torch.tensor([1.0, 2.0])
    stepwise = ProcessRewards([varied, Steps()], weights, tokenizer)
    assert weights.tolist() == [1.0, 0.0]  # no part in the sum over whole completions
    texts = ["1+1", "0"]
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    found = stepwise.token_advantages(ROWS[:2], texts, ids, size=2)
    # rewards 1, 1, 0: mean 2/3, deviation (sample) 0.57735; the normalised ones are 0.5773 and -1.1545; weight 2
    one, zero = (2 * (value - 2 / 3) / (3**-0.5 + 1e-4) for value in (1, 0))
    assert found[0] == pytest.approx([2 * one, one, one], rel=1e-4)
    assert found[1] == pytest.approx([zero], rel=1e-4)


def test_a_curriculum_sees_step_rewards_and_no_failure_where_there_is_no_verdict(tmp_path: Path) -> None:
    class Mean(Steps):
        def __call__(self, completions: list[str], **_: Any) -> list[float]:
            return [float("nan") if index < 4 else 0.5 for index in range(len(completions))]

    curriculum = Counting(refills=0)
    train(tmp_path, curriculum, Mean(), max_steps=1)
    ((_, _, (first, second)),) = curriculum.seen
    assert all(value != value for value in first)
    assert second == [0.5] * 4


def test_training_on_steps_alone_moves_the_weights(tmp_path: Path) -> None:
    trainer = train(tmp_path, Counting(refills=0), Steps(), max_steps=1)
    assert trainer.state.log_history[0]["grad_norm"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("option", ["dapo", "sec", "learnability"])
def test_a_resumed_run_goes_on_with_its_curriculum(tmp_path: Path, option: str) -> None:
    from tests.test_run import resumed_equals_whole

    resumed_equals_whole(tmp_path, f"curriculum={option}", "task.operands=[2,3]")


def test_a_run_logs_what_its_curriculum_believes(tmp_path: Path) -> None:
    _, record = execute_tiny(tmp_path, "curriculum=sec", "task.operands=[2,3]")
    lines = [row["metrics"] for row in record.metrics() if "train/reward" in row["metrics"]]
    believed = [{name for name in line if name.startswith("curriculum/")} for line in lines]
    assert all(believed)
    assert all(2 <= line["train/difficulty"] <= 3 for line in lines)
