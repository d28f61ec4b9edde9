"""What the end of a cluster job means for its run, and what the watcher does about it."""

import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from efficient_rl.doctor.cluster import check_python
from efficient_rl.errors import ConfigError
from efficient_rl.launch.slurm import commands as scheduler
from efficient_rl.launch.slurm.commands import VANISHED, JobState
from efficient_rl.launch.slurm.launcher import SlurmHandle, SlurmLauncher
from efficient_rl.launch.slurm.ledger import Assignment, Ledger
from efficient_rl.launch.slurm.retries import ending, micro_batches_after
from efficient_rl.launch.slurm.submit import is_refusal
from efficient_rl.launch.worker import Job
from efficient_rl.sweep.estimate import approve, make_budget
from efficient_rl.sweep.notify import notify
from tests.conftest import tiny_run


@pytest.mark.parametrize(
    ("word", "started", "text", "cause", "again"),
    [
        ("NODE_FAIL", True, "", "node_failure", True),
        ("PREEMPTED", True, "", "preempted", True),
        ("TIMEOUT", True, "", "time_limit", True),
        ("OUT_OF_MEMORY", True, "", "out_of_memory", False),
        ("OUT_OF_MEMORY", False, "", "not_started", True),  # a neighbour's memory
        ("FAILED", True, "StepId=1.0 exceeded memory limit (2 > 1), being killed", "out_of_memory", False),
        ("CANCELLED", True, "", "cancelled", False),
        ("FAILED", False, "module: command not found", "not_started", True),
        ("FAILED", True, "", "killed", False),
        ("COMPLETED", True, "", "preempted", True),  # it wrote a checkpoint and was not requeued
        ("FAILED", False, "launcher.setup failed with exit status 1, in the line: module load x", "error", False),
        ("FAILED", False, "slurmstepd: error: execve(): /no/python: No such file or directory", "error", False),
        (VANISHED, False, "", "not_started", True),
        (VANISHED, True, "", "node_failure", True),
        (VANISHED, True, "slurmstepd-n1: error: *** STEP 7.0 CANCELLED AT 2026-11-23T07:00:00 ***", "cancelled", False),
        (VANISHED, False, "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-23T07:00:00 ***", "cancelled", False),
        (
            VANISHED,
            True,
            "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-23T07:00:00 DUE TO TIME LIMIT ***",
            "time_limit",
            True,
        ),
        (
            VANISHED,
            True,
            "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-23T07:00:00 DUE TO PREEMPTION ***\n"
            "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-23T08:00:00 ***",
            "cancelled",
            False,
        ),
    ],
)
def test_the_end_of_a_job_has_a_cause_and_some_are_tried_again(
    word: str, started: bool, text: str, cause: str, again: bool
) -> None:
    found = ending(JobState(word, "1:0"), started, text, 60)
    assert (found.cause, found.may_retry) == (cause, again)
    assert found.words


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        ("sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified", True),
        (
            "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates policy",
            True,
        ),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", False),
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)", False),
        ("sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received", False),
        ("our filter has a bad day", False),
        ("", False),
    ],
)
def test_only_a_refusal_in_words_is_certain(error: str, refused: bool) -> None:
    assert is_refusal(error) == refused


def test_a_setup_line_that_fails_ends_the_job_and_is_named(tmp_path: Path) -> None:
    def script(*lines: str) -> "subprocess.CompletedProcess[str]":
        text = "\n".join([*SlurmLauncher(setup=list(lines)).sbatch_parameters("a")["setup"], 'echo "python $A"; exit 5'])
        return subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=False, timeout=20)

    good = script("export A='it is'", "for i in 1 2; do\nA=$A.$i\ndone", "false || true")
    assert (good.stdout, good.stderr, good.returncode) == ("python it is.1.2\n", "", 5)  # Python's own status stays
    for line, status in (("module load cuda/99", 127), ("exit 3", 3), ("source nonesuch", 1), ("if true; then", 2)):
        bad = script("true", line, "echo on")
        assert (bad.stdout, bad.returncode) == ("", 120)
        assert bad.stderr.splitlines()[-1] == f"launcher.setup failed with exit status {status}, in the line: {line}"
        why = ending(JobState("FAILED", "120:0"), False, bad.stderr, None)
        assert (why.cause, why.words, why.may_retry) == ("error", bad.stderr.splitlines()[-1], False)


def test_a_python_that_is_not_there_is_refused_where_that_can_be_told(tmp_path: Path) -> None:
    (tmp_path / "python").touch()
    for there, words in ((str(tmp_path / "none"), "does not exist"), (f"'{tmp_path}/python' -s", "cannot be executed")):
        with pytest.raises(ConfigError, match=words):
            SlurmLauncher(python=there).check_python(tmp_path / "outputs")
        (found,) = check_python(SlurmLauncher(python=there), tmp_path / "outputs")
        assert (found.level, words in found.what, "or null" in found.remedy) == ("failure", True, True)
    (tmp_path / "python").chmod(0o755)
    for fine in (str(tmp_path / "python"), "apptainer exec image.sif python", "$HOME/python", "/proc/nonesuch/python", None):
        SlurmLauncher(python=fine).check_python(tmp_path / "outputs")
        assert check_python(SlurmLauncher(python=fine), tmp_path / "outputs") == []


@pytest.mark.parametrize("gigabytes", [0, 0.0001, -1, float("inf"), float("nan"), 1e30, "4"])
def test_memory_that_slurm_would_misread_is_refused(gigabytes: object) -> None:
    with pytest.raises(ValueError, match=r"launcher\.mem_gb=.* must lie in 0.1 to 1000000 GB .* additional"):
        SlurmLauncher(mem_gb=gigabytes)  # type: ignore[arg-type]


def test_out_of_memory_is_tried_once_with_twice_the_parts_where_that_is_wanted_and_possible() -> None:
    config = {"grpo": {"per_device_train_batch_size": 6}}
    assert micro_batches_after("out_of_memory", (), 1, config, oom_retry=True) == 2
    assert micro_batches_after("out_of_memory", (), 1, config, oom_retry=False) is None
    assert micro_batches_after("out_of_memory", ("out_of_memory",), 2, config, oom_retry=True) is None
    assert micro_batches_after("out_of_memory", ("preempted",), 2, config, oom_retry=True) is None  # 6 has no 4 parts
    assert micro_batches_after("out_of_memory", (), 1, config, oom_retry=True, processes=2) is None  # nor have 3 rows two
    assert micro_batches_after("error", (), 1, config, oom_retry=True) is None


@pytest.mark.parametrize(("wanted", "parts"), [(True, 2), (False, 1)])
def test_a_run_cut_after_running_out_of_memory_stays_cut_for_a_later_command_that_wants_it(
    tmp_path: Path, wanted: bool, parts: int
) -> None:
    ledger, key = Ledger(tmp_path), "abc"
    batch = ledger.intend("efficient_rl", [[key]], {key: Assignment("", 0, ("out_of_memory",), 2)})
    batch.job = "7"
    batch.save()
    (handle,) = SlurmLauncher(oom_retry=wanted)._submitted([Job(str(tmp_path / "runs" / key), {}, 1, "")])
    assert handle.assignment is not None
    assert (handle.job.micro_batches, handle.assignment.micro_batches, handle.job_id) == (parts, parts, "7")


def test_ids_of_waiting_arrays_are_read_one_by_one() -> None:
    assert list(scheduler._expanded("7_[0-2,5%2]")) == ["7_0", "7_1", "7_2", "7_5"]
    assert list(scheduler._expanded("7_3")) == ["7_3"]
    assert list(scheduler._expanded("7")) == ["7"]


def test_a_refusal_for_a_limit_makes_smaller_arrays_and_then_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal is made up: the cluster of the tests enforces no limits."""
    launcher, taken = SlurmLauncher(max_array_size=8), list[int]()
    room = 3

    def submit(handles: list[SlurmHandle]) -> list[SlurmHandle]:
        if sum(taken) + len(handles) > room:
            raise scheduler.SchedulerError("sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job refused")
        taken.append(len(handles))
        return handles

    monkeypatch.setattr(launcher, "_submit", submit)
    launcher._waiting = [SlurmHandle(Job(f"runs/{index}", {}, 1, "")) for index in range(8)]
    launcher._submit_waiting()
    assert sum(taken) == room
    assert {handle.note for handle in launcher._waiting} == {"waits for the site's limit on jobs"}
    room = 8
    launcher._submit_waiting()  # too soon
    assert sum(taken) == 3
    launcher._blocked_until = 0.0
    launcher._submit_waiting()
    assert sum(taken) == 8


def test_any_other_refusal_ends_the_command_with_slurms_words(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = SlurmLauncher(max_array_size=8)

    def submit(handles: list[SlurmHandle]) -> list[SlurmHandle]:
        raise scheduler.SchedulerError("sbatch: error: invalid account or partition")

    monkeypatch.setattr(launcher, "_submit", submit)
    launcher._waiting = [SlurmHandle(Job("runs/0", {}, 1, ""))]
    with pytest.raises(ConfigError, match="invalid account"):
        launcher._submit_waiting()


@pytest.mark.parametrize(
    "settings",
    [
        {"mem_gb": 0}, {"timeout_min": 0}, {"nodes": -1}, {"runs_per_job": "2"}, {"gpus_per_node": -1},
        {"setup": "module load"}, {"signal_seconds": 240 * 60}, {"additional": [1]}, {"partition": ""}, {"oom_retry": 1},
        {"stall_minutes": 0},
        {"processes_per_run": 3, "nodes": 2}, {"sharding": "tp"}, {"max_gpu_hours": True}, {"notify": 5}, {"retries": -1},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused_by_name(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=rf"launcher\.({'|'.join(settings)})="):
        SlurmLauncher(**settings)  # type: ignore[arg-type]


def test_more_gpu_hours_than_allowed_need_a_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = make_budget([tiny_run("grpo.max_steps=10000000")], [], gpus_per_run=2)
    assert budget.gpu_hours == pytest.approx(2 * budget.hours)
    console = Console()
    approve(budget, None, console)
    approve(budget, 1e9, console)
    with pytest.raises(ConfigError, match="Nothing was started"):
        approve(budget, 1e-9, console)  # pytest's input is no terminal
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr(console, "input", lambda _: "y")
    approve(budget, 1e-9, console)
    monkeypatch.setattr(console, "input", lambda _: "")
    with pytest.raises(ConfigError, match="nothing was started"):
        approve(budget, 1e-9, console)


def test_a_url_and_a_command_hear_what_happened_and_a_deaf_one_is_no_error(tmp_path: Path) -> None:
    heard: list[bytes] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Listener)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    notify(f"http://127.0.0.1:{server.server_port}/", {"event": "sweep_ended", "sweep": "a"})
    thread.join(timeout=10)
    server.server_close()
    assert json.loads(heard[0]) == {"event": "sweep_ended", "sweep": "a"}
    notify(f"cat > {tmp_path / 'heard'}", {"event": "run_failed"})
    assert json.loads((tmp_path / "heard").read_text()) == {"event": "run_failed"}
    notify("exit 1", {"event": "run_failed"})
    notify("http://127.0.0.1:9/", {"event": "run_failed"})
