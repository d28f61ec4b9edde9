"""The doctor finds, before a start, what makes starts fail, and says what mends it."""

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from efficient_rl.doctor import batches, folders, gpus, host, learning, memory, services, versions
from efficient_rl.doctor.__main__ import main
from efficient_rl.doctor.finding import Finding
from tests.conftest import TINY, execute_tiny, tiny_run

GIB = 1 << 30


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level for finding in findings]


def run_main(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    code = main(["--json", *arguments, *TINY])
    return code, json.loads(capsys.readouterr().out)


# The five failures that TinyZero's users met first


def test_a_run_that_does_not_fit_is_found_with_the_first_change_that_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = replace(host.this_host(), available_bytes=150 << 20, limit_bytes=None)
    monkeypatch.setattr(host, "this_host", lambda: small)
    large = ("grpo.per_device_train_batch_size=256", "grpo.max_completion_length=64")
    code = main(["--json", "--no-probe", *large])
    (found,) = [finding for finding in json.loads(capsys.readouterr().out) if finding["level"] == "failure"]
    assert (code, found["check"]) == (1, "memory")
    assert found["remedy"].startswith("grpo.per_device_train_batch_size=")
    kept = [text for text in large if text.split("=")[0] not in found["remedy"]]
    assert main(["--json", "--no-probe", *kept, *found["remedy"].split()]) == 0


@pytest.mark.parametrize("quota", [None, 1.5])
def test_fewer_cores_than_the_node_has_are_found(quota: float | None) -> None:
    node = host.Host(64, 2, quota, 100 * GIB, None, 8 * GIB, 4096)
    (found,) = host.check_host(node, workers=4)
    assert found.level == "warning"
    assert "of 64 cores" in found.what
    assert f"launcher.workers={2 if quota is None else 1}" in found.remedy
    assert levels(host.check_host(node, workers=1)) == ["ok"]
    assert levels(host.check_host(replace(node, shm_bytes=64 << 20, open_files=256), 1)) == ["warning", "warning"]


@pytest.mark.parametrize(
    ("line", "dtype", "attention", "expected"),
    [
        ("Tesla T4, 7.5, 15360, 15000, 550.54", "auto", "flash_attention_2", ["failure"]),
        ("Tesla V100, 7.0, 16384, 16000, 550.54", "bfloat16", "flash_attention_2", ["failure", "failure"]),
        ("Tesla V100, 7.0, 16384, 16000, 550.54", "float32", "sdpa", ["ok"]),
        ("NVIDIA A100, 8.0, 81920, 81000, 550.54", "bfloat16", "flash_attention_2", ["ok"]),
        ("NVIDIA A100, 8.0, 81920, 10000, 550.54", "auto", "auto", ["warning"]),
        ("NVIDIA H20, 9.0, 97871, 97000, 550.54", "float16", "sdpa", ["warning"]),
    ],
)
def test_a_gpu_that_cannot_do_what_the_model_asks_is_found(
    line: str, dtype: str, attention: str, expected: list[str]
) -> None:
    assert levels(gpus.check_gpus(gpus.parse_gpus(line), dtype, attention)) == expected


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["grpo.num_generations=7"], "does not divide the batch"),
        (["grpo.learning_rate=1e-6x"], "learning_rate"),
        (["launcher.processes_per_run=3", "grpo.num_generations=4"], "divide neither"),
        (["strategy=last_k", "strategy.k=99"], "k=99"),
    ],
)
def test_numbers_that_do_not_work_out_are_found(
    capsys: pytest.CaptureFixture[str], overrides: list[str], words: str
) -> None:
    keys = {text.split("=")[0] for text in overrides}
    code = main(["--json", "--no-probe", *overrides, *(text for text in TINY if text.split("=")[0] not in keys)])
    found = json.loads(capsys.readouterr().out)
    assert code == 1
    assert any(words in finding["what"] for finding in found if finding["level"] == "failure")


def test_a_reward_that_does_not_read_the_answer_is_found() -> None:
    good = tiny_run()
    assert levels(learning.check_golden(good)) == ["ok"]
    boxed = replace(good, prompt=replace(good.prompt, place="boxed"), reward=tiny_run("reward=accuracy").reward)
    assert levels(learning.check_golden(boxed)) == ["ok"]
    deaf = replace(good, reward=tuple(replace(term, weight=0.0) for term in good.reward))
    (found,) = learning.check_golden(deaf)
    assert found.level == "failure"
    assert "nothing would be learned" in found.why


@pytest.mark.parametrize(
    ("flat", "completions", "clipped", "words"),
    [
        (1.0, ["fine words of many kinds"], 0.0, "none of 8 groups"),
        (0.0, ["fine words of many kinds"], 0.0, "all of 8 groups"),
        (0.5, ["!!!!!!!!!!!!!!!!!!!!!!!!"], 0.0, "repeated piece"),
        (0.5, ["fine words of many kinds"], 1.0, "cut off"),
    ],
)
def test_a_probe_without_signal_or_sense_is_a_warning(
    flat: float, completions: list[str], clipped: float, words: str
) -> None:
    metrics = {"train/reward": 0.1, "train/frac_zero_std": flat, "train/completion_clipped_ratio": clipped}
    (found,) = learning.judge_probe(metrics, completions)
    assert found.level == "warning"
    assert words in found.what


def test_a_sound_sweep_is_probed_and_passes(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = run_main(capsys, "-m", "strategy=last_k,lora")
    assert code == 0
    assert {finding["level"] for finding in found} <= {"ok", "warning"}
    assert [finding["check"] for finding in found].count("memory") == 2
    (probe,) = [finding for finding in found if finding["check"] == "probe"]
    assert "8 groups" in probe["what"]


def test_a_probe_that_fails_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = run_main(capsys, "model.prompt=plain")
    assert code == 1
    (probe,) = [finding for finding in found if finding["check"] == "probe"]
    assert "nano reads only its own notation" in probe["what"]


# The other checks


def test_versions_that_do_not_work_together_are_found() -> None:
    installed = {"torch": "2.7.0", "trl": "1.16.0", "vllm": "0.21.0"}
    found = versions.check_versions(installed, ["torch>=2.8", "trl>=1.16", "peft>=0.21"])
    assert levels(found) == ["failure"] * 3
    assert [finding.what.split()[0] for finding in found] == ["torch", "peft", "vllm"]
    assert levels(versions.check_versions(installed, [], python=(3, 9))) == ["failure", "failure"]
    assert levels(versions.check_versions(versions.installed_versions(), versions.requirements())) == ["ok"]


@pytest.mark.parametrize(
    ("driver", "cuda", "expected"),
    [("550.54.14", "12.8", ["ok"]), ("470.57", "12.8", ["failure"]), ("550.54", None, ["warning"]), (None, "12.8", [])],
)
def test_a_driver_too_old_for_torch_is_found(driver: str | None, cuda: str | None, expected: list[str]) -> None:
    assert levels(versions.check_driver(driver, cuda)) == expected


def test_a_folder_that_cannot_be_written_is_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (found,) = folders.check_folder(tmp_path / "file" / "outputs")
    assert found.level == "failure"
    assert levels(folders.check_folder(tmp_path / "outputs", needed_bytes=0)) == ["ok"]
    assert levels(folders.check_folder(tmp_path / "outputs", needed_bytes=1 << 60)) == ["warning"]
    assert list((tmp_path / "outputs").iterdir()) == []


def test_a_model_that_cannot_be_had_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    hub = tiny_run("model=qwen2.5_0.5b", "model.path=nobody/nothing").model
    assert levels(services.check_model(hub)) == ["failure"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in services.check_model(hub)[0].what
    snapshot = tmp_path / "hub" / "models--nobody--nothing" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert levels(services.check_model(hub)) == ["ok"]
    assert levels(services.check_model(tiny_run().model)) == ["ok"]


def test_a_store_that_is_away_or_of_another_version_is_found(finished: Path, tmp_path: Path) -> None:
    assert levels(services.check_tracking(f"sqlite:///{finished / 'mlflow.db'}")) == ["ok"]
    assert levels(services.check_tracking("none")) == ["ok"]
    assert levels(services.check_tracking("http://127.0.0.1:9")) == ["warning"]
    old = tmp_path / "old.db"
    old.write_bytes((finished / "mlflow.db").read_bytes())
    with sqlite3.connect(old) as database:
        database.execute("update alembic_version set version_num = '451aebb31d03'")
    database.close()
    (found,) = services.check_tracking(f"sqlite:///{old}")
    assert found.level == "warning"
    assert "mlflow db upgrade" in found.remedy


def test_small_batches_are_a_warning_and_whole_ones_a_sentence() -> None:
    (found,) = batches.check_batch(tiny_run(), processes=1)
    assert "sees 4 prompts (16 completions in groups of 4)" in found.what
    assert found.remedy == "grpo.gradient_accumulation_steps=2"
    (found,) = batches.check_batch(tiny_run("grpo.gradient_accumulation_steps=2"), processes=2)
    assert found.what == "a step: 8 prompts x 4 = 32 completions, in 2 passes of 16 over 2 processes"


# The estimate of memory against what training measured


@pytest.mark.parametrize("strategy", ["full", "last_k", "first_k", "lora"])
@pytest.mark.parametrize("beta", ["0", "0.04"])
def test_the_estimate_is_what_training_measures(tmp_path: Path, strategy: str, beta: str) -> None:
    overrides = (f"strategy={strategy}", f"grpo.beta={beta}", "grpo.per_device_train_batch_size=32")
    result, _ = execute_tiny(tmp_path, *overrides)
    run = tiny_run(*overrides)
    shape = memory.shape_of(run)
    wanted = memory.need(run, shape, prompt_tokens=16)
    parts = result.memory_parts_bytes
    assert (shape.trainable, shape.total) == (result.trainable_params, result.total_params)
    assert parts["parameters"] == pytest.approx(wanted.parameters, rel=0.02)  # and the buffers
    assert parts["gradients"] == wanted.gradients
    assert parts["optimizer_state"] == pytest.approx(wanted.optimizer_state, rel=0.01)  # and a step count a tensor
    if strategy != "lora":  # whose reference is the model without its adapter
        assert parts["reference"] == wanted.reference
    assert wanted.activations / 3 < parts["activations"] < wanted.activations * 1.5
    measured = max(result.peak_memory_bytes.values())
    assert measured / 1.5 < wanted.peak < 3 * measured


def test_every_way_to_make_a_run_smaller_makes_it_smaller() -> None:
    run = tiny_run("grpo.beta=0.04", "grpo.per_device_train_batch_size=64")
    shape = memory.shape_of(run)
    peaks = [memory.need(run, shape).peak]
    for values in memory.changes(run):
        run = replace(run, grpo=replace(run.grpo, **values))
        peaks.append(memory.need(run, shape).peak)
    assert peaks == sorted(peaks, reverse=True)
    assert memory.first_fit(run, shape, 1) is None
