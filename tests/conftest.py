"""Shared by the tests: tiny runs of the embedded model, in this process or through the command line."""

import gc
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest
from filelock import FileLock

from efficient_rl.config.compose import expand
from efficient_rl.config.run_config import RunConfig, parse_run
from efficient_rl.libraries import quiet_libraries
from efficient_rl.run import Options, Stop
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.result import RunResult
from efficient_rl.sweep import __main__ as sweep_command
from tests.isolation import forget_the_users_environment

forget_the_users_environment()
quiet_libraries()
gc.disable()  # until all tests are imported: there is no garbage in imports, only a fifth of their time
pytest.register_assert_rewrite("tests.slurm.local_cluster", "tests.slurm.long_run")  # a failed assertion shows its values


def pytest_collection_finish() -> None:
    """Leave what the libraries made at import out of every later garbage collection, of which trainers force many."""
    gc.collect()
    gc.freeze()
    gc.enable()


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


def execute_tiny(folder: Path, *overrides: str, checkpoint_steps: int = 2) -> tuple[RunResult, RunDirectory]:
    """Do a tiny run in this process, in its own directory below `folder`."""
    return execute_alone(folder, tiny_run(*overrides), checkpoint_steps)


def execute_alone(folder: Path, config: RunConfig, checkpoint_steps: int = 2) -> tuple[RunResult, RunDirectory]:
    """Do a run in this process, in its own directory below `folder`."""
    import torch

    from efficient_rl.run import execute

    torch.set_num_threads(1)
    record = RunDirectory(folder / config.config_hash)
    return execute(config, record.claim(config), Options(checkpoint_steps), Stop()), record


def tiny(overrides: Sequence[str]) -> list[str]:
    """The overrides with tiny settings in front; later overrides of the same key replace them."""
    keys = {text.split("=")[0] for text in overrides}
    return [*(text for text in TINY if text.split("=")[0] not in keys), *overrides]


def command(overrides: Sequence[str]) -> list[str]:
    """The sweep command with tiny settings."""
    return [sys.executable, "-m", "efficient_rl.sweep", *tiny(overrides)]


def environment(**extra: str) -> dict[str, str]:
    """The environment of a child process that imports this checkout."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "160"} | extra


def cpu_seconds(*processes: int) -> float:
    """What this process, those named and the children of each that have ended used: a busy machine changes it little."""
    used = os.times()
    total = used.user + used.system + used.children_user + used.children_system
    for process in processes:
        times = psutil.Process(process).cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll until the condition holds; that long at most."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.1)


def slow_unless(fast: Collection[Any], values: Iterable[Any]) -> list[Any]:
    """The values of a test's parameter; those that are not in `fast` are marked slow."""
    return [pytest.param(value, marks=() if value in fast else pytest.mark.slow) for value in values]


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port that nobody else gets until the end: it stays bound, and a server with SO_REUSEADDR can listen on it."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


@contextmanager
def tracking_server(port: int, database: Path) -> Iterator[str]:
    """The address of an MLflow server on this port, with its artifacts beside its database; at the end it is killed."""
    address = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", str(database.parent / "artifacts")],
        cwd=database.parent, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        wait_until(lambda: server.poll() is not None or _answers(f"{address}/health"), 400, "the tracking server")
        assert server.poll() is None, "the tracking server ended"
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Run the sweep command in an empty folder, in a process of its own, and wait for it."""

    def run(*overrides: str, timeout: float = 300, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(overrides),
            cwd=tmp_path,
            env=environment(**extra),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture
def sweep_here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """Call the sweep command in this process: for what is refused, only planned, or only looks like training."""
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        try:
            status = sweep_command.main(arguments)
        except SystemExit as error:  # of the parser
            status = int(error.code or 0)
        return subprocess.CompletedProcess(shlex.join(arguments), status, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a two-step sweep of every strategy has finished, made once for all tests that only read it.

    The workers of pytest-xdist share it: the first that needs it makes it, the others wait.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, complete = shared / "finished", shared / "finished.complete"
    with FileLock(shared / "finished.lock"):
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            overrides = ["-m", "strategy=full,first_k,last_k,lora", "seed=0,1", "grpo.max_steps=2", "name=all"]
            done = subprocess.run(
                command(overrides), cwd=folder, env=environment(), capture_output=True, text=True, timeout=600, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
            complete.touch()
    return folder


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in an empty folder, away from the results in the checkout."""
    monkeypatch.chdir(tmp_path)
