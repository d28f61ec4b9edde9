"""What a run does is told from its directory and from what Slurm says of its job, also where the two disagree."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from efficient_rl.config.run_config import RunConfig
from efficient_rl.errors import ConfigError
from efficient_rl.launch.slurm.commands import JobState
from efficient_rl.launch.slurm.ledger import Ledger
from efficient_rl.rundir.attempt import Attempt
from efficient_rl.rundir.directory import HEARTBEAT_SECONDS, RunDirectory
from efficient_rl.rundir.result import Failure
from efficient_rl.status.snapshot import Observer, find_run, judge, read_status
from efficient_rl.sweep.display import Row
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


def submitted(folder: Path, *tasks: Sequence[RunConfig], job: str = "7") -> Ledger:
    """A ledger in which a batch has these runs, with the id that Slurm gave it."""
    ledger = Ledger(folder)
    batch = ledger.intend("efficient_rl", [[run.config_hash for run in task] for task in tasks], {})
    batch.job = job
    batch.save()
    return ledger


def claim_in_job(record: RunDirectory, config: RunConfig, job: str, monkeypatch: pytest.MonkeyPatch) -> Attempt:
    with monkeypatch.context() as patch:
        patch.setenv("SLURM_JOB_ID", job)
        patch.setenv("SLURMD_NODENAME", "n1")
        return record.claim(config)


def claim_and_die(folder: Path, override: str, **variables: str) -> None:
    """An attempt whose process is gone and left no word."""
    line = [sys.executable, "-c", DIES, str(folder / "runs"), override]
    subprocess.run(line, env=environment(**variables), check=True, timeout=60)


def judged(folder: Path, ledger: Ledger, state: JobState | None, reason: str = "") -> Row:
    config = tiny_run()
    row = Row(folder / "runs" / config.config_hash, "a run", 3)
    judge(row, ledger.job_of(config.config_hash), state, reason, ledger)
    return row


def test_a_job_that_lives_says_whether_a_run_waits_runs_or_waits_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_run()
    ledger, record = submitted(tmp_path, [config]), RunDirectory(tmp_path / "runs" / config.config_hash)
    waits = judged(tmp_path, ledger, JobState("PENDING"), "Priority")
    assert (waits.state, waits.note) == ("queued", "job 7 (Priority)")
    behind = judged(tmp_path, ledger, JobState("RUNNING", node="n1"), "JobArrayTaskLimit")  # of another task of the array
    assert (behind.state, behind.note) == ("queued", "job 7 (starting)")
    claim_in_job(record, config, "7", monkeypatch)
    runs = judged(tmp_path, ledger, JobState("RUNNING", node="n1"))
    assert (runs.state, runs.note) == ("running", "job 7 on n1")
    late = judged(tmp_path, ledger, JobState("PENDING"), "JobArrayTaskLimit")  # the accounting has not heard of the start
    assert (late.state, late.note) == ("running", "job 7 on n1")
    past = time.time() - 2 * HEARTBEAT_SECONDS
    os.utime(record.folder / "attempts" / "000001.json", (past, past))
    assert judged(tmp_path, ledger, JobState("RUNNING", node="n1")).note.startswith("job 7 on n1, no sign for 30 min")
    assert judged(tmp_path, ledger, JobState("PENDING"), "BeginTime").state == "queued"  # put back into the queue


def test_a_run_that_failed_in_a_job_that_goes_on_with_others_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_run()
    ledger, record = submitted(tmp_path, [config, tiny_run("seed=1")]), RunDirectory(tmp_path / "runs" / config.config_hash)
    claim_in_job(record, config, "7", monkeypatch).fail(ValueError("no letters"))
    claim_in_job(
        other := RunDirectory(tmp_path / "runs" / tiny_run("seed=1").config_hash), tiny_run("seed=1"), "7", monkeypatch
    )
    assert other.state() == "running"
    (record.folder / "attempts" / "000001.json").write_text(
        json.dumps({**json.loads((record.folder / "attempts" / "000001.json").read_text()), "pid": 2**22 + 1})
    )  # its process has ended
    row = judged(tmp_path, ledger, JobState("RUNNING", node="n1"))
    assert row.state == "failed"
    assert row.failure == Failure(1, "ValueError: no letters", str(record.folder / "log.txt"))
    (other.folder / "attempts" / "000001.json").unlink()
    ledger = submitted(tmp_path, [tiny_run("seed=2"), config], job="9")
    assert judged(tmp_path, ledger, JobState("RUNNING", node="n1")).note == "job 9 (behind others of its job)"
    again = submitted(tmp_path, [config], job="8")
    assert judged(tmp_path, again, JobState("PENDING")).state == "queued"


@pytest.mark.parametrize(
    ("word", "state", "cause", "words"),
    [
        ("TIMEOUT", "waiting", "time_limit", "the time limit was reached"),
        ("PREEMPTED", "waiting", "preempted", "preempted"),
        ("NODE_FAIL", "waiting", "node_failure", "its node failed"),
        ("OUT_OF_MEMORY", "failed", "out_of_memory", "out of memory"),
        ("CANCELLED", "failed", "cancelled", "cancelled"),
        ("FAILED", "failed", "killed", "exit code 11:0: the last word"),
    ],
)
def test_how_a_job_ended_that_nobody_watched_is_told_in_words(
    tmp_path: Path, word: str, state: str, cause: str, words: str
) -> None:
    config = tiny_run()
    claim_and_die(tmp_path, "seed=0", SLURM_JOB_ID="7", SLURMD_NODENAME="n1")
    ledger = submitted(tmp_path, [config])
    (folder,) = ledger.jobs.glob("efficient_rl-*")
    (folder / "7_0_log.err").write_text("a line\nthe last word\n")
    row = judged(tmp_path, ledger, JobState(word, "11:0"))
    assert row.failure is not None
    assert (row.state, row.failure.cause) == (state, cause)
    assert words in row.failure.error
    assert (words in row.note) == (state == "waiting")


def test_a_job_that_ended_before_its_run_began_gives_its_last_words(tmp_path: Path) -> None:
    ledger = submitted(tmp_path, [tiny_run()])
    (folder,) = ledger.jobs.glob("efficient_rl-*")
    (folder / "7_0_log.err").write_text("module: no such module cuda/99\n")
    row = judged(tmp_path, ledger, JobState("FAILED", "1:0"))
    assert row.failure is not None
    assert (row.state, row.failure.cause) == ("failed", "not_started")
    assert row.failure.error == "its job ended before it began (FAILED, module: no such module cuda/99)"
    (folder / "7_0_log.err").write_text("StepId=7.0 exceeded memory limit, being killed\nTask 0: Killed\n")
    row = judged(tmp_path, ledger, JobState("FAILED", "9:0"))
    assert row.failure is not None
    assert "out of memory" in row.failure.error


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
    assert "is not here" in status.trouble
    assert status.goes_on
    assert status.as_json()["runs"][1]["job"] == "7_1"
    assert waiting.state() == "waiting"


def test_a_later_look_takes_in_only_what_is_new(tmp_path: Path) -> None:
    (record,) = manifest(tmp_path, "seed=0")
    attempt = record.claim(tiny_run())
    attempt.append(1, {"train/reward": 0.5, "time/step_seconds": 3.0})
    observer = Observer(tmp_path, find_manifest(tmp_path, None))
    (row,) = observer.look().rows
    assert (row.step, row.seconds_left()) == (1, 6.0)
    attempt.append(2, {"train/reward": 0.75, "time/step_seconds": 3.0})
    (row,) = observer.look().rows
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
    with pytest.raises(ConfigError, match=r"damaged: .*torn/sweep.json; the command that made a sweep writes its file anew"):
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
