"""The status command shows, ends and tries again what the runs of a sweep do."""

import json
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.result import Failure
from efficient_rl.status.__main__ import end_runs, main, retry_arguments
from efficient_rl.status.snapshot import read_status
from efficient_rl.sweep.lock import active_controllers, registered
from efficient_rl.sweep.manifest import Manifest, find_manifest
from efficient_rl.sweep.request import read_request
from tests.conftest import command, environment, tiny_run, wait_until
from tests.fake_launcher import fake_arguments
from tests.test_snapshot import DIES, manifest, submitted


def test_every_state_is_told_with_its_step_and_its_cause(tmp_path: Path) -> None:
    active, failed, waiting = manifest(tmp_path, "seed=0", "seed=1", "seed=2")
    active.claim(tiny_run("seed=0")).append(2, {"train/reward": 0.25, "time/step_seconds": 3.0})
    with failed.claim(tiny_run("seed=1")):
        failed.record_failure(Failure(1, "out of memory: 7 GiB", "log.txt", "out_of_memory"))
    status = read_status(tmp_path, find_manifest(tmp_path, None))
    assert [row.state for row in status.rows] == ["running", "failed", "waiting"]
    told = status.as_json()
    assert told["counts"] == {"failed": 1, "running": 1, "waiting": 1}
    assert told["runs"][0] | {"step": 2, "max_steps": 3, "reward": 0.25, "seconds_left": 3.0} == told["runs"][0]
    assert (told["runs"][1]["cause"], told["runs"][1]["error"]) == ("out_of_memory", "out of memory: 7 GiB")
    assert (told["runs"][2]["step"], told["runs"][2]["job"]) == (0, None)
    assert waiting.state() == "waiting"


def test_the_exit_status_says_whether_a_run_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, failed = manifest(tmp_path, "seed=0", "seed=1")
    assert main([f"output={tmp_path}"]) == 0
    with failed.claim(tiny_run("seed=1")) as attempt:
        attempt.fail(ValueError("no letters"))
    assert main(["mine", f"output={tmp_path}"]) == 1
    assert main([f"output={tmp_path}", "sweep=mine", "--watch"]) == 1  # nothing goes on: it ends at once
    assert "ValueError: no letters" in capsys.readouterr().out


def test_bad_requests_are_answered_with_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (record,) = manifest(tmp_path, "seed=0")
    at = f"output={tmp_path}"
    for arguments, answer in (
        (["yours", at], "valid: mine"),
        ([at, "mine", "yours"], "'yours': sweep is given twice"),
        ([at, "outptu=x"], "did you mean 'output'"),
        ([at, "--logs", "x"], f"choose of {record.folder.name[:8]}"),
        ([at, "--logs", record.folder.name[:6]], "has written nothing yet"),
        (["--cancel", "mine", at], "begins the hash of 0 runs"),
    ):
        assert main(arguments) == 2
        assert answer in capsys.readouterr().err


def test_logs_are_those_of_the_run_and_of_its_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (record,) = manifest(tmp_path, "seed=0")
    (folder,) = submitted(tmp_path, [tiny_run()]).jobs.glob("efficient_rl-*")
    (folder / "7_0_log.err").write_text("no such module\n")
    assert main([f"output={tmp_path}", "--logs", record.folder.name[:4]]) == 0
    assert capsys.readouterr().out == f"--- {folder}/7_0_log.err\nno such module\n"
    (record.folder / "log.txt").write_text("".join(f"line {number}\n" for number in range(500)))
    assert main([f"output={tmp_path}", "--logs", record.folder.name[:4]]) == 0
    told = capsys.readouterr().out
    assert "line 499\n" in told
    assert "line 399\n" not in told
    assert "no such module" in told


def test_the_command_of_a_retry_is_the_sweeps_own_for_this_folder_without_doing_finished_runs_again(tmp_path: Path) -> None:
    options = tmp_path / "my options"
    options.mkdir()
    overrides = ["strategy=last_k", "force=true", "output=elsewhere", "seed=0,1", "filter=seed < 1"]
    asked = read_request(overrides, multirun=True, extra_folder=str(options))
    told = Manifest("s", asked.command, None, False, ())
    here = (tmp_path / "outputs").resolve()
    kept = ["-m", "--config-dir", str(options), "strategy=last_k", "seed=0,1", "filter=seed < 1"]
    assert retry_arguments(told, here) == kept
    assert retry_arguments(told, tmp_path / "other") == [*kept, f"output={tmp_path / 'other'}"]
    command = shlex.join(["python", "-m", "efficient_rl.sweep", *kept, "launcher.detach=true"])
    again = replace(told, command=command, detaches=True)
    assert retry_arguments(again, here) == [*kept, "launcher.detach=true"]


def test_a_command_is_noted_while_it_works_and_a_killed_one_is_forgotten(tmp_path: Path) -> None:
    with registered(tmp_path):
        (me,) = active_controllers(tmp_path)
        assert me.here
        (tmp_path / "watchers" / "far-12.json").write_text('{"host": "far", "pid": 12}')
        assert [(w.host, w.here) for w in active_controllers(tmp_path) if not w.here] == [("far", False)]
    assert [watcher.host for watcher in active_controllers(tmp_path)] == ["far"]
    note = tmp_path / "watchers" / f"{me.host}-{2**22 + 1}.json"
    note.write_text(json.dumps({"host": me.host, "pid": 2**22 + 1, "created": 1.0}))
    assert [watcher.host for watcher in active_controllers(tmp_path)] == ["far"]
    assert not note.exists()


def test_a_run_of_another_machine_is_named_not_killed(tmp_path: Path) -> None:
    (record,) = manifest(tmp_path, "seed=0")
    record.claim(tiny_run())
    path = record.folder / "attempts" / "000001.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "host": "far"}))
    status = read_status(tmp_path, find_manifest(tmp_path, None))
    assert [row.state for row in status.rows] == ["running"]
    (line,) = end_runs(tmp_path, status, status.rows)
    assert "on far" in line
    assert "cannot be ended from here" in line


def test_a_sweep_at_work_is_seen_and_ended_with_its_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told() -> dict[str, Any]:
        main(["one", "--json"])
        read: dict[str, Any] = json.loads(capsys.readouterr().out)
        return read

    overrides = fake_arguments("strategy=last_k", "grpo.max_steps=600", "launcher.poll_seconds=0.05", "name=one")
    sweep = subprocess.Popen(
        [sys.executable, "-m", "efficient_rl.sweep", *overrides], env=environment(), stdout=-1, stderr=-1
    )
    try:
        wait_until(lambda: bool(list(Path().glob("outputs/runs/*/metrics.jsonl"))), 300, "a step")
        assert [run["state"] for run in told()["runs"]] == ["running"]
        assert [watcher.split(" on ")[0] for watcher in told()["watchers"]] == [f"process {sweep.pid}"]
        assert main(["one", "--cancel"]) == 0
        assert f"stopped the sweep command (process {sweep.pid}" in capsys.readouterr().out
        sweep.communicate(timeout=60)
        assert sweep.returncode == 130
    finally:
        sweep.kill()
        sweep.communicate()
    assert [run["state"] for run in told()["runs"]] == ["waiting"]
    main(["one", "--cancel"])
    assert "nothing is running" in capsys.readouterr().out
    assert main(["one"]) == 0
    assert "use --retry" in capsys.readouterr().out


@pytest.mark.slow
def test_a_local_sweep_is_watched_cancelled_as_a_whole_and_tried_again(tmp_path: Path) -> None:
    def status(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "efficient_rl.status", *arguments]
        return subprocess.run(
            line, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=200, check=False
        )

    overrides = ["-m", "strategy=last_k", "seed=0,1", "grpo.max_steps=60", "tracking=none", "launcher.workers=1", "name=one"]
    sweep = subprocess.Popen(
        command(overrides), cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 300
        while not any(row["step"] >= 2 for r in tmp_path.glob("outputs/runs/*") for row in RunDirectory(r).metrics()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        told = json.loads(status("--json").stdout)
        assert [run["state"] for run in told["runs"]] == ["running", "waiting"]
        assert [watcher.split(" on ")[0] for watcher in told["watchers"]] == [f"process {sweep.pid}"]
        cancelled = status("--cancel", "output=outputs", "one")
        assert f"stopped the sweep command (process {sweep.pid}" in cancelled.stdout, cancelled.stdout + cancelled.stderr
        assert sweep.wait(timeout=30) == 130
    finally:
        if sweep.poll() is None:
            sweep.send_signal(signal.SIGKILL)
            sweep.wait()
    first, second = (RunDirectory(tmp_path / "outputs" / "runs" / run["hash"]) for run in told["runs"])
    assert first.checkpoint() is not None
    assert not (second.folder / "attempts").exists()  # it never began
    assert "nothing is running" in status("--cancel").stdout
    assert "there is nothing to end" in status("--cancel", first.folder.name[:6]).stdout
    assert "use --retry to resume" in status().stdout
    (tmp_path / "outputs" / "jobs").mkdir()  # of another sweep, on a cluster
    again = status("--retry")
    assert again.returncode == 0, again.stdout + again.stderr
    assert [(run["state"], run["step"]) for run in json.loads(status("--json").stdout)["runs"]] == [("finished", 60)] * 2
    assert status("--retry").stdout == "nothing to try again: 2 finished\n"


def test_one_local_run_is_ended_by_the_beginning_of_its_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (record,) = manifest(tmp_path, "seed=0")
    script = f"import time\n{DIES}print('claimed', flush=True)\ntime.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "runs"), "seed=0"],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        assert main([f"output={tmp_path}", "--cancel", record.folder.name[:6]]) == 0
        assert f"asked process {process.pid} on " in capsys.readouterr().out
        assert process.wait(timeout=20) == -signal.SIGTERM
    finally:
        process.kill()
        process.communicate()


def damages(text: str) -> list[str]:
    """The text cut off, no JSON, JSON of another kind, and with one value after another of another type."""
    values = json.loads(text)
    changed = [json.dumps(values | {key: wrong}) for key in values for wrong in ([5], {"a": None}, -1.5, None, "x")]
    missing = [json.dumps({name: value for name, value in values.items() if name != key}) for key in values]
    return [text[: len(text) // 2], "", "\x00", "[]", "7", "null", "{}", *changed, *missing]


def test_damaged_files_give_a_line_that_names_them_and_never_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no Slurm here
    (record,) = manifest(tmp_path, "seed=0")
    ledger = submitted(tmp_path, [tiny_run()])
    record.claim(tiny_run())
    record.record_failure(Failure(1, "an error", "log.txt"))
    (batch,) = ledger.jobs.glob("*/batch.json")
    job, sweep = record.folder / "job.json", tmp_path / "sweeps" / "mine" / "sweep.json"
    for path in (job, batch, sweep, record.folder / "failure.json", record.folder / "attempts" / "000001.json"):
        whole = path.read_text()
        for text in damages(whole):
            path.write_text(text)
            for words in ([], ["--json"], ["--logs", record.folder.name[:6]]):
                status = main([f"output={tmp_path}", "mine", *words])
                told = capsys.readouterr()
                assert status in (0, 1, 2), (path, text)
                assert status != 2 or told.err.count("\n") == 1, told.err
        path.write_text(whole[:-5])
        if path in (job, batch, sweep):
            assert main([f"output={tmp_path}", "mine"]) == 2
            assert f"damaged: {path}" in capsys.readouterr().err
        path.write_text(whole)


def test_a_reader_that_leaves_early_gets_no_traceback(tmp_path: Path) -> None:
    manifest(tmp_path, "seed=0")
    path = tmp_path / "sweeps" / "mine" / "sweep.json"
    listed = json.loads(path.read_text())
    (run,) = listed["runs"]
    many = [run | {"hash": f"{number:016x}"} for number in range(200)]  # more than a pipe holds
    path.write_text(json.dumps(listed | {"runs": many}))
    line = f"{shlex.quote(sys.executable)} -m efficient_rl.status.__main__ output={tmp_path} --json | head -1; "
    line += "exit ${PIPESTATUS[0]}"
    done = subprocess.run(["bash", "-c", line], env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (141, "{\n", "")
