"""What a run does is told from its directory and from what Slurm says of its job, also where the two disagree."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from efficient_rl.config.run_config import RunConfig
from efficient_rl.errors import ConfigError
from efficient_rl.launch.slurm import commands
from efficient_rl.launch.slurm.commands import JobState
from efficient_rl.launch.slurm.ledger import Ledger
from efficient_rl.launch.slurm.submit import SETTLE_SECONDS, submission_lock
from efficient_rl.rundir.attempt import Attempt
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.result import Failure
from efficient_rl.status.snapshot import Observer, find_run, read_status
from efficient_rl.sweep.manifest import find_manifest
from tests.conftest import ROOT, environment, tiny_run

DIES = (
    "import sys\nfrom pathlib import Path\n"
    "from efficient_rl.config.compose import expand\nfrom efficient_rl.config.run_config import parse_run\n"
    "from efficient_rl.rundir.directory import RunDirectory\nfrom tests.conftest import TINY\n"
    "config = parse_run(expand([*TINY, sys.argv[2]])[0])\n"
    "RunDirectory(Path(sys.argv[1]) / config.config_hash).claim(config)\n"
)


def manifest(folder: Path, *runs: str, name: str = "mine", created: float = 1.0) -> list[RunDirectory]:
    """A sweep's manifest in an output folder, and the records of its runs."""
    configs = [tiny_run(run) for run in runs]
    listed = [{"hash": c.config_hash, "label": f"run {i}", "params": c.flat()} for i, c in enumerate(configs)]
    path = folder / "sweeps" / name / "sweep.json"
    path.parent.mkdir(parents=True)
    told = {"name": name, "created": created, "command": "python -m efficient_rl.sweep", "question": None, "runs": listed}
    path.write_text(json.dumps(told))
    return [RunDirectory(folder / "runs" / config.config_hash) for config in configs]


def submitted(folder: Path, *tasks: Sequence[RunConfig], job: str | None = "7") -> Ledger:
    """A ledger in which a batch has these runs, with the id that Slurm gave it."""
    ledger = Ledger(folder)
    batch = ledger.record_submission("efficient_rl", [[run.config_hash for run in task] for task in tasks], {})
    batch.job = job
    batch.save()
    return ledger


def claim_in_job(
    record: RunDirectory, config: RunConfig, job: str, monkeypatch: pytest.MonkeyPatch, redo: int | None = None
) -> Attempt:
    with monkeypatch.context() as patch:
        patch.setenv("SLURM_JOB_ID", job)
        patch.setenv("SLURMD_NODENAME", "n1")
        return record.claim(config, redo)


def claim_and_die(folder: Path, override: str, **variables: str) -> None:
    """An attempt whose process is gone and left no word."""
    line = [sys.executable, "-c", DIES, str(folder / "runs"), override]
    subprocess.run(line, env=environment(**variables), check=True, timeout=60)


def test_rows_name_job_and_node_the_reason_to_wait_and_how_a_job_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("seed=0", "seed=1", "seed=2", "seed=3", "seed=4", "seed=5")
    first, *_, lost = manifest(tmp_path, *names)
    ledger = submitted(tmp_path, *([tiny_run(name)] for name in names[:4]))
    submitted(tmp_path, [tiny_run("seed=4")], job="8")
    submitted(tmp_path, [tiny_run("seed=5")], job="9")
    claim_in_job(lost, tiny_run("seed=5"), "9", monkeypatch)
    attempt = lost.folder / "attempts" / "000001.json"  # of another machine, whose heartbeat is young
    attempt.write_text(attempt.read_text().replace(socket.gethostname(), "far"))
    (log,) = ledger.jobs.glob(f"{ledger.assignment(lost.folder.name).batch}*")  # type: ignore[union-attr]
    (log / "9_0_log.err").write_text("StepId=9.0 exceeded memory limit (2 > 1), being killed\n")
    claim_in_job(first, tiny_run("seed=0"), "7_0", monkeypatch)
    claim_and_die(tmp_path, "seed=1", SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID="1", SLURM_JOB_ID="9")
    (folder,) = ledger.jobs.glob(f"{ledger.assignment(first.folder.name).batch}*")  # type: ignore[union-attr]
    (folder / "7_1_0_log.err").write_text("a line\nthe last word\n")
    (folder / "7_2_0_log.err").write_text("module: no such module cuda/99\n")
    words = {"7_0": "RUNNING", "7_1": "FAILED", "7_2": "FAILED", "7_3": "PENDING", "8": "TIMEOUT", "9": "FAILED"}
    states = {job: JobState(word, "11:0", "n1") for job, word in words.items()}
    states["7_3"] = JobState("PENDING", reason="PartitionTimeLimit")
    monkeypatch.setattr(commands, "job_states", lambda ids: {job: states[job] for job in ids})
    status = read_status(tmp_path, find_manifest(tmp_path, None))
    assert [(str(row.state), row.note) for row in status.rows] == [
        ("running", "job 7_0 on n1"),
        ("failed", "job 7_1"),
        ("failed", "job 7_2"),
        ("queued", "job 7_3 (PartitionTimeLimit)"),
        ("waiting", "job 8, the time limit was reached (launcher.timeout_min)"),
        ("failed", "job 9"),
    ]
    assert status.as_json()["runs"][-1]["cause"] == "out_of_memory"
    (stuck,) = status.as_json()["warnings"]
    assert re.fullmatch(r"job 7_3 will not start by itself \(PartitionTimeLimit\): .* a smaller launcher.timeout_min", stuck)
    failed, unstarted = (row.failure for row in status.rows[1:3])
    told = "its job ended as FAILED with exit code 11:0 (SIGSEGV): the last word"
    assert failed == Failure(1, told, status.rows[1].log, "killed")
    assert status.rows[1].log.endswith("log.txt")
    assert unstarted is not None
    assert (unstarted.cause, unstarted.log) == ("not_started", str(folder / "7_2_0_log.err"))
    assert unstarted.error == "its job ended on n1 before it began (FAILED, module: no such module cuda/99)"


def test_a_batch_without_an_id_is_looked_for_by_name_and_given_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest(tmp_path, "seed=0")
    ledger = submitted(tmp_path, [tiny_run()], job=None)
    (path,) = ledger.jobs.glob("*/batch.json")
    monkeypatch.setattr(commands, "find_job", lambda name: None)
    monkeypatch.setattr(commands, "job_states", lambda ids: {job: JobState("PENDING") for job in ids})

    def status() -> tuple[str, str | None, bool]:
        found = read_status(tmp_path, find_manifest(tmp_path, None))
        return found.rows[0].state, found.trouble, found.may_change

    assert status() == ("waiting", f"sbatch did not answer whether Slurm has the jobs {path.parent.name}", True)
    with submission_lock(ledger):
        assert status() == ("waiting", f"another command is submitting jobs: {path.parent.name}", True)
    monkeypatch.setattr(commands, "find_job", lambda name: "7")
    assert status() == ("queued", None, True)
    assert json.loads(path.read_text())["job"] == "7"
    submitted(tmp_path, [tiny_run()], job=None)
    monkeypatch.setattr(commands, "find_job", lambda name: None)
    for batch in ledger.jobs.glob("*/batch.json"):
        past = time.time() - 2 * SETTLE_SECONDS
        os.utime(batch, (past, past))
    assert status() == ("waiting", None, False)


def test_work_on_this_machine_after_a_cluster_job_is_no_longer_that_jobs(tmp_path: Path) -> None:
    (record,) = manifest(tmp_path, "seed=0")
    submitted(tmp_path, [tiny_run()])
    past = time.time() - 60
    os.utime(record.folder / "job.json", (past, past))
    record.claim(tiny_run())
    status = read_status(tmp_path, find_manifest(tmp_path, None))
    assert (status.rows[0].state, dict(status.jobs), status.trouble) == ("running", {}, None)


def test_a_scheduler_that_does_not_answer_is_named_and_the_directories_still_speak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    active, waiting = manifest(tmp_path, "seed=0", "seed=1")
    submitted(tmp_path, [tiny_run()], [tiny_run("seed=1")])
    claim_in_job(active, tiny_run(), "7_0", monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))  # no Slurm here
    status = read_status(tmp_path, find_manifest(tmp_path, None))
    assert [row.state for row in status.rows] == ["running", "waiting"]
    assert status.trouble is not None
    assert "is not installed here" in status.trouble
    assert status.may_change
    assert status.as_json()["runs"][1]["job"] == "7_1"
    assert waiting.state() == "waiting"


def test_a_later_look_takes_in_only_what_is_new(tmp_path: Path) -> None:
    (record,) = manifest(tmp_path, "seed=0")
    attempt = record.claim(tiny_run())
    attempt.append(1, {"train/reward": 0.5, "time/step_seconds": 3.0})
    observer = Observer(tmp_path, find_manifest(tmp_path, None))
    (row,) = observer.refresh().rows
    assert (row.step, row.seconds_left()) == (1, 6.0)
    attempt.append(2, {"train/reward": 0.75, "time/step_seconds": 3.0})
    (row,) = observer.refresh().rows
    assert (row.step, row.reward, row.step_seconds) == (2, 0.75, [3.0, 3.0])


def test_the_newest_whole_manifest_is_taken_where_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no sweep in"):
        find_manifest(tmp_path, None)
    manifest(tmp_path, "seed=1", name="second", created=2.0)
    manifest(tmp_path, "seed=0", name="first", created=1.0)
    manifest(tmp_path, "seed=0", name="torn", created=3.0)
    (tmp_path / "sweeps" / "torn" / "sweep.json").write_text('{"name": "torn", "runs"')
    assert find_manifest(tmp_path, None).name == "second"
    assert find_manifest(tmp_path, "first").name == "first"
    with pytest.raises(ConfigError, match=r"damaged: .*torn/sweep.json; the command that made a sweep rewrites its file"):
        find_manifest(tmp_path, "torn")
    with pytest.raises(ConfigError, match=r"unknown sweep 'fist'; did you mean 'first'"):
        find_manifest(tmp_path, "fist")


def test_the_beginning_of_a_hash_names_one_run_or_the_error_lists_them() -> None:
    keys = ["abcd000011112222", "abff000011112222", "1234000011112222"]
    assert find_run(keys, "abc") == keys[0]
    with pytest.raises(ConfigError, match=r"'ab' begins the hash of 2 runs of this sweep, .* choose of abcd0000, abff0000$"):
        find_run(keys, "ab")
    with pytest.raises(ConfigError, match=r"'x' begins the hash of 0 runs .* choose of abcd0000, abff0000, 12340000$"):
        find_run(keys, "x")


def test_the_page_names_every_key_of_the_json(tmp_path: Path) -> None:
    manifest(tmp_path, "seed=0")
    told = read_status(tmp_path, find_manifest(tmp_path, None)).as_json()
    named = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "cluster.md").read_text().split("## Watching")[1].split("\n## ")[0]))
    assert set(told) | set(told["runs"][0]) <= named
