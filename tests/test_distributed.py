"""A run over several processes ends as it does in one, and no process outlives the failure of another."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trl import GRPOConfig

from efficient_rl.config.run_config import RunConfig, to_dict
from efficient_rl.config.schema import Component, RewardTerm
from efficient_rl.distributed.rendezvous import distributed_environment
from efficient_rl.errors import ConfigError
from efficient_rl.launch.processes import PRELOADED
from efficient_rl.launch.worker import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_NOT_MINE, Job, work
from efficient_rl.run import Options, Stop, execute
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.training.settings import grpo_arguments, split_batch
from efficient_rl.training.sharding import check_sharding
from tests.conftest import tiny_run

STEPS = 3
CLOSE = {"rel": 1e-4, "abs": 1e-4}
FAST = ("grpo.learning_rate=1e-3", "eval.problems=6", f"grpo.max_steps={STEPS}")  # weights move by more than the tolerance
ENDLESS = (*FAST, "grpo.max_steps=2000")

Start = Callable[..., list[BaseProcess]]


class FailsInOne:
    """A reward that only process 1 cannot compute."""

    __name__ = "fails_in_one"

    def __call__(self, completions: Sequence[Any], **_: Any) -> list[float]:
        if os.environ.get("RANK") == "1":
            raise ArithmeticError("no reward today")
        return [0.0] * len(completions)


@pytest.fixture(scope="module")
def start() -> Start:
    """Starts the processes of a run, forked from a server that has the libraries loaded, as the local launcher's are."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)

    def begin(one: Job, size: int = 2) -> list[BaseProcess]:
        key = f"{one.folder}.{time.time_ns()}"
        ranks = [distributed_environment(rank, size, rank, size, "localhost", key) for rank in range(size)]
        started = [context.Process(target=work, args=(one, environment)) for environment in ranks]
        for process in started:
            process.start()
        return started

    return begin


def job(folder: Path, config: RunConfig, **options: Any) -> Job:
    settings = Options(**{"checkpoint_steps": 2, "code_version": "test", **options})
    return Job(folder / config.config_hash, to_dict(config), settings)


def ended(processes: Sequence[BaseProcess], seconds: float = 300) -> list[int | None]:
    """The exit codes; None of those that had to be killed."""
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


def together(start: Start, folder: Path, config: RunConfig, **options: Any) -> RunDirectory:
    """The run by two processes, to its end."""
    one = job(folder / "two", config, **options)
    assert ended(start(one)) == [0, 0], log(one)
    return RunDirectory(one.folder)


def alone(folder: Path, config: RunConfig, **options: Any) -> RunDirectory:
    """The run by this process."""
    torch.set_num_threads(1)
    record = RunDirectory(folder / "one" / config.config_hash)
    execute(config, record.claim(config), Options(checkpoint_steps=2, **options), Stop())
    return record


def log(one: Job) -> str:
    return (one.folder / "log.txt").read_text()[-5000:]


def lines(record: RunDirectory) -> list[Mapping[str, float]]:
    return [row["metrics"] for row in record.metrics() if "train/loss" in row["metrics"]]


def values(record: RunDirectory, name: str) -> list[float]:
    return [line[name] for line in lines(record) if name in line]


def weights(record: RunDirectory) -> dict[str, torch.Tensor]:
    return load_file(next(path for path in (record.folder / "model").iterdir() if path.suffix == ".safetensors"))


METRICS = ("train/loss", "train/grad_norm", "train/reward", "train/kl", "params/active")


def assert_same(one: RunDirectory, other: RunDirectory, metrics: Sequence[str] = (*METRICS, "train/entropy")) -> None:
    for name in metrics:
        assert values(one, name) == pytest.approx(values(other, name), **CLOSE), name
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert max(float((first[name] - second[name]).abs().max()) for name in first) < 1e-4
    mine, theirs = one.result(), other.result()
    assert mine is not None
    assert theirs is not None
    assert (mine.accuracy, mine.accuracy_before, mine.tokens) == (theirs.accuracy, theirs.accuracy_before, theirs.tokens)
    assert max(values(one, "train/grad_norm")) > 1e-3  # something did train


def wait_for_step(one: Job, steps: int, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while len(lines(RunDirectory(one.folder))) < steps:
        assert time.monotonic() < deadline, log(one)
        time.sleep(0.05)


CASES = {
    "full": ["strategy=full"],
    "last_k_kl": ["strategy=last_k", "grpo.beta=0.04", "grpo.num_iterations=2"],
    "lora": ["strategy=lora"],
    "lora_kl": ["strategy=lora", "grpo.beta=0.04"],
    "lisa": ["strategy=lisa", "strategy.interval=1"],
    "autofreeze": ["strategy=autofreeze", "strategy.intervals=3"],
}


SLOW = pytest.mark.slow
FAST_CASES = ("last_k_kl",)


@pytest.mark.parametrize("case", [pytest.param(case, marks=() if case in FAST_CASES else SLOW) for case in CASES])
def test_two_processes_train_what_one_does(case: str, start: Start, tmp_path: Path) -> None:
    config = tiny_run(*FAST, *CASES[case])
    assert_same(alone(tmp_path, config), together(start, tmp_path, config))


@pytest.mark.slow
@pytest.mark.parametrize("case", [["strategy=full", "grpo.beta=0.04"], ["strategy=lora"]])
def test_sharded_processes_train_what_one_does_and_hold_half_of_it(case: list[str], start: Start, tmp_path: Path) -> None:
    config = tiny_run(*FAST, *case)
    one, two = alone(tmp_path, config), together(start, tmp_path, config, sharding="fsdp")
    assert_same(one, two)
    for name in ("parameters", "gradients", "optimizer_state", "reference"):
        whole, half = (values(record, f"memory/{name}_bytes")[0] for record in (one, two))
        assert half <= 0.6 * whole, name


@pytest.mark.slow
def test_a_run_stopped_in_two_processes_goes_on_sharded_and_ends_in_one_as_if_undisturbed(
    start: Start, tmp_path: Path
) -> None:
    config = tiny_run(*FAST, "strategy=full", "grpo.max_steps=12", "grpo.learning_rate=3e-4")
    for steps, sharding in ((1, "ddp"), (4, "fsdp")):
        one = job(tmp_path / "cut", config, sharding=sharding)
        processes = start(one)
        wait_for_step(one, steps)
        pid = processes[steps % 2].pid  # another one of the two each time; they agree on the step
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        assert ended(processes) == [EXIT_INTERRUPTED] * 2, log(one)
        assert RunDirectory(one.folder).checkpoint() is not None
    cut = RunDirectory(one.folder)
    assert len(lines(cut)) < 12
    execute(config, cut.claim(config, ended_attempts=2), Options(), Stop())
    assert_same(alone(tmp_path, config), cut)


@pytest.mark.slow
def test_cutting_every_pass_into_parts_changes_nothing(tmp_path: Path) -> None:
    config = tiny_run(*FAST, "strategy=last_k", "grpo.loss_type=dapo", "grpo.num_iterations=2")
    whole, cut = alone(tmp_path / "whole", config), alone(tmp_path / "cut", config, micro_batches=4)
    assert_same(whole, cut, METRICS)  # TRL's entropy is a mean over passes


@pytest.mark.slow
def test_an_error_in_one_process_ends_all_and_is_named(start: Start, tmp_path: Path) -> None:
    failing = RewardTerm(Component("fails", "tests.test_distributed.FailsInOne", {}), 1.0)
    one = job(tmp_path, replace(tiny_run(*ENDLESS, "strategy=last_k"), reward=(failing,)))
    assert ended(start(one)) == [EXIT_FAILED] * 2, log(one)
    failure = RunDirectory(one.folder).failure()
    assert failure is not None
    assert "process 1 of 2: ArithmeticError: no reward today" in failure.error


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=SLOW)])
def test_no_process_outlives_one_that_is_killed(victim: int, start: Start, tmp_path: Path) -> None:
    one = job(tmp_path, tiny_run(*ENDLESS, "strategy=last_k"))
    processes = start(one)
    wait_for_step(one, 1)
    processes[victim].kill()
    codes = ended(processes)
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] == EXIT_FAILED, log(one)
    failure = RunDirectory(one.folder).failure()
    assert victim == 0 or (failure is not None and "exited without reporting an error" in failure.error)


@pytest.mark.slow
def test_processes_whose_attempt_is_lost_end_together_and_write_nothing(start: Start, tmp_path: Path) -> None:
    one = job(tmp_path, tiny_run(*ENDLESS, "strategy=last_k"))
    processes = start(one)
    wait_for_step(one, 1)
    (one.folder / "attempts" / "000002.json").write_text("{}")
    assert ended(processes) == [EXIT_NOT_MINE] * 2, log(one)
    assert RunDirectory(one.folder).failure() is None


def test_a_run_that_another_process_works_on_is_refused_by_both(start: Start, tmp_path: Path) -> None:
    config = tiny_run(*FAST)
    RunDirectory(tmp_path / config.config_hash).claim(config)
    assert ended(start(job(tmp_path, config))) == [EXIT_NOT_MINE] * 2


@pytest.mark.parametrize(
    ("rows", "passes", "processes", "parts"), [(16, 1, 4, 2), (6, 2, 4, 1), (3, 4, 2, 3), (16, 1, 1, 4)]
)
def test_processes_and_parts_share_the_batch_of_the_run(rows: int, passes: int, processes: int, parts: int) -> None:
    settings = (f"grpo.per_device_train_batch_size={rows}", f"grpo.gradient_accumulation_steps={passes}")
    config = tiny_run(*settings, "grpo.num_generations=2")
    shared = asdict(config.grpo) | split_batch(config.grpo, processes, parts)
    assert shared["per_device_train_batch_size"] * shared["gradient_accumulation_steps"] * processes == rows * passes
    assert shared["per_device_train_batch_size"] <= rows // parts


@pytest.mark.parametrize(
    ("overrides", "processes", "parts", "words"),
    [
        ([], 5, 1, "cannot be shared by 5 processes; use 4"),
        ([], 2, 3, "micro_batches=3 does not divide the 8 completions.*use 2"),
        (["grpo.loss_type=bnpo"], 2, 1, "grpo.loss_type=dapo"),
        (["grpo.loss_type=bnpo"], 1, 2, "grpo.loss_type=dapo"),
    ],
)
def test_a_batch_that_cannot_be_shared_is_refused_with_what_can(
    overrides: list[str], processes: int, parts: int, words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        grpo_arguments(tiny_run(*overrides), tmp_path, 2, processes, parts)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_two_processes_share_the_evaluation_before_training_with_the_next_run(
    start: Start, tmp_path: Path, sharding: str
) -> None:
    shared = {"evaluations": tmp_path / "evaluations", "sharding": sharding}
    runs = [tiny_run("grpo.max_steps=1", f"seed={seed}", "strategy=last_k") for seed in (0, 1)]
    results = [together(start, tmp_path, run, **shared).result() for run in runs]
    assert len(list((tmp_path / "evaluations").glob("*.json"))) == 1
    assert results[0] is not None
    assert results[1] is not None
    assert results[0].evaluation_before == results[1].evaluation_before
    assert results[0].tokens != results[1].tokens  # each trained by itself


@pytest.mark.parametrize("options", [{"micro_batches": 0}, {"sharding": "zero"}])
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Options(**options)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["strategy=lisa"], "Lisa changes what trains"),
        (["strategy=adalora"], "AdaLora changes what trains"),
        (["strategy=lora_fa"], "LoraFA has an optimizer"),
        (["strategy=full", "grpo.sampler=vllm_server"], r"grpo\.sampler=own"),
    ],
)
def test_what_needs_whole_tensors_is_not_sharded(overrides: list[str], words: str, tmp_path: Path) -> None:
    config = tiny_run(*overrides)
    arguments = GRPOConfig(str(tmp_path), use_cpu=True, bf16=False, use_vllm=config.grpo.sampler.startswith("vllm"))
    with pytest.raises(ValueError, match=words):
        check_sharding(config.strategy.build(), arguments)


def test_static_strategies_and_plain_lora_are_sharded(tmp_path: Path) -> None:
    for option in ("full", "last_k", "bitfit", "lora", "dora"):
        check_sharding(tiny_run(f"strategy={option}").strategy.build(), GRPOConfig(str(tmp_path), use_cpu=True, bf16=False))
