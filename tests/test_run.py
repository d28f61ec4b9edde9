"""A run ends with a result; interrupted anywhere and resumed it ends with the same one."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from efficient_rl.run import Interrupted, Options, Stop, execute
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.training.settings import grpo_arguments, rename_metrics
from tests.conftest import execute_tiny, tiny_run


class StopAfter(Stop):
    """Wants to stop once that many metric lines are written."""

    def __init__(self, record: RunDirectory, lines: int) -> None:
        self._record = record
        self._lines = lines

    @property
    def wanted(self) -> bool:  # type: ignore[override]
        return len(list(self._record.metrics())) >= self._lines


def weights(folder: Path) -> dict[str, torch.Tensor]:
    path = next(path for path in (folder / "model").iterdir() if path.suffix == ".safetensors")
    return load_file(path)


@pytest.mark.slow  # the fast run has one of each mechanism in test_every_strategy.py
@pytest.mark.parametrize("strategy", ["strategy=full", "strategy=first_k", "strategy=last_k", "strategy=lora"])
def test_a_run_stopped_anywhere_and_resumed_ends_bit_identical(tmp_path: Path, strategy: str) -> None:
    resumed_equals_whole(tmp_path, strategy)


def resumed_equals_whole(tmp_path: Path, *overrides: str) -> None:
    """Stop a run of five steps three times, and hold its end to that of one that nobody stopped."""
    overrides = (*overrides, "grpo.max_steps=5", "grpo.learning_rate=1e-3")
    whole, undisturbed = execute_tiny(tmp_path / "whole", *overrides)
    config = tiny_run(*overrides)
    folder = tmp_path / "cut" / config.config_hash
    for lines in (1, 3, 5):  # before the first step, after the second, after the fourth
        with RunDirectory(folder).claim(config) as attempt, pytest.raises(Interrupted):
            execute(config, attempt, Options(checkpoint_steps=2), StopAfter(RunDirectory(folder), lines))
    record = RunDirectory(folder)
    resumed = execute(config, record.claim(config), Options(checkpoint_steps=2), Stop())
    a, b = weights(undisturbed.folder), weights(folder)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert resumed.accuracy == whole.accuracy
    assert resumed.final_reward == whole.final_reward
    assert [row["step"] for row in record.metrics()] == [0, 1, 2, 3, 4, 5, 5]


def test_a_damaged_first_evaluation_is_measured_again(tmp_path: Path) -> None:
    config = tiny_run("strategy=last_k")
    record = RunDirectory(tmp_path / config.config_hash)
    attempt = record.claim(config)
    (record.folder / "evaluation_before.json").write_text('{"acc')
    assert execute(config, attempt, Options(), Stop()).accuracy_before > 0


@pytest.mark.slow
def test_the_same_run_twice_gives_the_same_numbers(tmp_path: Path) -> None:
    first, _ = execute_tiny(tmp_path / "a", "strategy=full")
    second, _ = execute_tiny(tmp_path / "b", "strategy=full")
    assert (first.accuracy, first.final_reward, first.tokens) == (second.accuracy, second.final_reward, second.tokens)
    other, _ = execute_tiny(tmp_path / "c", "strategy=full", "seed=5")
    assert other.final_reward != first.final_reward
    assert other.accuracy_before == first.accuracy_before  # the held-out problems do not depend on the seed


def test_a_run_records_what_its_design_promises(tmp_path: Path) -> None:
    result, record = execute_tiny(tmp_path, "strategy=last_k", "eval.steps=1")
    lines = list(record.metrics())
    train = [row["metrics"] for row in lines if "train/reward" in row["metrics"]]
    assert len(train) == 3
    for name in (
        "train/reward", "train/reward_std", "train/reward_accuracy", "train/reward_format", "train/frac_zero_std",
        "train/entropy", "train/completion_tokens", "train/difficulty", "train/tokens", "train/grad_norm",
        "time/step_seconds", "time/generation_seconds", "time/backward_seconds", "time/optimizer_seconds",
        "memory/generation_peak_bytes", "memory/backward_peak_bytes",
    ):  # fmt: skip
        assert name in train[1], name
    assert [row["step"] for row in lines if "eval/accuracy" in row["metrics"]] == [0, 1, 2, 3]
    assert result.trainable_params == 107_136
    assert result.total_params == 323_776
    assert result.steps == 3
    assert {"generation", "forward", "backward", "optimizer"} <= set(result.peak_memory_bytes)
    assert not (record.folder / "checkpoints").exists()
    completions = [json.loads(line) for line in (record.folder / "completions.jsonl").read_text().splitlines()]
    assert {"prompt", "completion", "reward_accuracy", "reward_format", "advantage", "step"} <= set(completions[0])


@pytest.mark.parametrize("strategy", ["strategy=lora", "strategy=last_k"])
def test_kl_is_logged_when_there_is_a_reference(tmp_path: Path, strategy: str) -> None:
    _, record = execute_tiny(tmp_path, strategy, "grpo.beta=0.04", "grpo.learning_rate=1e-2")
    kl = [row["metrics"]["train/kl"] for row in record.metrics() if "train/kl" in row["metrics"]]
    assert len(kl) == 3
    assert kl[-1] > 0


def test_every_knob_reaches_trl_under_its_own_name(tmp_path: Path) -> None:
    config = tiny_run("grpo.beta=0.02", "grpo.epsilon_high=0.3", "grpo.loss_type=dr_grpo", "grpo.num_iterations=3")
    arguments = grpo_arguments(config, tmp_path, checkpoint_steps=25)
    for name in (
        "beta",
        "epsilon",
        "epsilon_high",
        "loss_type",
        "num_iterations",
        "num_generations",
        "temperature",
        "max_steps",
    ):
        assert getattr(arguments, name) == getattr(config.grpo, name), name
    assert arguments.save_steps == 27  # the first multiple of num_iterations from 25 on
    assert not arguments.bf16
    assert not arguments.gradient_checkpointing
    assert arguments.report_to == []


def test_metrics_get_our_names_and_no_nan() -> None:
    logs = {
        "reward": 0.5,
        "frac_reward_zero_std": 0.1,
        "rewards/accuracy/mean": 0.2,
        "kl": float("nan"),
        "epoch": 1,
        "x": "y",
    }
    assert rename_metrics(logs) == {"train/reward": 0.5, "train/frac_zero_std": 0.1, "train/reward_accuracy": 0.2}


def test_training_never_sees_a_held_out_problem(tmp_path: Path) -> None:
    from efficient_rl.datasets import HELD_OUT_SEED
    from efficient_rl.tasks.problem import split_of

    config = tiny_run("grpo.train_problems=2000", "eval.problems=200")
    task = config.task.build()
    train = {problem.key for problem in task.problems("train", config.grpo.train_problems, config.seed)}
    held_out = {problem.key for problem in task.problems("held_out", config.eval.problems, HELD_OUT_SEED)}
    assert not train & held_out
    assert {split_of(key) for key in train} == {"train"}
