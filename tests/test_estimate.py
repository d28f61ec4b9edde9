"""Estimates come from finished runs where there are any, memory else from the model's shape."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from efficient_rl.doctor import memory
from efficient_rl.doctor.machines import Machine
from efficient_rl.preflight import memory as preflight
from efficient_rl.preflight.memory import estimate_memory
from efficient_rl.preflight.shape import read_shape
from efficient_rl.rundir.result import RunResult
from efficient_rl.sweep.estimate import UNKNOWN, Budget, Work, estimate, known_runs, make_budget, work_of
from efficient_rl.sweep.request import read_request
from tests.conftest import execute_tiny, slow_unless, tiny_run
from tests.small_models import MODELS
from tests.test_record import RESULT

HERE = Machine("this machine", 64 << 30, on_gpu=False)


def result(**changes: object) -> RunResult:
    return RunResult(config_hash="0" * 16, **(RESULT | changes))


def seen(changes: Mapping[str, Any], *overrides: str) -> tuple[Work, RunResult]:
    return work_of(tiny_run(*overrides)), result(**changes)


def test_time_scales_with_the_work_and_memory_is_that_of_runs_like_it() -> None:
    peaks = {"backward": 100, "generation": 50}
    known = [seen({"train_seconds": 6.0, "total_seconds": 10.0, "peak_memory_bytes": peaks}, "strategy=last_k")]
    found = estimate(tiny_run("strategy=last_k", "grpo.max_steps=30", "seed=4"), known)  # ten times the steps
    assert found.seconds == pytest.approx(4.0 + 60.0)
    assert found.peak_bytes == 100
    assert found.seconds_from == found.bytes_from == "1 finished like it"


def test_the_work_of_a_run_is_that_of_its_entry_in_a_sweeps_list() -> None:
    run = tiny_run("strategy=lora", "eval.steps=2")
    assert work_of(run) == Work.of(run.flat())


def test_evaluation_scales_with_its_problems_and_samples() -> None:
    times = {"train_seconds": 6.0, "total_seconds": 10.0, "phase_seconds": {"evaluation": 3.0}}
    known = [seen(times)]  # 12 problems of 1 + 2 completions, after training: 3 s of 4 around it
    assert estimate(tiny_run("eval.problems=120"), known).seconds == pytest.approx(1.0 + 30.0 + 6.0)
    assert estimate(tiny_run("eval.samples=5"), known).seconds == pytest.approx(1.0 + 6.0 + 6.0)
    assert estimate(tiny_run("eval.steps=1"), known).seconds == pytest.approx(1.0 + 9.0 + 6.0)


def test_longer_completions_take_longer() -> None:
    known = [seen({"train_seconds": 6.0, "total_seconds": 6.0})]  # 64 + 24 tokens
    assert estimate(tiny_run("grpo.max_completion_length=112"), known).seconds == pytest.approx(12.0)


def test_the_same_strategy_counts_before_other_ones() -> None:
    known = [
        seen({"train_seconds": 6.0, "total_seconds": 10.0}, "strategy=last_k"),
        seen({"train_seconds": 60.0, "total_seconds": 100.0}, "strategy=full"),
    ]
    assert estimate(tiny_run("strategy=full", "seed=1"), known).seconds == 100.0
    assert estimate(tiny_run("strategy=lora"), known).seconds_from == "2 finished with this model"


def test_memory_is_that_of_runs_with_the_same_arguments_of_the_strategy() -> None:
    peaks = {"peak_memory_bytes": {"backward": 100}}
    known = [seen(peaks, "strategy=last_k", "strategy.k=1")]
    assert estimate(tiny_run("strategy=last_k", "strategy.k=1", "seed=1"), known).peak_bytes == 100
    assert estimate(tiny_run("strategy=last_k", "strategy.k=6"), known).bytes_from == "the model's shape"


def test_without_a_run_of_the_model_time_is_unknown_and_without_its_shape_memory_too() -> None:
    guess = estimate(tiny_run(), [])
    assert (guess.seconds, guess.seconds_from, guess.bytes_from) == (None, UNKNOWN, "the model's shape")
    hub = estimate(tiny_run("model=qwen2.5_0.5b", "model.path=some/model"), [])
    assert (hub.seconds, hub.peak_bytes, hub.bytes_from) == (None, None, UNKNOWN)


def test_a_budget_says_what_it_does_not_know() -> None:
    runs = [tiny_run("seed=1"), tiny_run("model=qwen2.5_0.5b", "model.path=some/model")]
    known = [seen({"train_seconds": 6.0, "total_seconds": 10.0})]
    assert str(make_budget(runs, known, 0)) == "2 runs to do: about 10 s of one worker, and 1 runs of unknown length"
    assert str(make_budget(runs, [], 1)).startswith("2 runs to do, of unknown length")
    assert str(Budget(2.0, 1.0, 3, 0)).endswith("2.0 GPU hours")


def test_finished_runs_of_other_sweeps_in_the_folder_count(finished: Path, tmp_path: Path) -> None:
    request = read_request([f"output={finished / 'outputs'}", "name=other"], multirun=False)
    path = tiny_run().model.path
    assert len(known_runs(request, [path])) == 8
    assert known_runs(request, ["some/model"]) == []
    assert known_runs(read_request([f"output={tmp_path}"], multirun=False), [path]) == []


STATIC = ("full", "first_k", "last_k", "block", "norms_only", "mlp_only", "lora", "galore", "head_only")


@pytest.mark.parametrize("strategy", slow_unless(("full", "first_k", "lora"), STATIC))
def test_from_the_shape_comes_what_a_step_without_contents_counts(monkeypatch: pytest.MonkeyPatch, strategy: str) -> None:
    run = tiny_run(f"strategy={strategy}", "grpo.per_device_train_batch_size=64", "grpo.max_completion_length=48")
    monkeypatch.setattr(preflight, "FULL_SHARE", 1.0)
    monkeypatch.setattr(preflight, "MIXED_SHARE", 1.0)
    step = memory.measured(run, HERE, preflight.prompt_tokens(run))
    guess = estimate_memory(run)
    assert guess is not None
    assert guess.training == pytest.approx(step.held + max(step.backward, step.sampling), rel=0.25)
    assert guess.evaluation == pytest.approx(step.held + step.evaluating, rel=0.25)


@pytest.mark.parametrize("strategy", slow_unless(("lora",), ("full", "last_k", "lora")))
def test_the_estimate_is_within_a_factor_of_two_of_what_training_measures(tmp_path: Path, strategy: str) -> None:
    overrides = (f"strategy={strategy}", "grpo.per_device_train_batch_size=64", "grpo.max_completion_length=48")
    measured, _ = execute_tiny(tmp_path, *overrides)
    guess = estimate_memory(tiny_run(*overrides))
    assert guess is not None
    assert measured.highest_peak_bytes / 2 <= guess.training <= 2 * measured.highest_peak_bytes


@pytest.mark.parametrize("name", ["llama-tied", "llama-untied", "qwen2-tied", "qwen2-untied", "gpt2-tied"])
def test_a_shape_is_read_without_loading_the_model(tmp_path: Path, name: str) -> None:
    model = MODELS[name]()
    model.save_pretrained(tmp_path)
    shape = read_shape(tiny_run(f"model.path={tmp_path}").model)
    assert shape is not None
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert shape.tied == name.endswith("-tied")
    first_block = model.get_decoder().layers[0] if "gpt2" not in name else model.transformer.h[0]
    assert shape.block == pytest.approx(sum(parameter.numel() for parameter in first_block.parameters()), rel=0.02)


def test_blocks_of_another_kind_have_no_known_shape(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, MambaConfig

    mamba, damaged = tmp_path / "mamba", tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.json").write_text("{}")
    model = AutoModelForCausalLM.from_config(MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=50))
    model.save_pretrained(mamba)
    for folder in (mamba, damaged):
        run = tiny_run(f"model.path={folder}")
        assert read_shape(run.model) is None
        assert estimate(run, []).peak_bytes is None
