"""A run over several processes ends as it does in one, and no process outlives the others' failure."""

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from efficient_rl.compose import ConfigError
from efficient_rl.config import RunConfig, to_dict
from efficient_rl.launch.local import PRELOADED
from efficient_rl.launch.processes import FIRST_PORT, LAST_PORT, distributed_environment, master_port
from efficient_rl.launch.worker import EXIT_FAILED, EXIT_INTERRUPTED, Job, work
from efficient_rl.record import Record
from efficient_rl.training.settings import grpo_arguments
from tests.conftest import tiny_run

STEPS = 3
CLOSE = {"rel": 1e-4, "abs": 1e-4}
SPEED = ("grpo.learning_rate=1e-3", f"grpo.max_steps={STEPS}")  # weights move by more than the tolerance


def job(folder: Path, config: RunConfig, **options: Any) -> Job:
    return Job(
        str(folder / config.config_hash), to_dict(config), **({"checkpoint_steps": 2, "code_version": "test"} | options)
    )


@pytest.fixture(scope="module")
def start() -> Callable[..., list[BaseProcess]]:
    """Starts processes forked from a server that has the libraries loaded, as the local launcher's are."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)

    def begin(job: Job, size: int = 2, target: Callable[..., None] = work, key: str = "") -> list[BaseProcess]:
        key = key or f"{job.folder}.{time.time_ns()}"
        started = []
        for rank in range(size):
            environment = distributed_environment(rank, size, rank, size, "localhost", key) if size > 1 else {}
            process = context.Process(target=target, args=(job, environment))
            process.start()
            started.append(process)
        return started

    return begin


Start = Callable[..., list[BaseProcess]]


def ended(processes: Sequence[BaseProcess], seconds: float = 100) -> list[int | None]:
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    codes = [process.exitcode for process in processes]
    for process in processes:
        if process.is_alive():
            process.kill()
    return codes


def finished(start: Start, folder: Path, config: RunConfig, size: int = 1, **options: Any) -> Record:
    one = job(folder / f"{size}-{len(list(folder.iterdir()))}", config, **options)
    codes = ended(start(one, size))
    assert codes == [0] * size, (Path(one.folder) / "log.txt").read_text()[-4000:]
    return Record(Path(one.folder))


def weights(record: Record) -> dict[str, torch.Tensor]:
    return load_file(next(path for path in (record.folder / "model").iterdir() if path.suffix == ".safetensors"))


def lines(record: Record) -> list[Mapping[str, float]]:
    return [row["metrics"] for row in record.metrics() if "train/loss" in row["metrics"]]


def assert_same(
    one: Record, other: Record, metrics: Sequence[str] = ("train/loss", "train/grad_norm", "train/reward")
) -> None:
    mine, theirs = lines(one), lines(other)
    assert len(mine) == len(theirs) == STEPS
    for name in (*metrics, *(("train/kl",) if "train/kl" in mine[0] else ())):
        assert [row[name] for row in mine] == pytest.approx([row[name] for row in theirs], **CLOSE), name
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert max(float((first[name] - second[name]).abs().max()) for name in first) < 1e-4
    before, after = one.result(), other.result()
    assert before is not None
    assert after is not None
    assert (before.accuracy, before.accuracy_before, before.tokens) == (after.accuracy, after.accuracy_before, after.tokens)
    assert max(row["train/grad_norm"] for row in mine) > 1e-3  # something did train


CASES = {
    "full": ["strategy=full"],
    "last_k_kl": ["strategy=last_k", "grpo.beta=0.04", "grpo.num_iterations=2"],
    "lora": ["strategy=lora"],
    "lora_kl": ["strategy=lora", "grpo.beta=0.04"],
    "lisa": ["strategy=lisa", "strategy.interval=1"],
    "autofreeze": ["strategy=autofreeze", "strategy.intervals=3"],
}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_what_one_does(case: str, start: Start, tmp_path: Path) -> None:
    config = tiny_run(*SPEED, *CASES[case])
    one, two = finished(start, tmp_path, config), finished(start, tmp_path, config, size=2)
    assert_same(one, two)
