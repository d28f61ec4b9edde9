"""The command that submits and watches may be refused, end, be killed and be given again, and its jobs go on."""

import json
import random
import signal
import time
from pathlib import Path

import pytest

from efficient_rl.rundir.directory import RunDirectory
from tests.slurm.local_cluster import Cluster, Sweep, running, wait_until
from tests.slurm.long_run import LONG, OFTEN, assert_same_run

pytestmark = pytest.mark.usefixtures("no_jobs_left")


def test_a_cancelled_job_is_a_failure_with_that_cause_and_the_same_command_goes_on(
    cluster: Cluster, tmp_path: Path, undisturbed: RunDirectory
) -> None:
    sweep = Sweep(tmp_path, *LONG, OFTEN).start()
    (job,) = sweep.wait_steps(15)
    cluster.slurm("scancel", job)
    assert sweep.end() == 1
    failure = sweep.records[0].failure()
    assert failure is not None
    assert failure.cause == "cancelled"
    assert sweep.start().end() == 0, sweep.output()
    assert_same_run(sweep, undisturbed, attempts=2)


@pytest.mark.slow
def test_ctrl_c_leaves_the_jobs_and_the_same_command_finds_them(
    cluster: Cluster, tmp_path: Path, undisturbed: RunDirectory
) -> None:
    sweep = Sweep(tmp_path, *LONG, OFTEN).start()
    (job,) = sweep.wait_steps(5)
    assert sweep.process is not None
    sweep.process.send_signal(signal.SIGINT)
    assert sweep.end(20) == 0
    assert "the jobs continue without this command" in sweep.output()
    assert running(job)
    assert sweep.start().end() == 0, sweep.output()
    assert_same_run(sweep, undisturbed, attempts=1)
    assert sweep.job() == job


def test_detach_returns_at_once_and_a_lost_terminal_is_no_loss(
    cluster: Cluster, tmp_path: Path, undisturbed: RunDirectory
) -> None:
    sweep = Sweep(tmp_path, *LONG, OFTEN).start("launcher.detach=true")
    assert sweep.end(30) == 0
    assert "the jobs continue without this command" in sweep.output()
    sweep.start()
    sweep.wait_steps(5)
    assert sweep.process is not None
    sweep.process.send_signal(signal.SIGHUP)
    sweep.process.wait(timeout=20)
    assert sweep.start().end() == 0, sweep.output()
    assert_same_run(sweep, undisturbed, attempts=1)


@pytest.mark.slow
def test_a_command_killed_at_any_moment_of_its_submission_submits_nothing_twice(cluster: Cluster, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "-m", "strategy=last_k", "seed=range(0,12)", "grpo.max_steps=2", "launcher.runs_per_job=4")
    moments = random.Random(5)
    for _ in range(8):
        sweep.start()
        time.sleep(moments.uniform(0.5, 5.0))
        sweep.kill()
    assert sweep.start().end() == 0, sweep.output()
    assert [record.state() for record in sweep.records] == ["finished"] * 12
    assert [record.newest_attempt() for record in sweep.records] == [1] * 12
    assert sum(json.loads(path.read_text())["job"] is not None for path in tmp_path.glob("outputs/jobs/*/batch.json")) == 1


@pytest.mark.slow
def test_a_request_that_can_never_start_is_refused_in_words(cluster: Cluster, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "strategy=last_k", "launcher.partition=nonesuch").start()
    assert sweep.end(60) == 2
    assert "invalid partition" in sweep.output()
    assert "Traceback" not in sweep.output()


@pytest.mark.slow
def test_more_gpu_hours_than_allowed_are_refused_without_a_terminal(cluster: Cluster, tmp_path: Path) -> None:
    bound = "watch.max_gpu_hours=0.00001"
    sweep = Sweep(tmp_path, "-m", "strategy=last_k", "seed=0,1", "grpo.max_steps=100000", bound).start()
    assert sweep.end(60) == 2
    assert "2 runs to do, of unknown length" in sweep.output()
    assert "perhaps above watch.max_gpu_hours=1e-05" in sweep.output()
    assert not list(tmp_path.glob("outputs/jobs/*/*"))


def test_a_run_is_submitted_once_and_finishes(cluster: Cluster, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "strategy=last_k", "grpo.max_steps=1").start()
    assert sweep.end() == 0, sweep.output()
    (record,) = sweep.records
    assert (record.state(), record.newest_attempt()) == ("finished", 1)
    jobs = [json.loads(path.read_text())["job"] for path in tmp_path.glob("outputs/jobs/*/batch.json")]
    assert jobs == [sweep.job().partition("_")[0]]


@pytest.mark.slow
def test_arrays_keep_to_the_size_and_the_parallelism_that_they_are_given(cluster: Cluster, tmp_path: Path) -> None:
    more = ("launcher.max_array_size=2", "launcher.array_parallelism=1", "grpo.max_steps=1", "seed=range(0,5)")
    sweep = Sweep(tmp_path, "-m", "strategy=last_k", *more).start()
    assert sweep.end() == 0, sweep.output()
    sizes = sorted(len(json.loads(path.read_text())["tasks"]) for path in tmp_path.glob("outputs/jobs/*/batch.json"))
    assert sizes == [1, 2, 2]
    scripts = [path.read_text() for path in tmp_path.glob("outputs/jobs/*/*submission.sh")]
    assert sum("--array=0-1%1" in script for script in scripts) == 2


@pytest.mark.slow
def test_another_launcher_waits_for_the_jobs_of_the_first_and_does_the_rest(
    cluster: Cluster, tmp_path: Path, undisturbed: RunDirectory
) -> None:
    sweep = Sweep(tmp_path, *LONG, OFTEN).start("launcher.detach=true")
    assert sweep.end(30) == 0
    (job,) = sweep.wait_steps(5)
    sweep.overrides = tuple(text for text in sweep.overrides if not text.startswith("launcher"))
    sweep.start("launcher.workers=1")
    wait_until(lambda: "elsewhere" in (tmp_path / "sweep.out").read_text(), 60, "the local command to see the job")
    assert running(job)
    cluster.slurm("scancel", job)  # it writes a checkpoint; then the run is anybody's
    assert sweep.end() == 0, sweep.output()
    assert_same_run(sweep, undisturbed, attempts=2)
    assert sweep.records[0].owner().job is None
