"""Sites on which answers get lost, nothing is accounted, or a job cannot begin: commands of Slurm with a script in front."""

import json
import os
import shutil
from pathlib import Path

import psutil
import pytest

from tests.slurm.local_cluster import Cluster, Sweep, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_jobs_left")]
TIMED_OUT = 'echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2; exit 1'


def put_in_front(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a script called instead of a command; it finds the real one in $REAL."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\nREAL={shutil.which(name)}\n{script}\n")
    path.chmod(0o755)
    if str(path.parent) not in os.environ["PATH"].split(":"):
        monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")


def jobs_called(cluster: Cluster, sweep: Sweep) -> dict[str, int]:
    """How many jobs Slurm has had under the name of each batch of a sweep."""
    names = [path.parent.name for path in sweep.folder.glob("outputs/jobs/*/batch.json")]
    return {name: len(cluster.slurm("sacct", "-X", "-n", "-P", "-o", "JobID", "--name", name).split()) for name in names}


def batches(sweep: Sweep) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sweep.folder.glob("outputs/jobs/*/batch.json")]


@pytest.mark.parametrize("runs", [1, 2])
def test_jobs_that_slurm_took_without_answering_are_found_by_name_and_not_submitted_twice(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: int
) -> None:
    script = f'if mkdir {tmp_path}/lost 2>/dev/null; then "$REAL" "$@" >/dev/null; {TIMED_OUT}; fi; exec "$REAL" "$@"'
    put_in_front(tmp_path, "sbatch", script, monkeypatch)
    sweep = Sweep(tmp_path, "-m", "strategy=last_k", f"seed=range(0,{runs})", "grpo.max_steps=2").start()
    assert sweep.end() == 0, sweep.output()
    assert "wait to be submitted (sbatch: error: Batch job submission failed: Socket timed out" in sweep.output()
    assert [record.newest_attempt() for record in sweep.records] == [1] * runs
    assert list(jobs_called(cluster, sweep).values()) == [runs]
    assert len(list(tmp_path.glob("outputs/jobs/*/*_submitted.pkl"))) == runs  # each task found what it is to do


def test_jobs_that_slurm_never_got_are_submitted_again_once_it_answers_and_does_not_know_them(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_front(
        tmp_path, "sbatch", f'if mkdir {tmp_path}/lost 2>/dev/null; then {TIMED_OUT}; fi; exec "$REAL" "$@"', monkeypatch
    )
    sweep = Sweep(tmp_path, "strategy=last_k", "grpo.max_steps=2").start()
    assert sweep.end() == 0, sweep.output()
    assert sorted((bool(batch["gone"]), batch["job"] is None) for batch in batches(sweep)) == [(False, False), (True, True)]
    assert sorted(jobs_called(cluster, sweep).values()) == [0, 1]


@pytest.mark.parametrize("taken", [True, False])
def test_after_an_odd_answer_the_controller_is_asked_and_nothing_is_submitted_twice(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    odd = 'echo "our filter has a bad day" >&2; exit 1'
    real = '"$REAL" "$@" >/dev/null; ' if taken else ""
    script = f'if mkdir {tmp_path}/lost 2>/dev/null; then {real}{odd}; fi; exec "$REAL" "$@"'
    put_in_front(tmp_path, "sbatch", script, monkeypatch)
    sweep = Sweep(tmp_path, "strategy=last_k", "grpo.max_steps=2").start()
    if not taken:
        assert sweep.end(60) == 2
        assert "sbatch does not tell whether Slurm has the jobs: sbatch: our filter has a bad day" in sweep.output()
        sweep.start()
    assert sweep.end() == 0, sweep.output()
    assert sorted(jobs_called(cluster, sweep).values()) == ([1] if taken else [0, 1])
    assert sweep.records[0].newest_attempt() == 1


@pytest.fixture
def forgetful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A site without accounting, whose controller forgets a job as it ends."""
    put_in_front(tmp_path, "sacct", 'echo "Slurm accounting storage is disabled" >&2; exit 1', monkeypatch)
    put_in_front(tmp_path, "squeue", 'exec "$REAL" "${@/#all/PENDING,RUNNING,COMPLETING,CONFIGURING}"', monkeypatch)


@pytest.mark.usefixtures("forgetful")
def test_a_cancelled_job_is_told_by_its_error_stream_where_slurm_has_forgotten_it(cluster: Cluster, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "strategy=last_k", "grpo.max_steps=2000").start()
    (job,) = sweep.wait_steps(3)
    cluster.slurm("scancel", job)
    assert sweep.end(120) == 1, sweep.output()
    failure = sweep.records[0].failure()
    assert failure is not None
    assert (failure.cause, failure.error) == ("cancelled", "cancelled, by its error stream; Slurm no longer knows its job")
    assert sweep.records[0].newest_attempt() == 1


@pytest.mark.usefixtures("cluster", "forgetful")
def test_a_started_job_that_vanishes_without_a_word_is_tried_again_and_no_more_often_than_retries(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "strategy=last_k", "grpo.max_steps=2000", "watch.retries=1").start()
    sweep.wait_steps(3)
    (record,) = sweep.records
    for attempt in (1, 2):
        wait_until(lambda n=attempt: record.newest_attempt() == n and record.state() == "running", 200, "an attempt")  # type: ignore[misc]
        parents = psutil.Process(record.owner().pid).parents()
        next(parent for parent in parents if "submitit.core._submit" in parent.cmdline()).kill()
    assert sweep.end(120) == 1, sweep.output()
    failure = sweep.records[0].failure()
    assert failure is not None
    assert failure.cause == "node_failure"
    assert "(after 1 more tries)" in failure.error


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("launcher.setup=[echo on,module load cuda/99]", "in the line: module load cuda/99"),
        ("launcher.python=/proc/nonesuch/python", "execve(): /proc/nonesuch/python"),
        ("launcher.python=env nonesuch-python", "nonesuch-python"),
    ],
)
def test_a_job_that_cannot_begin_fails_at_once_with_its_reason_and_its_log(tmp_path: Path, mistake: str, words: str) -> None:
    sweep = Sweep(tmp_path, "strategy=last_k", mistake).start()
    assert sweep.end(120) == 1, sweep.output()
    failure = sweep.records[0].failure()
    assert failure is not None
    assert (failure.cause, len(batches(sweep))) == ("error", 1)
    assert words in failure.error
    assert words in Path(failure.log).read_text()
