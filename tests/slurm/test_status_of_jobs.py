"""The status command on a real cluster."""

import json
from pathlib import Path

import pytest

from efficient_rl.status.__main__ import main
from efficient_rl.status.snapshot import read_status
from efficient_rl.sweep.manifest import find_manifest
from tests.slurm.local_cluster import Cluster, Sweep, wait_until


@pytest.mark.slow
@pytest.mark.usefixtures("no_jobs_left")
def test_jobs_are_seen_waiting_running_and_cancelled(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = tmp_path / "outputs"
    more = ("grpo.max_steps=2000", "seed=0,1", "launcher.array_parallelism=1", "launcher.detach=true", "name=two")
    sweep = Sweep(tmp_path, "-m", "strategy=last_k", *more).start()
    assert sweep.end(60) == 0, sweep.output()
    sweep.wait_steps(2)
    status = read_status(outputs, find_manifest(outputs, "two"))
    assert [row.state for row in status.rows] == ["running", "queued"]
    assert "on n" in status.rows[0].note
    assert "JobArrayTaskLimit" in status.rows[1].note
    assert len(set(status.jobs.values())) == 2
    prefix = status.rows[0].folder.name[:8]
    assert main(["two", f"output={outputs}", "--cancel", prefix]) == 0
    assert "cancelled job" in capsys.readouterr().out

    def states() -> list[str]:
        return [row.state for row in read_status(outputs, find_manifest(outputs, "two")).rows]

    wait_until(lambda: states() == ["failed", "running"], 90, "the second run to take the first one's place")
    assert main(["two", f"output={outputs}", "--json"]) == 1
    first = json.loads(capsys.readouterr().out)["runs"][0]
    assert (first["cause"], first["error"]) == ("cancelled", "cancelled")
    assert main(["two", f"output={outputs}", "--cancel"]) == 0
    wait_until(lambda: states() == ["failed", "failed"], 60, "the end")


@pytest.mark.slow
@pytest.mark.usefixtures("no_jobs_left")
def test_runs_of_one_job_are_told_apart_and_end_together_and_go_on(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = tmp_path / "outputs"
    hungry = ("strategy=full", "strategy._target_=tests.slurm.troubles.Hungry")  # has no memory for 16 completions
    more = (*hungry, "grpo.max_steps=2000", "launcher.runs_per_job=3", "launcher.detach=true", "name=three")
    size = "grpo.per_device_train_batch_size"
    sweep = Sweep(tmp_path, "-m", f"{size}=16,8", "seed=0,1", f"filter={size} == 8 or seed == 0", *more).start()
    assert sweep.end(60) == 0, sweep.output()

    def states() -> list[str]:
        return [row.state for row in read_status(outputs, find_manifest(outputs, "three")).rows]

    wait_until(lambda: states() == ["failed", "running", "queued"], 120, f"one failed, one at work\n{sweep.output()}")
    status = read_status(outputs, find_manifest(outputs, "three"))
    assert "behind others of its job" in status.rows[2].note
    (job,) = set(status.jobs.values())
    keys = [row.folder.name[:8] for row in status.rows]
    assert main(["three", f"output={outputs}", "--cancel", keys[1]]) == 0
    assert capsys.readouterr().out.split("\n") == [
        f"cancelled job {job}",
        f"run {keys[2]} was in the same job and ends with it",
        "",
    ]
    wait_until(lambda: states() == ["failed"] * 3, 90, "the end")
    assert main(["three", f"output={outputs}", "--json"]) == 1
    causes = [run["cause"] for run in json.loads(capsys.readouterr().out)["runs"]]
    assert causes == ["out_of_memory", "cancelled", "cancelled"]
    steps = read_status(outputs, find_manifest(outputs, "three")).rows[1].step
    assert main(["three", f"output={outputs}", "--retry"]) == 0
    wait_until(lambda: states()[1] == "running", 120, "the cancelled run to go on")
    assert set(states()) <= {"running", "queued", "failed"}
    assert read_status(outputs, find_manifest(outputs, "three")).rows[1].step >= steps
    assert main(["three", f"output={outputs}", "--cancel"]) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("no_jobs_left")
def test_a_watched_sweep_is_cancelled_with_its_command_and_a_silent_controller_is_named(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = tmp_path / "outputs"
    more = ("strategy=last_k", "grpo.max_steps=2000", "seed=0,1", "launcher.array_parallelism=1", "name=watched")
    sweep = Sweep(tmp_path, "-m", *more).start()
    sweep.wait_steps(2)
    found = find_manifest(outputs, "watched")
    cluster.kill_daemon("slurmctld")
    try:
        status = read_status(outputs, found)
        assert status.trouble is not None
        assert "squeue" in status.trouble
        assert [row.state for row in status.rows] == ["running", "queued"]
    finally:
        cluster.start()
    assert read_status(outputs, found).trouble is None
    assert main(["watched", f"output={outputs}", "--cancel"]) == 0
    told = capsys.readouterr().out
    assert "stopped the sweep command (process" in told
    assert told.count("cancelled job") == 2
    assert sweep.end(60) == 0

    def states() -> list[str]:
        return [row.state for row in read_status(outputs, found).rows]

    wait_until(lambda: states() == ["failed", "failed"], 60, "the end")
    assert cluster.slurm("squeue", "-h", "-t", "PENDING,RUNNING") == ""


@pytest.mark.slow
@pytest.mark.usefixtures("cluster", "no_jobs_left")
def test_a_job_that_nobody_watched_tells_how_it_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = tmp_path / "outputs"
    small = Sweep(tmp_path, "launcher.mem_gb=0.4", "launcher.detach=true", "seed=1", "name=small").start()
    assert small.end(60) == 0, small.output()
    bare = Sweep(tmp_path, "launcher.setup=[exit 3]", "launcher.detach=true", "seed=2", "name=bare").start()
    assert bare.end(60) == 0, bare.output()
    for name, cause, words in (
        ("small", "not_started", "out of memory"),
        ("bare", "error", "launcher.setup failed with exit status 3, in the line: exit 3"),
    ):
        found = find_manifest(outputs, name)
        wait_until(lambda found=found: read_status(outputs, found).rows[0].state == "failed", 90, f"{name} to end")  # type: ignore[misc]
        assert main([name, f"output={outputs}", "--json"]) == 1
        (run,) = json.loads(capsys.readouterr().out)["runs"]
        assert run["cause"] == cause
        assert words in run["error"]
