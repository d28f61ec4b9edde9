"""What the end of a cluster job means for its run, and what the watcher does about it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from efficient_rl.budget import approve, make_budget
from efficient_rl.compose import ConfigError
from efficient_rl.launch import scheduler
from efficient_rl.launch.retries import ending, micro_batches_after
from efficient_rl.launch.scheduler import VANISHED, JobState
from efficient_rl.launch.slurm import SlurmHandle, SlurmLauncher
from efficient_rl.launch.worker import Job
from efficient_rl.supervise import notify
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
        (VANISHED, True, "", "not_started", True),
    ],
)
def test_the_end_of_a_job_has_a_cause_and_some_are_tried_again(
    word: str, started: bool, text: str, cause: str, again: bool
) -> None:
    found = ending(JobState(word, "1:0"), started, text, 60)
    assert (found.cause, found.may_retry) == (cause, again)
    assert found.words


def test_out_of_memory_is_tried_once_with_twice_the_parts_where_that_is_wanted_and_possible() -> None:
    config = {"grpo": {"per_device_train_batch_size": 6}}
    assert micro_batches_after("out_of_memory", (), 1, config, oom_retry=True) == 2
    assert micro_batches_after("out_of_memory", (), 1, config, oom_retry=False) is None
    assert micro_batches_after("out_of_memory", ("out_of_memory",), 2, config, oom_retry=True) is None
    assert micro_batches_after("out_of_memory", ("preempted",), 2, config, oom_retry=True) is None  # 6 has no 4 parts
    assert micro_batches_after("out_of_memory", (), 1, config, oom_retry=True, processes=2) is None  # nor have 3 rows two
    assert micro_batches_after("error", (), 1, config, oom_retry=True) is None


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
