"""The run directory survives kills, damage and rivals: nothing is lost, nothing is there twice."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from efficient_rl.rundir.attempt import AlreadyActive, AlreadyFinished, Attempt, AttemptLost
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.process import Owner, SlurmJob, this_process
from efficient_rl.rundir.result import Failure, RunResult
from tests.conftest import environment, tiny_run

EVALUATION = {"accuracy": 0.5, "greedy_accuracy": 0.6, "pass_at_k": 0.7, "standard_error": 0.01, "problems": 9, "samples": 2}
RESULT: dict[str, Any] = {
    "model": "nano", "strategy": "full", "seed": 0, "trainable_params": 1, "mean_active_params": 1.0, "total_params": 1,
    "accuracy": 0.5, "accuracy_before": 0.1, "evaluation": EVALUATION, "evaluation_before": EVALUATION, "final_reward": 0.5,
    "peak_memory_bytes": {},
    "memory_parts_bytes": {}, "phase_seconds": {}, "train_seconds": 1.0, "total_seconds": 2.0, "steps": 3, "tokens": 4,
    "code_version": "x", "attempt": 1, "finished_at": 0.0,
}  # fmt: skip


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / tiny_run().config_hash)


@pytest.fixture
def attempt(directory: RunDirectory) -> Attempt:
    return directory.claim(tiny_run())


def result_of(attempt: Attempt) -> RunResult:
    return RunResult(config_hash=attempt.folder.name, **RESULT)


def elsewhere(attempt: Attempt) -> Path:
    """Make the attempt one of another machine's process; its file."""
    path = attempt.folder / "attempts" / f"{attempt.number:06d}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "host": "another-machine"}))
    return path


def test_finished_means_a_valid_result_and_nothing_else(directory: RunDirectory, attempt: Attempt) -> None:
    assert directory.state() == "running"
    attempt.finish(result_of(attempt))
    assert directory.state() == "finished"
    whole = json.loads((directory.folder / "result.json").read_text())
    typed = [
        whole | change for change in ({"accuracy": "0.5"}, {"accuracy": None}, {"evaluation": {}}, {"accuracy": 10**400})
    ]
    for damage in ("", "{", '{"config_hash": "other"}', "null", "[]", *map(json.dumps, typed)):
        (directory.folder / "result.json").write_text(damage)
        assert directory.result() is None, damage
        assert directory.state() != "finished"


def test_a_result_of_another_run_is_not_this_runs_result(directory: RunDirectory, attempt: Attempt) -> None:
    attempt.finish(RunResult(config_hash="0" * 16, **RESULT))
    assert directory.result() is None


def test_a_live_attempt_refuses_a_second_one(directory: RunDirectory, attempt: Attempt) -> None:
    with pytest.raises(AlreadyActive, match="attempt 1"):
        directory.claim(tiny_run())


def test_of_many_rivals_for_one_run_exactly_one_gets_it(tmp_path: Path) -> None:
    config = tiny_run()
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom tests.conftest import tiny_run\n"
        "from efficient_rl.rundir.attempt import AlreadyActive\n"
        "from efficient_rl.rundir.directory import RunDirectory\nconfig = tiny_run()\n"
        "time.sleep(max(0.0, float(sys.argv[2]) - time.time() - 0.1))\n"
        "while time.time() < float(sys.argv[2]): pass\n"
        "try:\n    RunDirectory(Path(sys.argv[1])).claim(config)\nexcept AlreadyActive: print('refused')\n"
        "else:\n    print('claimed', flush=True)\n    time.sleep(3)\n"
    )
    folder = tmp_path / config.config_hash
    start = str(time.time() + 6)
    rivals = [
        subprocess.Popen([sys.executable, "-c", script, str(folder), start], env=environment(), stdout=-1, text=True)
        for _ in range(5)
    ]
    said = [rival.communicate(timeout=60)[0].strip() for rival in rivals]
    assert sorted(said) == ["claimed"] + ["refused"] * 4


def _claim_and_wait(folder: Path, ready: Any) -> None:
    RunDirectory(folder).claim(tiny_run())
    ready.set()
    time.sleep(60)


def test_the_attempt_of_a_killed_process_is_free_and_the_old_one_can_write_no_more(tmp_path: Path) -> None:
    folder = tmp_path / tiny_run().config_hash
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_claim_and_wait, args=(folder, ready))
    process.start()
    assert ready.wait(60)
    assert RunDirectory(folder).state() == "running"
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert RunDirectory(folder).state() == "waiting"
    newer = RunDirectory(folder).claim(tiny_run())
    assert newer.number == 2
    older = Attempt(folder, 1)  # the first attempt comes back to life
    for write in (
        lambda: older.append(1, {"train/loss": 0.0}),
        lambda: older.finish(result_of(older)),
        lambda: older.write("x", "y"),
    ):
        with pytest.raises(AttemptLost):
            write()
    assert list(RunDirectory(folder).metrics()) == []
    assert RunDirectory(folder).result() is None


def test_an_attempt_elsewhere_is_given_up_when_it_is_silent_for_long(directory: RunDirectory, attempt: Attempt) -> None:
    path = elsewhere(attempt)
    assert directory.state() == "running"
    os.utime(path, (time.time() - 3600, time.time() - 3600))
    assert directory.state() == "waiting"


def test_metrics_cut_off_in_the_middle_are_skipped_and_counted_once(directory: RunDirectory, attempt: Attempt) -> None:
    attempt.append(1, {"train/reward": 0.1})
    with (directory.folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 2, "ti')  # killed while writing
    resumed = directory.claim(tiny_run(), ended_attempts=1)
    resumed.append(1, {"train/reward": 0.9})  # it repeats a step
    resumed.append(2, {"train/reward": 0.2})
    resumed.append(2, {"eval/accuracy": 0.5})
    assert [(row["step"], row["metrics"]) for row in directory.metrics()] == [
        (1, {"train/reward": 0.1}),
        (2, {"train/reward": 0.2}),
        (2, {"eval/accuracy": 0.5}),
    ]
    rows = list(directory.metrics())
    assert [row["step"] for row in directory.metrics(rows[0]["end"])] == [2, 2]


@pytest.mark.parametrize("content", ["{}", "[1]", '{"host": "HOST", "pid": "x", "created": 1}', "", "nonsense"])
def test_an_attempt_that_cannot_be_read_is_nobodys(directory: RunDirectory, attempt: Attempt, content: str) -> None:

    (directory.folder / "attempts" / "000001.json").write_text(content.replace("HOST", socket.gethostname()))
    (directory.folder / "attempts" / "notes.json").write_text("{}")
    assert directory.state() == "waiting"
    assert directory.claim(tiny_run()).number == 2


@pytest.mark.parametrize("line", ['{"step": 1, "time": 0, "metrics": 5}', '{"step": "x", "time": 0, "metrics": {}}', "[]",
                                  '{"step": 1, "time": 0, "metrics": {"train/reward": null}}'])  # fmt: skip
def test_a_metric_line_of_another_shape_is_skipped(directory: RunDirectory, attempt: Attempt, line: str) -> None:
    (directory.folder / "metrics.jsonl").write_text(line + "\n")
    attempt.append(1, {"train/reward": 0.5})
    assert [row["metrics"] for row in directory.metrics()] == [{"train/reward": 0.5}]


def test_force_keeps_the_old_result_aside(directory: RunDirectory, attempt: Attempt) -> None:
    attempt.append(1, {"train/reward": 0.1})
    attempt.finish(result_of(attempt))
    attempt.release()
    directory.claim(tiny_run(), redo_through_attempt=1)
    kept = list((directory.folder / "earlier").glob("*/result.json"))
    assert len(kept) == 1
    assert json.loads(kept[0].read_text())["accuracy"] == 0.5
    assert directory.result() is None
    assert list(directory.metrics()) == []


def test_a_damaged_result_is_kept_and_the_run_done_again(directory: RunDirectory, attempt: Attempt) -> None:
    (directory.folder / "result.json").write_text('{"config_hash":')
    attempt.release()
    directory.claim(tiny_run())
    assert (directory.folder / "result.invalid-2.json").read_text() == '{"config_hash":'


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(directory: RunDirectory, attempt: Attempt) -> None:
    for step in (2, 4):
        folder = attempt.checkpoints / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights" * 100)
        attempt.seal_checkpoint(folder)
    newest = attempt.checkpoints / "checkpoint-4"
    assert directory.checkpoint() == newest
    (newest / "model.safetensors").write_bytes(b"weightz" * 100)  # the same size, one bit away
    assert directory.checkpoint() == attempt.checkpoints / "checkpoint-2"
    (attempt.checkpoints / "checkpoint-2" / "complete.json").write_text('{"gone')
    assert directory.checkpoint() is None


def test_a_full_disk_leaves_no_half_result(directory: RunDirectory, attempt: Attempt) -> None:
    """A real limit on the file size makes the write fail in the middle, as a full disk would."""
    script = (
        "import resource, signal, sys\nfrom pathlib import Path\nfrom efficient_rl.rundir.attempt import Attempt\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "attempt = Attempt(Path(sys.argv[1]), 1)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: attempt.write('result.json', 'x' * 10_000)\nexcept OSError as error: print('refused', error.errno)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(directory.folder)],
        env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "refused" in done.stdout, done.stderr
    assert not (directory.folder / "result.json").exists()
    assert not list(directory.folder.glob(".*draft"))


def test_an_attempt_that_is_known_to_have_failed_keeps_nobody_out(directory: RunDirectory, attempt: Attempt) -> None:
    """A controller may know from the cluster that a job has ended, where its process cannot be seen."""
    elsewhere(attempt)
    with pytest.raises(AlreadyActive):
        directory.claim(tiny_run())
    elsewhere(directory.claim(tiny_run(), ended_attempts=1))
    directory.record_failure(Failure(2, "cancelled", "log.txt", "cancelled"))
    assert directory.claim(tiny_run()).number == 3


def test_a_later_start_of_the_same_cluster_job_takes_over_and_the_earlier_writes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_run()
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    directory = RunDirectory(tmp_path / config.config_hash)
    first = directory.claim(config)
    with pytest.raises(AlreadyActive):
        directory.claim(config)
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with pytest.raises(AlreadyActive):
        directory.claim(config)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    directory.claim(config)
    for write in (
        lambda: first.append(1, {"train/reward": 1.0}),
        lambda: first.write("x.json", "{}"),
        lambda: first.append_rows("completions.jsonl", [{"step": 1}]),
        lambda: first.finish(result_of(first)),
        lambda: first.seal_checkpoint(first.checkpoints),
    ):
        with pytest.raises(AttemptLost):
            write()
    assert not (first.folder / "result.json").exists()


def test_a_finished_run_is_not_claimed_again_but_for_force(directory: RunDirectory, attempt: Attempt) -> None:
    attempt.finish(result_of(attempt))
    attempt.release()
    with pytest.raises(AlreadyFinished):
        directory.claim(tiny_run())
    with pytest.raises(AlreadyFinished):
        directory.claim(tiny_run(), redo_through_attempt=0)  # its result is newer than what was to be done again
    directory.claim(tiny_run(), redo_through_attempt=1)
    assert directory.result() is None


def test_a_context_releases_the_run_while_its_process_lives_on(directory: RunDirectory, attempt: Attempt) -> None:
    with attempt:
        assert directory.state() == "running"
    assert directory.state() == "waiting"
    assert directory.owner() is None
    assert directory.claim(tiny_run()).number == 2


def test_an_owner_reads_back_as_written_and_anything_else_is_nobody() -> None:
    me = this_process()
    assert Owner.parse(me.to_json()) == me
    assert me.is_here
    assert me.is_alive()
    assert not replace(me, created=me.created - 60).is_alive()  # another process with the same pid
    in_job = replace(me, job=SlurmJob("12_3", 1, "n1"))
    assert Owner.parse(in_job.to_json()) == in_job
    assert (in_job.job_id, in_job.node, me.node) == ("12_3", "n1", me.host)
    plain = json.loads(in_job.to_json())
    wrong = [plain | {key: value} for key in plain for value in ([5], {"id": 7}, "x" if key != "host" else 7)]
    for text in ('{"released": 1.0}', "[]", "null", "", '{"host": "h"}', *map(json.dumps, wrong)):
        assert Owner.parse(text) is None, text
