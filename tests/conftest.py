"""Shared by the tests: tiny runs of the embedded model, in this process or through the command line."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from efficient_rl.config.compose import expand
from efficient_rl.config.run_config import RunConfig, parse_run
from efficient_rl.run import Options, Stop, quiet_libraries
from efficient_rl.rundir.directory import Record
from efficient_rl.rundir.result import RunResult

quiet_libraries()


def pytest_collection_finish() -> None:
    """Leave what the libraries made at import out of every later garbage collection, of which trainers force many."""
    gc.collect()
    gc.freeze()


TINY = (
    "grpo.max_steps=3",
    "grpo.per_device_train_batch_size=16",
    "grpo.num_generations=4",
    "grpo.max_completion_length=24",
    "grpo.train_problems=64",
    "eval.problems=12",
    "eval.samples=2",
)
ROOT = Path(__file__).resolve().parents[1]

Sweep = Callable[..., subprocess.CompletedProcess[str]]


def tiny_run(*overrides: str) -> RunConfig:
    """A run of a few seconds."""
    return parse_run(expand([*TINY, *overrides])[0])


def execute_tiny(folder: Path, *overrides: str, checkpoint_steps: int = 2) -> tuple[RunResult, Record]:
    """Do a tiny run in this process, in its own directory below `folder`."""
    import torch

    from efficient_rl.run import execute

    torch.set_num_threads(1)
    config = tiny_run(*overrides)
    record = Record(folder / config.config_hash)
    record.claim(config)
    return execute(config, record, Options(checkpoint_steps), Stop()), record


def command(overrides: Sequence[str], tiny: bool = True) -> list[str]:
    """The sweep command with tiny settings in front; later overrides of the same key replace them."""
    keys = {text.split("=")[0] for text in overrides}
    settings = [text for text in TINY if text.split("=")[0] not in keys] if tiny else []
    return [sys.executable, "-m", "efficient_rl.sweep", *settings, *overrides]


def environment(**extra: str) -> dict[str, str]:
    """The environment of a child process that imports this checkout."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "160"} | extra


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Run the sweep command in an empty folder and wait for it."""

    def run(*overrides: str, tiny: bool = True, timeout: float = 300, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(overrides, tiny),
            cwd=tmp_path,
            env=environment(**extra),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a two-step sweep of every strategy has finished, made once for all tests that only read it."""
    folder = tmp_path_factory.mktemp("finished")
    overrides = ["-m", "strategy=full,first_k,last_k,lora", "seed=0,1", "grpo.max_steps=2", "name=all"]
    done = subprocess.run(
        command(overrides), cwd=folder, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in an empty folder, away from the tracking store of the shell it was started from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
