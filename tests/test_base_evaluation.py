"""Runs that start from the same model share its evaluation; runs that do not each have their own."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event
from time import sleep

import pytest
import torch

from efficient_rl import base_evaluation
from efficient_rl.base_evaluation import BaseEvaluator, weights_digest
from efficient_rl.evaluate import Evaluation, Evaluator
from efficient_rl.models import load_model, load_tokenizer
from efficient_rl.prompts import Prompts
from efficient_rl.run import Options, Stop, execute
from efficient_rl.rundir import provenance
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.provenance import source_digest
from efficient_rl.rundir.result import RunResult
from efficient_rl.tasks.countdown import Countdown
from efficient_rl.tasks.problem import Problem
from efficient_rl.training.merging import merged
from efficient_rl.training.sampler import SamplingSettings
from tests.conftest import environment, execute_tiny, tiny_run

PROBLEMS = Countdown().problems("held_out", 4, 0)
HOLDS_A_LOCK = """
import sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


class Counting(Evaluator):
    """An evaluator that counts what it is asked."""

    asked: list[int]

    def evaluate(self, model: object, problems: Sequence[Problem], seed: int) -> Evaluation:
        self.__dict__.setdefault("asked", []).append(seed)
        return Evaluator.evaluate(self, model, problems, seed)  # type: ignore[arg-type]


def evaluator(**changes: object) -> Counting:
    run = tiny_run()
    tokenizer, model = load_tokenizer(run.model), load_model(run.model)
    prompts = Prompts(run.model, run.prompt, tokenizer)
    settings = {"tokenizer": tokenizer, "encode": prompts.encoded, "stop_ids": prompts.stop_ids(model), "samples": 2}
    settings |= {"sampling": SamplingSettings(8), "place": "tags_or_boxed"}
    return Counting(**(settings | changes))  # type: ignore[arg-type]


def done(outputs: Path, *overrides: str, version: str = "one") -> tuple[RunResult, RunDirectory]:
    """A tiny run that shares its first evaluation with the others below `outputs`."""
    torch.set_num_threads(1)
    config = tiny_run("grpo.max_steps=2", "grpo.learning_rate=1e-3", *overrides)
    record = RunDirectory(outputs / "runs" / config.config_hash)
    options = Options(code_version=version, evaluations=outputs / "evaluations")
    return execute(config, record.claim(config), options, Stop()), record


def kept(outputs: Path) -> list[Path]:
    return sorted((outputs / "evaluations").glob("*.json"))


def test_arms_with_the_same_start_measure_it_once_and_have_what_each_alone_has(tmp_path: Path) -> None:
    runs = [done(tmp_path, *arm) for arm in (["strategy=full"], ["strategy=lora", "seed=3"])]
    assert len(kept(tmp_path)) == 1
    for (result, record), arm in zip(runs, (["strategy=full"], ["strategy=lora", "seed=3"]), strict=True):
        alone, other = execute_tiny(tmp_path / "alone", "grpo.max_steps=2", "grpo.learning_rate=1e-3", *arm)
        assert result.evaluation_before == alone.evaluation_before
        assert result.evaluation == alone.evaluation
        assert result.final_reward == alone.final_reward
        name = "evaluation_before.json"
        assert (record.folder / name).read_text() == (other.folder / name).read_text()
        first, same = (next(iter(each.metrics()))["metrics"] for each in (record, other))
        assert first == same


@pytest.mark.slow
def test_other_code_other_problems_and_another_start_are_measured_anew(tmp_path: Path) -> None:
    done(tmp_path, "strategy=full")
    done(tmp_path, "strategy=full", "seed=1", version="two")
    assert len(kept(tmp_path)) == 2
    done(tmp_path, "strategy=full", "eval.problems=11")
    assert len(kept(tmp_path)) == 3
    done(tmp_path, "strategy=pissa")  # its parts add up to the weights but for rounding
    assert len(kept(tmp_path)) == 4


def test_a_damaged_evaluation_is_measured_again(tmp_path: Path) -> None:
    base, model = BaseEvaluator(evaluator(), tmp_path, "x"), load_model(tiny_run().model)
    found = base.evaluate(model, PROBLEMS, 7)
    (path,) = tmp_path.glob("*.json")
    path.write_text(path.read_text()[:50])
    assert base.evaluate(model, PROBLEMS, 7) == found == base.evaluate(model, PROBLEMS, 7)
    assert len(base.evaluator.asked) == 2  # type: ignore[attr-defined]


def test_what_decides_an_evaluation_decides_its_name(tmp_path: Path) -> None:
    model = load_model(tiny_run().model)
    plain = evaluator()
    sampled = replace(plain.sampling, temperature=0.5)
    others = [evaluator(samples=3), evaluator(place="boxed"), evaluator(prefill="x"), evaluator(sampling=sampled)]
    names = {BaseEvaluator(each, tmp_path, "x")._key(model, PROBLEMS, 7) for each in (plain, *others)}
    names |= {BaseEvaluator(plain, tmp_path, "y")._key(model, PROBLEMS, 7)}
    names |= {BaseEvaluator(plain, tmp_path, "x")._key(model, *asked) for asked in ((PROBLEMS[:3], 7), (PROBLEMS, 8))}
    wrong = [replace(PROBLEMS[0], gold={**PROBLEMS[0].gold, "target": 1}), *PROBLEMS[1:]]
    names |= {BaseEvaluator(plain, tmp_path, "x")._key(model, wrong, 7)}
    assert len(names) == 9
    assert BaseEvaluator(plain, tmp_path / "other", "x")._key(model, PROBLEMS, 7) in names


def test_other_code_libraries_and_settings_of_the_model_are_other_evaluations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(tiny_run().model)
    base = BaseEvaluator(evaluator(), tmp_path, "x")
    names = [base._key(model, PROBLEMS, 7)]
    for what in ("source_digest", "packages"):
        monkeypatch.setattr(base_evaluation, what, lambda: ["another"])
        names.append(base._key(model, PROBLEMS, 7))
    model.config.rms_norm_eps *= 2
    names.append(base._key(model, PROBLEMS, 7))
    assert len(set(names)) == 4


def test_the_source_digest_knows_files_that_git_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance.efficient_rl, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "one.py").write_text("a = 1")
    first = source_digest.__wrapped__()
    (tmp_path / "one.py").write_text("a = 2")
    second = source_digest.__wrapped__()
    (tmp_path / "two.py").write_text("b = 1")
    assert len({first, second, source_digest.__wrapped__()}) == 3


def test_where_the_folder_is_not_ours_to_write_a_run_evaluates_for_itself_or_reads(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, taken = load_model(tiny_run().model), tmp_path / "taken"
    taken.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        found = BaseEvaluator(evaluator(), taken / "evaluations", "x").evaluate(model, PROBLEMS, 7)
    assert "the evaluation before training is not shared" in caplog.text
    written = BaseEvaluator(evaluator(), tmp_path / "ours", "x")
    assert written.evaluate(model, PROBLEMS, 7) == found
    monkeypatch.setattr(base_evaluation, "_turn", lambda _: pytest.fail("what is there needs no lock"))
    assert written.evaluate(model, PROBLEMS, 7) == found


def test_of_two_at_once_one_evaluates_and_the_other_reads(tmp_path: Path) -> None:
    model, both = load_model(tiny_run().model), evaluator()
    waiting = Event()
    slow = replace(both, between=lambda: None)
    fast = replace(both, between=waiting.set)

    def slowly(*arguments: object) -> Evaluation:
        waiting.wait(60)  # the other has come to the lock
        return Evaluator.evaluate(slow, model, PROBLEMS, 7)

    object.__setattr__(slow, "evaluate", slowly)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(BaseEvaluator(slow, tmp_path, "x").evaluate, model, PROBLEMS, 7)
        for _ in range(3000):
            if list(tmp_path.glob("*.lock")):
                break
            sleep(0.01)
        second = pool.submit(BaseEvaluator(fast, tmp_path, "x").evaluate, model, PROBLEMS, 7)
    assert asdict(first.result()) == asdict(second.result())
    assert not hasattr(fast, "asked")


def test_the_next_run_evaluates_when_the_first_is_killed(tmp_path: Path) -> None:
    model, base = load_model(tiny_run().model), BaseEvaluator(evaluator(), tmp_path, "x")
    lock = tmp_path / f"{base._key(model, PROBLEMS, 7)}.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS_A_LOCK, str(lock)], env=environment(), stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "held\n"
        turns, waited = [], []

        def between() -> None:
            turns.append(1)
            if len(turns) == 2:  # it waited once in vain
                os.kill(killed.pid, signal.SIGKILL)

        def evaluate(*asked: object) -> Evaluation:
            waited.append(len(turns) >= 2)
            return Evaluator.evaluate(base.evaluator, *asked)  # type: ignore[arg-type]

        waits = evaluator(between=between)
        object.__setattr__(waits, "evaluate", evaluate)
        try:
            assert BaseEvaluator(waits, tmp_path, "x").evaluate(model, PROBLEMS, 7).problems == 4
        finally:
            killed.kill()
    assert waited == [True]


def start(option: str, *more: str) -> str:
    """The digest of nano as a strategy leaves it before the first step."""
    torch.manual_seed(0)
    run = tiny_run(f"strategy={option}", *more)
    model = run.strategy.build().apply(load_model(run.model))
    with merged(model):
        return weights_digest(model)


@pytest.mark.parametrize("option", ["last_k", "lora", "rslora", "vera", "lora_fa", "lisa", "ia3", "loha"])
def test_strategies_that_start_at_the_base_model_share_its_digest(option: str) -> None:
    assert start(option) == start("full")


def test_a_changed_weight_and_an_unmerged_adapter_have_digests_of_their_own() -> None:
    assert start("pissa") != start("full")
    model = load_model(tiny_run().model)
    before = weights_digest(model)
    with torch.no_grad():
        model.model.layers[3].mlp.up_proj.weight[5, 7] += 1e-6
    assert weights_digest(model) != before
    lora = [tiny_run("strategy=lora", f"lora.alpha={alpha}") for alpha in (8, 16)]
    digests = set()
    for run in lora:
        torch.manual_seed(0)
        digests.add(weights_digest(run.strategy.build().apply(load_model(run.model))))  # not merged
    assert len(digests) == 2


def test_a_command_that_repeats_runs_takes_no_evaluation_over(tmp_path: Path) -> None:
    settings = {"checkpoint_steps": 7, "checkpoint_minutes": 2.0}
    shared = Options.of(settings | {"force": False}, tmp_path, "one", "fsdp")
    assert shared == Options(7, 2.0, "one", sharding="fsdp", evaluations=tmp_path / "evaluations")
    assert Options.of(settings | {"force": True}, tmp_path, "one").evaluations is None
