"""The local launcher: warm, bounded, one process a run, and whatever happens to one leaves the others alone."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from efficient_rl.config import to_dict
from efficient_rl.launch.debug import DebugLauncher
from efficient_rl.launch.local import LocalHandle, LocalLauncher
from efficient_rl.launch.worker import EXIT_FAILED, EXIT_INTERRUPTED, Job, do
from efficient_rl.record import Record
from tests.conftest import tiny_run


def job(folder: Path, *overrides: str) -> Job:
    config = tiny_run(*overrides)
    return Job(str(folder / config.config_hash), to_dict(config), checkpoint_steps=1, code_version="test")


def wait(launcher: LocalLauncher, count: int, seconds: float = 120) -> list[int | None]:
    ended: list[int | None] = []
    deadline = time.monotonic() + seconds
    while len(ended) < count:
        assert time.monotonic() < deadline, "the jobs did not end in time"
        ended += [handle.exit_code for handle in launcher.poll() if isinstance(handle, LocalHandle)]
        time.sleep(0.05)
    return ended


def running(job: Job, seconds: float = 60) -> int:
    """The process id of a job once it holds its run and has logged a step."""
    record = Record(Path(job.folder))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if any("train/reward" in row["metrics"] for row in record.metrics()):
            return int(json.loads(next((record.folder / "attempts").glob("*.json")).read_text())["pid"])
        time.sleep(0.05)
    raise AssertionError((record.folder / "log.txt").read_text())


@pytest.fixture
def launcher() -> LocalLauncher:
    return LocalLauncher(workers=2)


def test_a_killed_a_failing_and_a_stopped_run_leave_the_others_alone(launcher: LocalLauncher, tmp_path: Path) -> None:
    long = ("grpo.max_steps=500",)
    killed, stopped = job(tmp_path, *long, "seed=1"), job(tmp_path, *long, "seed=2")
    failing = job(tmp_path, "model.prompt=plain")  # nano has no letters
    good = job(tmp_path, "seed=3")
    handles = launcher.launch([killed, stopped, failing, good])
    os.kill(running(killed), signal.SIGKILL)
    os.kill(running(stopped), signal.SIGTERM)
    wait(launcher, 4)
    assert [handle.exit_code for handle in handles] == [-signal.SIGKILL, EXIT_INTERRUPTED, EXIT_FAILED, 0]
    assert Record(Path(good.folder)).state() == "finished"
    assert [handle.stage for handle in handles] == ["failed", "stopped", "failed", "finished"]
    ended = Record(Path(killed.folder)).failure()
    assert ended is not None
    assert (ended.cause, "SIGKILL" in ended.error) == ("killed", True)
    assert Record(Path(stopped.folder)).checkpoint() is not None
    failure = Record(Path(failing.folder)).failure()
    assert failure is not None
    assert "nano reads only its own notation" in failure.error
    assert "Traceback" in Path(failure.log).read_text()


def test_stop_drops_what_waits_and_lets_what_runs_write_a_checkpoint(tmp_path: Path) -> None:
    launcher = LocalLauncher(workers=1)
    first, second = job(tmp_path, "grpo.max_steps=500"), job(tmp_path, "seed=1")
    launcher.launch([first, second])
    running(first)
    launcher.stop()
    assert Record(Path(first.folder)).checkpoint() is not None
    assert Record(Path(first.folder)).state() == "pending"
    assert not (Path(second.folder) / "attempts").exists()


def test_a_cancelled_job_writes_a_checkpoint_and_leaves_its_slot_to_the_next(tmp_path: Path) -> None:
    launcher = LocalLauncher(workers=1)
    first, waiting, last = job(tmp_path, "grpo.max_steps=500"), job(tmp_path, "seed=1"), job(tmp_path, "seed=2")
    handles = launcher.launch([first, waiting, last])
    running(first)
    launcher.cancel(handles[1])
    launcher.cancel(handles[0])
    wait(launcher, 3)
    assert [handle.stage for handle in handles] == ["stopped", "stopped", "finished"]
    assert Record(Path(first.folder)).checkpoint() is not None
    assert Record(Path(first.folder)).state() == "pending"
    assert not (Path(waiting.folder) / "attempts").exists()


def test_a_cancelled_job_that_does_not_end_is_killed_and_still_only_stopped(tmp_path: Path) -> None:
    launcher = LocalLauncher(workers=1, grace_seconds=0)
    stuck = job(tmp_path, "grpo.max_steps=500")
    (handle,) = launcher.launch([stuck])
    os.kill(running(stuck), signal.SIGSTOP)
    launcher.cancel(handle)
    wait(launcher, 1)
    assert handle.stage == "stopped"
    assert Record(Path(stuck.folder)).failure() is None


def test_no_more_jobs_than_workers_run_at_once(tmp_path: Path) -> None:
    launcher = LocalLauncher(workers=1)
    handles = launcher.launch([job(tmp_path, f"seed={seed}", "grpo.max_steps=1") for seed in range(3)])
    most = 0
    while not all(handle.ended for handle in handles):
        most = max(most, sum(handle.stage == "running" for handle in handles))
        launcher.poll()
        time.sleep(0.01)
    assert most == 1
    assert [handle.exit_code for handle in handles] == [0, 0, 0]


def test_a_job_uses_one_thread_and_has_its_output_in_its_own_log(tmp_path: Path, launcher: LocalLauncher) -> None:
    one = job(tmp_path, "grpo.max_steps=200")
    launcher.launch([one])
    threads = Path(f"/proc/{running(one)}/status").read_text().split("Threads:")[1].split()[0]
    launcher.stop()
    assert int(threads) <= 6  # Python's own, the parent's watch and the data loader; not one a core
    assert (Path(one.folder) / "log.txt").exists()


def test_a_run_of_two_processes_ends_as_it_does_in_one(tmp_path: Path) -> None:
    results = []
    for processes in (1, 2):
        launcher = LocalLauncher(workers=1, processes_per_run=processes)
        one = job(tmp_path / str(processes), "strategy=last_k", "grpo.max_steps=2")
        launcher.launch([one])
        assert wait(launcher, 1) == [0]
        result = Record(Path(one.folder)).result()
        assert result is not None
        results.append(result)
    assert results[1].final_reward == pytest.approx(results[0].final_reward, abs=1e-4)
    assert results[1].accuracy == results[0].accuracy


def test_a_killed_process_ends_the_others_of_its_run(tmp_path: Path) -> None:
    launcher = LocalLauncher(workers=1, processes_per_run=2)
    (handle,) = launcher.launch([one := job(tmp_path, "grpo.max_steps=500")])
    running(one)
    assert isinstance(handle, LocalHandle)
    handle.processes[1].kill()
    wait(launcher, 1)
    assert handle.stage == "failed"
    failure = Record(Path(one.folder)).failure()
    assert failure is not None
    assert "process" in failure.error


def test_the_debug_launcher_runs_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = []
    monkeypatch.setattr("efficient_rl.launch.debug.do", lambda job: pids.append(os.getpid()) or do(job))
    launcher = DebugLauncher()
    launcher.launch([job(tmp_path, "grpo.max_steps=1"), job(tmp_path, "model.prompt=plain")])
    stages = [handle.stage for _ in range(3) for handle in launcher.poll()]
    assert stages == ["finished", "failed"]
    assert pids == [os.getpid()] * 2


@pytest.mark.parametrize("workers", [0, -1, 1.5, "two"])
def test_an_impossible_number_of_workers_is_refused(workers: object) -> None:
    with pytest.raises(ValueError, match=r"launcher\.workers"):
        LocalLauncher(workers=workers)  # type: ignore[arg-type]
