"""The local launcher: warm, bounded, one process a run, and whatever happens to one leaves the others alone."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from efficient_rl.config.run_config import from_dict, to_dict
from efficient_rl.launch.cgroups import oom_kills
from efficient_rl.launch.debug import DebugLauncher
from efficient_rl.launch.local import LocalHandle, LocalLauncher
from efficient_rl.launch.worker import EXIT_FAILED, EXIT_INTERRUPTED, Job, _open_log, do
from efficient_rl.run import Options
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.sweep.controller import Controller
from efficient_rl.sweep.display import Row
from efficient_rl.sweep.request import read_request
from tests.conftest import TINY, environment, slow_unless, tiny_run, wait_until


def job(folder: Path, *overrides: str) -> Job:
    config = tiny_run(*overrides)
    return Job(folder / config.config_hash, to_dict(config), Options(checkpoint_steps=1, code_version="test"))


def wait(launcher: LocalLauncher, count: int, seconds: float = 300) -> list[int | None]:
    ended: list[int | None] = []
    deadline = time.monotonic() + seconds
    while len(ended) < count:
        assert time.monotonic() < deadline, "the jobs did not end in time"
        ended += [handle.exit_code for handle in launcher.poll() if isinstance(handle, LocalHandle)]
        time.sleep(0.05)
    return ended


def running(job: Job, seconds: float = 300) -> int:
    """The process id of a job once it holds its run and has logged a step."""
    record = RunDirectory(job.folder)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if any("train/reward" in row["metrics"] for row in record.metrics()):
            return int(json.loads(next((record.folder / "attempts").glob("*.json")).read_text())["pid"])
        time.sleep(0.05)
    raise AssertionError((record.folder / "log.txt").read_text())


@pytest.fixture
def launcher() -> LocalLauncher:
    return LocalLauncher(workers=2)


@pytest.mark.slow
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
    assert RunDirectory(good.folder).state() == "finished"
    assert [handle.state for handle in handles] == ["failed", "stopped", "failed", "finished"]
    ended = RunDirectory(killed.folder).failure()
    assert ended is not None
    assert (ended.cause, "SIGKILL" in ended.error) == ("killed", True)
    assert RunDirectory(stopped.folder).checkpoint() is not None
    failure = RunDirectory(failing.folder).failure()
    assert failure is not None
    assert "nano reads only its own notation" in failure.error
    assert "Traceback" in Path(failure.log).read_text()


def test_stop_drops_what_waits_and_lets_what_runs_write_a_checkpoint(tmp_path: Path) -> None:
    launcher = LocalLauncher(workers=1)
    first, second = job(tmp_path, "grpo.max_steps=500"), job(tmp_path, "seed=1")
    launcher.launch([first, second])
    running(first)
    launcher.stop()
    assert RunDirectory(first.folder).checkpoint() is not None
    assert RunDirectory(first.folder).state() == "waiting"
    assert not (second.folder / "attempts").exists()


@pytest.mark.slow
def test_a_cancelled_job_writes_a_checkpoint_and_leaves_its_slot_to_the_next(tmp_path: Path) -> None:
    launcher = LocalLauncher(workers=1)
    first, waiting, last = job(tmp_path, "grpo.max_steps=500"), job(tmp_path, "seed=1"), job(tmp_path, "seed=2")
    handles = launcher.launch([first, waiting, last])
    running(first)
    launcher.cancel(handles[1])
    launcher.cancel(handles[0])
    wait(launcher, 3)
    assert [handle.state for handle in handles] == ["stopped", "stopped", "finished"]
    assert RunDirectory(first.folder).checkpoint() is not None
    assert RunDirectory(first.folder).state() == "waiting"
    assert not (waiting.folder / "attempts").exists()


def test_a_cancelled_job_that_does_not_end_is_killed_and_still_only_stopped(tmp_path: Path) -> None:
    launcher = LocalLauncher(workers=1, grace_seconds=0)
    stuck = job(tmp_path, "grpo.max_steps=500")
    (handle,) = launcher.launch([stuck])
    os.kill(running(stuck), signal.SIGSTOP)
    launcher.cancel(handle)
    wait(launcher, 1)
    assert handle.state == "stopped"
    assert RunDirectory(stuck.folder).failure() is None


@pytest.mark.slow
def test_no_more_jobs_than_workers_run_at_once(tmp_path: Path) -> None:
    launcher = LocalLauncher(workers=1)
    handles = launcher.launch([job(tmp_path, f"seed={seed}", "grpo.max_steps=1") for seed in range(2)])
    most = 0
    while not all(handle.state.ended for handle in handles):
        most = max(most, sum(handle.state == "running" for handle in handles))
        launcher.poll()
        time.sleep(0.01)
    assert most == 1
    assert [handle.exit_code for handle in handles] == [0, 0]


def test_a_job_uses_one_thread_and_has_its_output_in_its_own_log(tmp_path: Path, launcher: LocalLauncher) -> None:
    one = job(tmp_path, "grpo.max_steps=200")
    launcher.launch([one])
    threads = Path(f"/proc/{running(one)}/status").read_text().split("Threads:")[1].split()[0]
    launcher.stop()
    assert int(threads) <= 6  # Python's own, the parent's watch and the data loader; not one a core
    assert (one.folder / "log.txt").exists()


@pytest.mark.slow
def test_a_run_of_two_processes_ends_as_it_does_in_one(tmp_path: Path) -> None:
    results = []
    for processes in (1, 2):
        launcher = LocalLauncher(workers=1, processes_per_run=processes)
        one = job(tmp_path / str(processes), "strategy=last_k", "grpo.max_steps=2")
        launcher.launch([one])
        assert wait(launcher, 1) == [0]
        result = RunDirectory(one.folder).result()
        assert result is not None
        results.append(result)
    assert results[1].final_reward == pytest.approx(results[0].final_reward, abs=1e-4)
    assert results[1].accuracy == results[0].accuracy


@pytest.mark.slow
def test_a_killed_process_ends_the_others_of_its_run(tmp_path: Path) -> None:
    launcher = LocalLauncher(workers=1, processes_per_run=2)
    (handle,) = launcher.launch([one := job(tmp_path, "grpo.max_steps=500")])
    running(one)
    assert isinstance(handle, LocalHandle)
    handle.processes.alive[1].kill()
    wait(launcher, 1)
    assert handle.state == "failed"
    failure = RunDirectory(one.folder).failure()
    assert failure is not None
    assert "process" in failure.error


def test_the_debug_launcher_runs_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = []
    monkeypatch.setattr("efficient_rl.launch.debug.do", lambda job, release: pids.append(os.getpid()) or do(job, release))
    launcher = DebugLauncher()
    jobs = [job(tmp_path, "grpo.max_steps=1"), job(tmp_path, "model.prompt=plain")]
    launcher.launch(jobs)
    stages = [handle.state for _ in range(3) for handle in launcher.poll()]
    assert stages == ["finished", "failed"]
    assert pids == [os.getpid()] * 2
    assert [RunDirectory(each.folder).owner() for each in jobs] == [None, None]  # released


def test_what_the_debug_launcher_logs_stands_in_the_log_too(tmp_path: Path) -> None:
    launcher = DebugLauncher()
    (handle,) = launcher.launch([job(tmp_path, "model.prompt=plain")])
    assert handle.state == "waiting"
    assert launcher.poll() == []
    assert handle.state == "running"
    assert launcher.poll() == [handle]
    assert handle.failure is not None
    assert "Traceback" in Path(handle.failure.log).read_text()


@pytest.mark.parametrize("number", slow_unless((signal.SIGTERM,), (signal.SIGINT, signal.SIGTERM)))
def test_a_signal_to_the_debug_launcher_takes_effect_after_the_checkpoint(tmp_path: Path, number: int) -> None:
    launcher, effects = DebugLauncher(), []
    first, second = launcher.launch([job(tmp_path, "grpo.max_steps=500"), job(tmp_path, "seed=1")])
    launcher.poll()
    before = signal.signal(number, lambda *_: effects.append(RunDirectory(first.job.folder).checkpoint()))
    sender = threading.Thread(target=lambda: (running(first.job), os.kill(os.getpid(), number)))
    sender.start()
    try:
        launcher.poll()
    finally:
        sender.join()
        signal.signal(number, before)
    (checkpoint,) = effects
    assert checkpoint is not None
    assert first.state == "stopped"
    launcher.stop()
    assert second.state == "stopped"
    assert not (second.job.folder / "attempts").exists()


@pytest.mark.parametrize(("mask", "mode"), [(0o002, 0o664), (0o077, 0o600), (0o022, 0o644)])
def test_the_log_follows_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        os.close(_open_log(tmp_path / "log.txt"))
    finally:
        os.umask(before)
    assert (tmp_path / "log.txt").stat().st_mode & 0o777 == mode


def test_the_log_of_a_colleague_is_continued_in_a_copy() -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom efficient_rl.launch.worker import _open_log\n"
        "if os.getuid() == 0:\n    os.setuid(65534)  # an ordinary user, whom rights stop\n"
        "os.write(_open_log(Path(sys.argv[1])), b'more\\n')\n"
    )
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are private
        Path(name).chmod(0o777)
        log = Path(name) / "log.txt"
        log.write_text("so far\n")
        log.chmod(0o444)
        subprocess.run([sys.executable, "-c", script, str(log)], env=environment(), check=True, timeout=60)
        assert log.read_text() == "so far\nmore\n"


def hang(job: Job, environment: object) -> None:
    """Claims the run and does nothing more."""
    RunDirectory(job.folder).claim(from_dict(job.config))
    time.sleep(600)


def ignore(job: Job, environment: object) -> None:
    """Ends when it is killed, and not before."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hang(job, environment)


def test_a_second_ctrl_c_kills_what_the_first_one_waits_for(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    launcher = LocalLauncher(workers=1, target=ignore, grace_seconds=600)
    (handle,) = launcher.launch([job(tmp_path)])
    assert isinstance(handle, LocalHandle)
    wait_until(lambda: handle.job.directory.owner() is not None, 120, "the claim")
    owner = handle.job.directory.owner()
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        launcher.stop()
    assert owner is not None
    assert not owner.is_alive()
    assert handle.state == "stopped"
    signal.signal(signal.SIGINT, before)


def test_a_run_that_stalls_again_and_again_fails_after_as_many_tries_as_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("efficient_rl.sweep.stall.CHECK_SECONDS", 0.0)
    launcher = LocalLauncher(workers=1, target=hang)
    watch = ("watch.stall_minutes=0.001", "watch.requeue_stalled=true", "watch.retries=1")
    request = read_request([*TINY, *watch, f"output={tmp_path}", "name=mine"], multirun=False)
    (run,) = request.runs
    record = RunDirectory(request.folder(run))
    controller = Controller(request, launcher, Console(file=(told := io.StringIO()), width=200))
    controller.add_row(Row(record.folder, "a run", 3))
    assert controller.run(lambda: controller.start([run]), lambda ended: controller.busy) == "ended"
    assert record.newest_attempt() == 2
    failure, row = record.failure(), controller.rows[run.config_hash]
    assert failure is not None
    assert (row.state, failure.cause) == ("failed", "stalled")
    assert re.fullmatch(r"stalled: no new step for \d+ s \(after 1 more tries\)", failure.error)
    said = [line for line in told.getvalue().splitlines() if "a run: stalled" in line]
    assert [line.endswith("it starts again") for line in said] == [True, False]


def gorge(job: Job, environment: object) -> None:
    """Takes memory until the kernel ends it."""
    RunDirectory(job.folder).claim(from_dict(job.config))
    kept = []
    while True:
        kept.append(bytearray(b"x" * (32 << 20)))


LIMITED = (
    "import sys\nfrom pathlib import Path\n"
    "from efficient_rl.launch.local import LocalLauncher\nfrom efficient_rl.launch.base import Handle\n"
    "from tests.test_launch import gorge, hang, job\n"
    "import os, signal, time\nfrom efficient_rl.rundir.directory import RunDirectory\n"
    "def end(target, name, kill):\n"
    "    launcher = LocalLauncher(workers=1, target=target)\n"
    "    (handle,) = launcher.launch([job(Path(sys.argv[1]) / name)])\n"
    "    while not launcher.poll(0.1):\n"
    "        owner = RunDirectory(Path(handle.job.folder)).owner()\n"
    "        if kill and owner: os.kill(owner.pid, signal.SIGKILL)\n"
    "    print(handle.failure.cause, handle.failure.error, sep=': ')\n"
    "end(gorge, 'gorge', False)\nend(hang, 'hang', True)\n"
)


@pytest.mark.slow
def test_a_run_that_the_kernel_kills_for_memory_is_told_from_one_that_somebody_kills(tmp_path: Path) -> None:
    with memory_group(1 << 30) as procs:
        done = subprocess.run(
            ["bash", "-c", f'echo $$ > {procs} && exec "$@"', "-", sys.executable, "-c", LIMITED, str(tmp_path)],
            env=environment(), capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert done.stdout.splitlines() == [
        "out_of_memory: out of memory: the kernel killed the process, its job or this machine has no more",
        "killed: the process ended by SIGKILL",
    ], done.stderr


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[Path]:
    """A control group with so much memory: the file that takes its processes."""
    name = f"efficient-rl-test-{os.getpid()}"
    old, new = Path("/sys/fs/cgroup/memory", name), Path("/sys/fs/cgroup", name)
    group, limit = (old, "memory.limit_in_bytes") if old.parent.is_dir() else (new, "memory.max")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a control group here: {error}")
    try:
        (group / limit).write_text(str(limit_bytes))
        yield group / "cgroup.procs"
    finally:
        deadline = time.monotonic() + 20
        while group.is_dir():
            try:
                group.rmdir()
            except OSError:  # its last process is just ending
                assert time.monotonic() < deadline, f"{group} does not empty"
                time.sleep(0.1)


@pytest.mark.parametrize(
    ("groups", "file", "text", "count"),
    [
        ("0::/slurm/job_7/task_0\n", "slurm/job_7/task_0/memory.events", "low 0\noom 3\noom_kill 2\n", 2),
        ("4:memory:/slurm/job_7\n0::/\n", "memory/slurm/job_7/memory.oom_control", "under_oom 0\noom_kill 1\n", 1),
        ("0::/\n", "memory.events", "oom_kill 4\n", 4),
        ("0::/\n", "memory.current", "12\n", None),
        ("", "memory.events", "oom_kill 4\n", None),
    ],
)
def test_the_kernels_count_is_read_from_either_version_of_control_groups(
    tmp_path: Path, groups: str, file: str, text: str, count: int | None
) -> None:
    path = tmp_path / "mount" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    (tmp_path / "groups").write_text(groups)
    assert oom_kills(tmp_path / "groups", tmp_path / "mount") == count


@pytest.mark.parametrize("workers", [0, -1, 1.5, "two"])
def test_an_impossible_number_of_workers_is_refused(workers: object) -> None:
    with pytest.raises(ValueError, match=r"launcher\.workers"):
        LocalLauncher(workers=workers)  # type: ignore[arg-type]
