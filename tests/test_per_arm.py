"""Equal tuning: every arm gets the same number of learning rates on the validation split, and its best is tested fresh."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from efficient_rl.config.compose import expand
from efficient_rl.config.run_config import RunConfig, parse_run
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.sweep.__main__ import main
from tests.conftest import environment
from tests.fake_launcher import BEST_RATE, OPTION
from tests.test_search import arguments, kill_now_and_then, launched

ARMS = ("search=per_arm", "strategy=first_k,last_k,lora", "search.trials_per_arm=5", "search.test_seeds=3")


def summary() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(Path("outputs/sweeps/s/search.json").read_text())
    return read


def listed(name: str) -> list[dict[str, Any]]:
    return [run["params"] for run in json.loads((Path("outputs/sweeps") / name / "sweep.json").read_text())["runs"]]


def centre(strategy: str) -> float:
    run: RunConfig = parse_run(expand([f"strategy={strategy}"])[0])
    return run.grpo.learning_rate


def test_every_arm_gets_the_same_trials_around_its_own_centre_and_its_best_is_tested_with_fresh_seeds() -> None:
    assert main(arguments(*ARMS)) == 0
    tuned, tested = listed("s-tuning"), listed("s")
    assert Counter(run["strategy.name"] for run in tuned) == {"first_k": 5, "last_k": 5, "lora": 5}
    assert {run["eval.split"] for run in tuned} == {"validation"}
    assert {run["seed"] for run in tuned} == {0}
    for strategy in ("first_k", "last_k", "lora"):
        rates = sorted(run["grpo.learning_rate"] for run in tuned if run["strategy.name"] == strategy)
        assert rates[2] == pytest.approx(centre(strategy))
        assert rates[-1] / rates[0] == pytest.approx(100, rel=1e-3)
    assert centre("lora") > centre("first_k")
    assert Counter(run["strategy.name"] for run in tested) == {"first_k": 3, "last_k": 3, "lora": 3}
    assert {run["eval.split"] for run in tested} == {"test"}
    assert {run["seed"] for run in tested} == {1, 2, 3}
    for arm in summary()["arms"]:
        tries = {run["learning_rate"]: run["value"] for run in arm["tried"]}
        assert arm["best"]["value"] == max(tries.values())
        assert {run["grpo.learning_rate"] for run in tested if run["strategy.name"] == arm["arm"]} == {
            arm["best"]["learning_rate"]
        }
        assert arm["best"]["learning_rate"] == min(tries, key=lambda rate: abs(rate / BEST_RATE[arm["arm"]] - 1))
        assert (arm["trials"], arm["failed"]) == (5, 0)
        assert arm["spent"] == {"train_seconds": 5 * 3 * 0.5, "tokens": 5 * 30.0}, "three steps each, as they logged"
        assert len(arm["test"]) == 3
        assert all(RunDirectory(Path("outputs/runs") / key).result() is not None for key in arm["test"])


def test_the_best_at_the_edge_of_the_interval_is_called_so(capsys: pytest.CaptureFixture[str]) -> None:
    main(arguments("search=per_arm", "strategy=full,last_k", "search.decades=0.5", "search.test_seeds=1"))
    edges = {arm["arm"]: arm["best"]["at_edge"] for arm in summary()["arms"]}
    assert edges == {"full": False, "last_k": True}
    assert "the best of last_k lies at the edge" in capsys.readouterr().out


@pytest.mark.slow
def test_the_same_command_does_nothing_again_and_kills_change_no_count() -> None:
    given = arguments(*ARMS, "grpo.max_steps=4")
    Path("options/launcher/fake.yaml").write_text(OPTION.replace("poll_seconds: 0.0", "poll_seconds: 0.05"))
    kill_now_and_then(given, kills=3, seconds=0.7)
    assert Counter(run["strategy.name"] for run in listed("s-tuning")) == {"first_k": 5, "last_k": 5, "lora": 5}
    assert len(listed("s")) == 9
    done = len(launched())
    assert done <= 15 + 9 + 3
    assert main(given) == 0
    assert len(launched()) == done


def test_a_failed_learning_rate_is_spent_and_tried_again_by_the_next_command() -> None:
    given = arguments(*ARMS)
    rate = float(f"{centre('lora'):.4g}")
    Path("options/launcher/fake.yaml").write_text(OPTION.replace("fails_at: null", f"fails_at: {rate!r}"))
    assert main(given) == 1
    arm = next(arm for arm in summary()["arms"] if arm["arm"] == "lora")
    assert (arm["trials"], arm["failed"]) == (4, 1)
    Path("options/launcher/fake.yaml").write_text(OPTION)
    assert main(given) == 0
    arm = next(arm for arm in summary()["arms"] if arm["arm"] == "lora")
    assert (arm["trials"], arm["failed"]) == (5, 1)


def test_a_sampler_proposes_within_each_arms_interval() -> None:
    sampler = "search.sampler={_partial_:true,_target_:optuna.samplers.TPESampler}"
    assert main(arguments(*ARMS, sampler)) == 0
    assert [len(arm["tried"]) for arm in summary()["arms"]] == [5, 5, 5]
    for arm in summary()["arms"]:
        rates = [run["learning_rate"] for run in arm["tried"]]
        assert all(arm["low"] <= rate <= arm["high"] for rate in rates)
        assert len(set(rates)) == 5


def test_arms_are_distinct_runs_and_inert_values_make_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments("search=per_arm", "strategy=full,lora", "lora.rank=1,8", "dry_run=true")) == 0
    shown = capsys.readouterr().out
    assert "15 trials on the validation split, then 15 runs on the test" in shown
    assert not Path("launches.jsonl").exists()


@pytest.mark.slow
def test_a_search_and_a_test_of_the_embedded_model_end_in_tracking_and_a_report() -> None:
    tiny = [
        "grpo.max_steps=1", "grpo.per_device_train_batch_size=8", "grpo.num_generations=4", "grpo.max_completion_length=8",
        "grpo.train_problems=32", "eval.problems=6", "eval.samples=1",
    ]  # fmt: skip
    own = ["-m", "strategy=last_k,lora", "search=per_arm", "search.trials_per_arm=2", "search.test_seeds=2", "name=real"]
    command = [sys.executable, "-m", "efficient_rl.sweep", *tiny, *own]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{Path('mlflow.db').resolve()}")
    for name, runs in (("real-tuning", 4), ("real", 4)):
        experiment = client.get_experiment_by_name(name)
        assert experiment is not None
        sent = client.search_runs([experiment.experiment_id])
        assert sum("config_hash" in run.data.tags for run in sent) == runs
    storage = JournalStorage(JournalFileBackend("outputs/sweeps/real-tuning/study.journal"))
    assert len(optuna.load_study(study_name="real-tuning", storage=storage).trials) == 4
    report = [sys.executable, "-m", "analysis.report", "sweep=real"]
    made = subprocess.run(report, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert made.returncode == 0, made.stderr


def test_a_study_whose_arms_an_earlier_version_named_otherwise_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    given = arguments("search=per_arm", "strategy=first_k,last_k", "search.trials_per_arm=2", "search.test_seeds=1")
    with monkeypatch.context() as before:
        named = {"first_k": "first_k alpha=1", "last_k": "last_k alpha=2"}
        before.setattr(
            "efficient_rl.search.equal_tuning.label_runs",
            lambda runs: {run.config_hash: named[run.strategy.name] for run in runs},
        )
        assert main(given) == 0
    done = len(launched())
    assert main(given) == 0
    assert len(launched()) == done
    assert [arm["arm"] for arm in summary()["arms"]] == list(named.values())
