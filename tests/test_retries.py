"""What the end of a cluster job means for its run, and what the watcher does about it."""

import json
import math
import re
import subprocess
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from efficient_rl.config.run_config import to_dict
from efficient_rl.doctor.cluster import check_python
from efficient_rl.errors import ConfigError, SchedulerError
from efficient_rl.launch.slurm import commands as scheduler
from efficient_rl.launch.slurm.commands import JobState, Refused, is_refusal
from efficient_rl.launch.slurm.launcher import SlurmLauncher
from efficient_rl.launch.slurm.ledger import Assignment, Ledger
from efficient_rl.launch.slurm.retries import ending, micro_batches_after
from efficient_rl.launch.slurm.submit import SlurmHandle, SubmissionQueue, job_name, one_line
from efficient_rl.launch.worker import Job
from efficient_rl.sweep.estimate import Budget, approve
from efficient_rl.sweep.notify import notify
from efficient_rl.sweep.request import read_request
from efficient_rl.sweep.watch import Watch
from tests.conftest import tiny_run
from tests.fake_launcher import result
from tests.test_snapshot import claim_in_job


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
        ("sbatch: unrecognized option '--foo=1'\nTry \"sbatch --help\" for more information", True),
        ("sbatch: option requires an argument -- 'p'", True),
        ("sbatch: fatal: could not read the configuration", True),
        ("sbatch: error: Batch job submission failed: Connection refused", False),
        ("sbatch: error: slurm_receive_msg: Zero Bytes were transmitted or received", False),
        ("our filter has a bad day", False),
        ("exit status 1", False),
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
        assert ending(JobState("FAILED", "120:0"), False, bad.stderr) == ("error", bad.stderr.splitlines()[-1])


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
    is_number = isinstance(gigabytes, int | float) and math.isfinite(gigabytes)
    bound = "must lie in 0.1 to 1000000 GB .* additional" if is_number else "must be of type float"
    with pytest.raises(ValueError, match=rf"launcher\.mem_gb=.* {bound}"):
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
    batch = ledger.record_submission("efficient_rl", [[key]], {key: Assignment("", 0, ("out_of_memory",), 2)})
    batch.job = "7"
    batch.save()
    (handle,) = SlurmLauncher(oom_retry=wanted)._queue.submitted([Job(tmp_path / "runs" / key, {})])
    found = (handle.job.options.micro_batches, handle.assignment.micro_batches, handle.job_id, handle.state)
    assert found == (parts, parts, "7", "queued")


def test_ids_of_waiting_arrays_are_read_one_by_one() -> None:
    assert list(scheduler._expanded("7_[0-2,5%2]")) == ["7_0", "7_1", "7_2", "7_5"]
    assert list(scheduler._expanded("7_3")) == ["7_3"]
    assert list(scheduler._expanded("7")) == ["7"]


def test_a_refusal_for_a_limit_makes_smaller_arrays_and_then_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal is made up: the cluster of the tests enforces no limits."""
    queue, taken = SubmissionQueue(SlurmLauncher(max_array_size=8)), list[int]()
    room = 3

    def submit(handles: list[SlurmHandle]) -> None:
        if sum(taken) + len(handles) > room:
            raise Refused("sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job refused")
        taken.append(len(handles))

    monkeypatch.setattr(queue, "submit", submit)
    handles = [SlurmHandle(Job(Path(f"runs/{index}"), {})) for index in range(8)]
    queue.waiting += handles
    assert queue.submit_waiting() == handles[:room]
    assert sum(taken) == room
    assert queue.waiting == handles[room:]
    assert {handle.note for handle in queue.waiting} == {"refused at the site's limit on jobs"}
    room = 8
    assert queue.submit_waiting() == []  # too soon
    queue._blocked_until = 0.0
    assert queue.submit_waiting() == handles[3:]
    assert (sum(taken), queue.waiting) == (8, [])


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Refused("sbatch: error: invalid account"), "the cluster refused the jobs: sbatch: error: invalid account; `py"),
        (Refused("sbatch: unrecognized option '--foo'\nTry \"sbatch --help\" for more information"),
         "the cluster refused the jobs: sbatch: unrecognized option '--foo'; `python -m"),
        (Refused("sbatch: error: QOSMaxWallDurationPerJobLimit\nsbatch: error: Batch job submission failed: Job violates"),
         "QOSMaxWallDurationPerJobLimit; sbatch: error: Batch job submission failed"),  # waiting does not help
        (SchedulerError("sbatch: our filter has a bad day"), "sbatch does not tell whether Slurm has the jobs: sbatch: our"),
    ],
)  # fmt: skip
def test_any_other_refusal_ends_the_command_with_all_that_slurm_said(
    error: SchedulerError, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = SubmissionQueue(SlurmLauncher(max_array_size=8))

    def submit(handles: list[SlurmHandle]) -> None:
        raise error

    monkeypatch.setattr(queue, "submit", submit)
    queue.waiting.append(SlurmHandle(Job(Path("runs/0"), {})))
    with pytest.raises(ConfigError, match=re.escape(words)):
        queue.submit_waiting()


def test_an_answer_that_is_unknown_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = SubmissionQueue(SlurmLauncher(max_array_size=8))

    def submit(handles: list[SlurmHandle]) -> None:
        raise SchedulerError("sbatch: error: Batch job submission failed: Unable to contact slurm controller")

    monkeypatch.setattr(queue, "submit", submit)
    queue.waiting.append(handle := SlurmHandle(Job(Path("runs/0"), {})))
    assert queue.submit_waiting() == []
    assert (queue.waiting, handle.note) == ([handle], "unknown whether Slurm has it, which has not answered")


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("a\n\n  b \n", "a; b"),
        (
            "sbatch: unrecognized option '--foo'\nTry \"sbatch --help\" for more information\n",
            "sbatch: unrecognized option '--foo'",
        ),
    ],
)
def test_all_that_sbatch_says_becomes_one_line(said: str, line: str) -> None:
    assert one_line(said) == line


@pytest.mark.parametrize(
    ("sweep", "name"),
    [
        ("which_blocks", "which_blocks"), ("strategy=full,lora", "strategy=full_lora"), ("a b/c %j", "a_b_c_j"),
        ("", "efficient_rl"), ("über", "über"), ("x" * 200, "x" * 120), ("--", "efficient_rl"),
    ],
)  # fmt: skip
def test_jobs_bear_the_name_of_their_sweep(sweep: str, name: str) -> None:
    assert job_name(sweep) == name


def watched(folder: Path, retries: int = 3) -> tuple[SlurmLauncher, SlurmHandle]:
    """A launcher with one run in job 7, of which Slurm has said nothing yet."""
    config = tiny_run()
    batch = Ledger(folder).record_submission("efficient_rl", [[config.config_hash]], {})
    batch.job = "7"
    batch.save()
    launcher = SlurmLauncher()
    job = Job(folder / "runs" / config.config_hash, to_dict(config), redo_through_attempt=1, retries=retries)
    (handle,) = launcher._live = launcher._queue.submitted([job])
    return launcher, handle


def look(launcher: SlurmLauncher, handle: SlurmHandle, word: str, seconds: float = 60.0) -> None:
    """Have the launcher look at a run so many seconds after Slurm first said so."""
    launcher._states = {"7": JobState(word, "1:0", "n1")}
    launcher._look(handle)
    if handle.ended_since is not None:
        handle.ended_since -= seconds
        launcher._look(handle)


def test_a_job_that_has_just_ended_is_given_time_and_then_its_run_is_retried_as_often_as_allowed(tmp_path: Path) -> None:
    launcher, handle = watched(tmp_path, retries=1)
    look(launcher, handle, "RUNNING")
    assert (handle.state, handle.note) == ("queued", "job 7 (starting)")
    look(launcher, handle, "NODE_FAIL", seconds=1.0)  # its result may still be on its way
    assert (handle.state, launcher._live) == ("queued", [handle])
    look(launcher, handle, "NODE_FAIL")
    assert (handle.state, handle.note, handle.assignment.tries) == (
        "waiting",
        "again after its node failed (n1)",
        ("node_failure",),
    )
    assert handle.bad_nodes == ("n1",)
    assert (launcher._live, launcher._queue.waiting) == ([], [handle])
    assert (handle.assignment.batch, handle.assignment.task) in launcher._queue.ended
    launcher._live, handle.job_id, handle.ended_since = [handle], "7", None
    look(launcher, handle, "TIMEOUT")
    failure = handle.job.directory.failure()
    assert failure is not None
    assert failure.error == "the time limit of 240 min was reached (launcher.timeout_min) (after 1 more tries; failed on n1)"
    assert (handle.state, handle.failure, launcher._live, launcher._ended) == ("failed", failure, [], [handle])


def test_an_older_result_or_failure_does_not_end_a_run_that_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher, handle = watched(tmp_path)
    first = claim_in_job(handle.job.directory, tiny_run(), "6", monkeypatch)
    first.fail(ValueError("no letters"))
    look(launcher, handle, "PENDING")
    assert handle.state == "queued"
    first.finish(result(tiny_run(), 1))
    look(launcher, handle, "PENDING")
    assert handle.state == "queued"
    again = claim_in_job(handle.job.directory, tiny_run(), "7", monkeypatch, redo=1)
    look(launcher, handle, "RUNNING")
    assert (handle.state, handle.note) == ("running", "job 7 on n1")
    launcher._states = {}
    launcher._look(handle)  # Slurm does not answer
    assert (handle.state, handle.note) == ("running", "job 7 on n1")
    again.finish(result(tiny_run(), 2))
    launcher._look(handle)
    assert (handle.state, launcher._ended) == ("finished", [handle])


def test_a_run_that_another_process_has_taken_is_left_to_it_once_its_own_job_has_ended(tmp_path: Path) -> None:
    launcher, handle = watched(tmp_path)
    handle.job.directory.claim(tiny_run())
    look(launcher, handle, "PENDING")
    assert handle.state == "queued"
    look(launcher, handle, "CANCELLED")
    assert (handle.state, launcher._ended) == ("elsewhere", [handle])


@pytest.mark.parametrize(
    "settings",
    [
        {"mem_gb": 0}, {"timeout_min": 0}, {"nodes": -1}, {"runs_per_job": "2"}, {"gpus_per_node": -1},
        {"setup": "module load"}, {"signal_seconds": 240 * 60}, {"additional": [1]}, {"partition": ""}, {"oom_retry": 1},
        {"setup": [5]}, {"max_array_size": 0}, {"detach": None},
        {"processes_per_run": 3, "nodes": 2}, {"processes_per_run": True}, {"sharding": "tp"},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused_by_name(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=rf"launcher\.({'|'.join(settings)})="):
        SlurmLauncher(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings", [{"stall_minutes": 0}, {"max_gpu_hours": True}, {"notify": 5}, {"retries": -1}, {"requeue_stalled": "yes"}]
)
def test_watch_settings_out_of_range_are_refused_by_name(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=rf"watch\.{'|'.join(settings)}="):
        Watch.parse(settings)
    with pytest.raises(ConfigError, match=r"unknown key 'watch\.notfy'; did you mean 'notify'"):
        Watch.parse({"notfy": "true"})


def test_a_watch_key_in_a_site_preset_or_under_its_earlier_name_still_counts(tmp_path: Path) -> None:
    (tmp_path / "launcher").mkdir()
    preset = "defaults: [local]\nworkers: 2\nnotify: mail me\nretries: 7\nstall_minutes: 30\n"
    (tmp_path / "launcher" / "site.yaml").write_text(preset)

    def watch(*overrides: str) -> Watch:
        request = read_request(overrides, multirun=False, extra_folder=str(tmp_path))
        assert not set(request.settings["launcher"]) & {"notify", "retries", "stall_minutes"}
        return request.watch

    assert watch() == Watch()
    assert watch("launcher=site") == Watch(notify="mail me", retries=7, stall_minutes=30)
    assert watch("launcher=site", "launcher.notify=null", "watch.retries=1") == Watch(retries=1, stall_minutes=30)
    assert watch("launcher.stall_minutes=5", "launcher.requeue_stalled=true") == Watch(None, 5, True)
    assert watch("launcher=debug", "launcher.max_gpu_hours=2", "launcher.retries=0") == Watch(retries=0, max_gpu_hours=2)
    with pytest.raises(ConfigError, match=r"watch\.notify is one for the whole sweep"):
        read_request(["launcher.notify=a,b"], multirun=True)


def test_more_gpu_hours_than_allowed_need_a_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget(hours=100.0, gpus=2.0, runs=3, unknown=0)
    assert budget.gpu_hours == 200.0
    console = Console()
    approve(budget, None, console)
    approve(budget, 1e9, console)
    approve(replace(budget, gpus=0.0), 1e-9, console)
    with pytest.raises(ConfigError, match=r"of unknown length.*perhaps above watch\.max_gpu_hours"):
        approve(Budget(hours=0.0, gpus=2.0, runs=3, unknown=3), 1e9, console)
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
