"""The doctor finds, before a start, what makes starts fail, and says what fixes it."""

import errno
import itertools
import json
import math
import re
import sqlite3
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from efficient_rl.cli import BAD_REQUEST, FAILED
from efficient_rl.doctor import batches, folders, gpus, host, learning, memory, services, versions
from efficient_rl.doctor.__main__ import main
from efficient_rl.doctor.finding import Finding
from efficient_rl.launch.cgroups import limits
from efficient_rl.launch.gpus import parse_gpus, visible_gpus, visible_names
from tests.conftest import ROOT, TINY, tiny_run

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
    small = replace(host.this_host(), available_bytes=38 << 20, limit_bytes=None)
    monkeypatch.setattr(host, "this_host", lambda: small)
    monkeypatch.setattr(memory, "PROCESS_BYTES", 0)
    large = ("grpo.per_device_train_batch_size=64", "grpo.max_completion_length=64", "eval.problems=12")
    code = main(["--json", "--no-probe", *large])
    (found,) = [finding for finding in json.loads(capsys.readouterr().out) if finding["level"] == "failure"]
    assert (code, found["check"]) == (1, "memory")
    assert found["remedy"].startswith("grpo.per_device_train_batch_size=")
    kept = [text for text in large if text.split("=")[0] not in found["remedy"]]
    assert main(["--json", "--no-probe", *kept, *found["remedy"].split(" (")[0].split()]) == 0


@pytest.mark.parametrize("quota", [None, 1.5])
def test_fewer_cores_than_the_node_has_are_found(quota: float | None) -> None:
    node = host.Host(64, 2, quota, 100 * GIB, None, 8 * GIB, 4096)
    (found,) = host.check_host(node, runs=4)
    assert found.level == "warning"
    assert "of 64 cores" in found.what
    assert f"launcher.workers={2 if quota is None else 1}" in found.remedy
    assert levels(host.check_host(node, runs=1)) == ["ok"]
    assert levels(host.check_host(replace(node, shm_bytes=64 << 20, open_files=256), 1)) == ["warning", "warning"]


@pytest.mark.parametrize("version", [1, 2])
def test_the_limits_of_slurms_control_groups_are_read(tmp_path: Path, version: int) -> None:
    path = "slurm/uid_0/job_7"
    files = {
        1: {"cpu/{}/cpu.cfs_quota_us": "150000", "cpu/{}/cpu.cfs_period_us": "100000",
            "memory/{}/memory.limit_in_bytes": str(4 * GIB), "memory/{}/memory.usage_in_bytes": str(GIB),
            "memory/memory.limit_in_bytes": "9223372036854771712"},
        2: {"{}/cpu.max": "150000 100000", "{}/memory.max": str(4 * GIB), "{}/memory.current": str(GIB),
            "slurm/cpu.max": "max 100000", "slurm/memory.max": "max"},
    }[version]  # fmt: skip
    for name, text in files.items():
        (tmp_path / name.format(path)).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name.format(path)).write_text(text + "\n")
    membership = {1: f"4:memory:/{path}\n3:cpu,cpuacct:/{path}\n1:name=systemd:/\n", 2: f"0::/{path}\n"}[version]
    (tmp_path / "membership").write_text(membership)
    assert limits(tmp_path / "membership", tmp_path) == (1.5, 3 * GIB)
    (tmp_path / "membership").write_text("0::/elsewhere\n")
    assert limits(tmp_path / "membership", tmp_path) == (None, None)


def test_runs_that_the_launcher_would_start_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    narrow = replace(host.this_host(), cores=64, usable_cores=3, quota_cores=2.0)
    monkeypatch.setattr(host, "this_host", lambda: narrow)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    _, found = run_main(capsys, "--no-probe", "-m", "seed=0,1,2,3")
    (warned,) = [finding for finding in found if finding["check"] == "host"]
    assert warned["what"] == "3 runs at once on 2 of 64 cores"
    assert warned["remedy"].startswith("launcher.workers=2")


@pytest.mark.parametrize(
    ("line", "dtype", "attention", "expected"),
    [
        ("0, GPU-1, Tesla T4, 7.5, 15360, 15000, 550.54", "auto", "flash_attention_2", ["failure"]),
        ("0, GPU-1, Tesla V100, 7.0, 16384, 16000, 550.54", "bfloat16", "flash_attention_2", ["failure", "failure"]),
        ("0, GPU-1, Tesla V100, 7.0, 16384, 16000, 550.54", "float32", "sdpa", ["ok"]),
        ("0, GPU-1, NVIDIA A100, 8.0, 81920, 81000, 550.54", "bfloat16", "flash_attention_2", ["ok"]),
        ("0, GPU-1, NVIDIA A100, 8.0, 81920, 81000, 550.54", "float32", "flash_attention_2", ["failure"]),
        ("0, GPU-1, NVIDIA A100, 8.0, 81920, 10000, 550.54", "auto", "auto", ["warning"]),
        ("0, GPU-1, NVIDIA H20, 9.0, 97871, 97000, 550.54", "float16", "sdpa", ["warning"]),
    ],
)
def test_a_gpu_that_cannot_do_what_the_model_asks_is_found(
    line: str, dtype: str, attention: str, expected: list[str]
) -> None:
    assert levels(gpus.check_gpus(parse_gpus(line), dtype, attention, "12.8", has_flash=True)) == expected


def test_a_gpu_that_cuda_no_longer_compiles_for_is_found() -> None:
    (gpu,) = parse_gpus("0, GPU-1, Tesla V100, 7.0, 16384, 16000, 580.65")
    (found,) = gpus.check_gpus([gpu], "auto", "auto", "13.0", has_flash=False)
    assert found.level == "failure"
    assert "7.5" in found.what


def test_flash_attention_needs_its_package_and_a_gpu() -> None:
    (found,) = gpus.check_gpus([], "auto", "flash_attention_2", None, has_flash=False)
    assert "flash-attn" in found.what
    (found,) = gpus.check_gpus([], "auto", "flash_attention_2", None, has_flash=True)
    assert "without a GPU" in found.what


def test_only_the_gpus_that_this_process_may_use_count(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "0, GPU-aa1, A, 8.0, 100, 100, 1\n1, GPU-bb2, B, 9.0, 100, 100, 1\n10, GPU-cc3, C, 9.0, 100, 100, 1\n"
    monkeypatch.setattr("efficient_rl.launch.gpus._nvidia_smi", lambda: text)
    for listed, found in (("1", ["B"]), ("GPU-cc", ["C"]), (" 10, 0,", ["A", "C"]), ("", [])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
        assert [gpu.name for gpu in visible_gpus()] == found
        assert visible_names() == [name.strip() for name in listed.split(",") if name.strip()]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert ([gpu.name for gpu in visible_gpus()], visible_names()) == (["A", "B", "C"], ["0", "1", "10"])
    unified = "0, GPU-dd4, GB10, 12.1, [N/A], [N/A], 580.95"  # its memory is the machine's
    monkeypatch.setattr("efficient_rl.launch.gpus._nvidia_smi", lambda: unified)
    assert (visible_gpus(), visible_names()) == ([], ["0"])


@pytest.mark.parametrize(
    ("overrides", "words", "expected"),
    [
        (["grpo.num_generations=7"], "does not divide the batch", BAD_REQUEST),
        (["grpo.learning_rate=1e-6x"], "learning_rate", BAD_REQUEST),
        (["launcher.processes_per_run=3", "grpo.num_generations=4"], "cannot be shared by 3 processes", FAILED),
        (["strategy=last_k", "strategy.k=99"], "k=99", BAD_REQUEST),
        (["grpo.per_device_train_batch_size='16'"], "must be of type int", BAD_REQUEST),
        (["output=${oc.env:NO_SUCH_VARIABLE}"], "NO_SUCH_VARIABLE", BAD_REQUEST),
    ],
)
def test_numbers_that_do_not_work_out_are_found(
    capsys: pytest.CaptureFixture[str], overrides: list[str], words: str, expected: int
) -> None:
    keys = {text.split("=")[0] for text in overrides}
    code = main(["--json", "--no-probe", *overrides, *(text for text in TINY if text.split("=")[0] not in keys)])
    found = json.loads(capsys.readouterr().out)
    assert code == expected
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


def test_a_reward_that_raises_is_found() -> None:
    run = tiny_run()
    broken = replace(run.reward[0], function=replace(run.reward[0].function, target="math.isqrt", arguments={"_args_": [4]}))
    (found,) = learning.check_golden(replace(run, reward=(broken,)))
    assert found.level == "failure"
    assert "TypeError" in found.what


@pytest.mark.parametrize(
    ("flat", "completions", "clipped", "words"),
    [
        (1.0, ["fine words of many kinds"], 0.0, "none of 8 groups"),
        (0.0, ["fine words of many kinds"], 0.0, "all of 8 groups"),
        (0.5, ["fine words of many kinds", "!!!!!!!!!!!!!!!!!!!!!!!!"], 0.0, "repeated piece: '!!!!"),
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
    assert [finding["what"].split()[1] for finding in found if finding["check"] == "memory"] == [
        "strategy=last_k", "strategy=lora"]  # fmt: skip
    (probe,) = [finding for finding in found if finding["check"] == "probe"]
    assert "8 groups" in probe["what"]


def test_a_probe_that_fails_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = run_main(capsys, "model.prompt=plain")
    assert code == FAILED
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
    assert levels(folders.check_folder(tmp_path / "outputs")) == ["ok"]
    assert list((tmp_path / "outputs").iterdir()) == []
    assert levels(folders.check_room(tmp_path, needed_bytes=0)) == ["ok"]
    assert levels(folders.check_room(tmp_path, needed_bytes=1 << 60)) == ["warning"]


def test_a_shared_folder_whose_clock_is_off_or_that_does_not_lock_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(folders.time, "time", lambda: now + 3600)
    (found,) = folders.check_folder(tmp_path)
    assert (found.level, "-3600 s" in found.what) == ("warning", True)
    monkeypatch.undo()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    (found,) = folders.check_folder(tmp_path)
    assert found.level == "failure"
    assert "lock" in found.what


def test_a_model_that_cannot_be_had_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    hub = tiny_run("model=qwen2.5_0.5b", "model.path=nobody/nothing").model
    assert levels(services.check_model(hub)) == ["failure"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in services.check_model(hub)[0].what
    cache = tmp_path / "hub" / "models--nobody--nothing"
    snapshot = cache / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("1")
    (snapshot / "config.json").write_text("{}")
    assert levels(services.check_model(hub)) == ["failure"]  # the weights are still missing
    (snapshot / "model.safetensors").write_text("")
    assert levels(services.check_model(hub)) == ["ok"]
    assert levels(services.check_model(tiny_run().model)) == ["ok"]
    assert not services.is_here(replace(hub, path="no name/of the hub/at all"))


@pytest.mark.parametrize(
    ("status", "code", "level", "words"),
    [(200, "", "warning", "still on the hub"), (403, "GatedRepo", "failure", "is gated"),
     (404, "RepoNotFound", "failure", "does not give it")],
)  # fmt: skip
def test_what_the_hub_says_of_a_model_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int, code: str, level: str, words: str
) -> None:
    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if "auth-check" in self.path else 200)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        (found,) = services.check_model(tiny_run("model=qwen2.5_0.5b").model)
        server.shutdown()
    assert found.level == level
    assert words in found.what


def test_without_a_way_to_the_hub_nothing_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "0")  # so that what the command sets goes with this test
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    code, found = run_main(capsys, "model=qwen2.5_0.5b")
    assert code == 1
    assert [finding["check"] for finding in found if finding["level"] == "failure"] == ["model"]
    assert not any(finding["check"] in ("memory", "probe") for finding in found)
    assert services.loads_from_hub(tiny_run("task=gsm8k", "model=qwen2.5_0.5b"))
    assert not services.loads_from_hub(tiny_run())


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


def test_the_doctor_refuses_the_batches_that_training_refuses_and_no_others() -> None:
    for rows, passes, processes in itertools.product((4, 6, 8), (1, 2, 3), range(1, 9)):
        batch = (f"grpo.per_device_train_batch_size={rows}", f"grpo.gradient_accumulation_steps={passes}")
        run = tiny_run(*batch, "grpo.num_generations=2")
        accepted = passes % (processes // math.gcd(rows, processes)) == 0
        assert ("failure" not in levels(batches.check_batch(run, processes))) == accepted, (rows, passes, processes)
    six_by_two = ("grpo.per_device_train_batch_size=6", "grpo.gradient_accumulation_steps=2", "grpo.num_generations=2")
    assert "failure" not in levels(batches.check_batch(tiny_run(*six_by_two), processes=4))
    found, _ = batches.check_batch(tiny_run(*six_by_two), processes=5)
    assert found.what.endswith("cannot be shared by 5 processes")
    assert found.remedy.startswith("use 4")
    (found,) = batches.check_batch(tiny_run("grpo.loss_type=bnpo", "grpo.gradient_accumulation_steps=2"), processes=2)
    assert "grpo.loss_type=dapo" in found.remedy


def test_warnings_count_only_where_they_are_asked_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(capsys, "--no-probe")[0] == 0  # the tiny batch is a warning
    assert run_main(capsys, "--no-probe", "--strict")[0] == 1
    assert run_main(capsys, "--no-probe", "--strict", "grpo.gradient_accumulation_steps=2")[0] == 0


@pytest.mark.slow
def test_the_page_names_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "doctor.md").read_text()
    _, found = run_main(capsys)
    for check in {finding["check"] for finding in found} | {"driver", "slurm", "task"}:
        assert re.search(rf"^\|.*\b{check}\b.*\|.*\|$", page, re.MULTILINE), check
