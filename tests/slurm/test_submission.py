"""What a job inherits and asks for, what becomes of it where it cannot start, and what a command says that leaves."""

import json
import re
import sys
from pathlib import Path

import pytest

from efficient_rl.status.snapshot import read_status
from efficient_rl.sweep.manifest import find_manifest
from tests.slurm.local_cluster import Cluster, Sweep, wait_until
from tests.slurm.test_odd_sites import batches, jobs_called, put_in_front

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_jobs_left")]
ONE_STEP = ("strategy=last_k", "grpo.max_steps=1")
GROUP = {
    "RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "10.255.255.1", "MASTER_PORT": "1",
    "OMPI_COMM_WORLD_SIZE": "8", "PMI_SIZE": "8",
}  # fmt: skip
OF_A_SITE = {"SBATCH_EXPORT": "NONE", "SLURM_EXPORT_ENV": "NONE", "SBATCH_PARTITION": "nonesuch", "SQUEUE_PARTITION": "low"}


def test_jobs_submitted_from_an_allocation_do_not_inherit_it(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = cluster.slurm("salloc", "-Q", "--mem-per-cpu=100", "srun", "-c", "1", "env").splitlines()
    allocation = dict(line.split("=", 1) for line in inside if line.startswith(("SLURM", "SRUN")))
    assert allocation["SLURM_MEM_PER_CPU"] == "100"
    for name, value in (allocation | GROUP | OF_A_SITE).items():
        monkeypatch.setenv(name, value)
    sweep = Sweep(tmp_path, *ONE_STEP).start("-m", "seed=0,1")
    assert sweep.end(200) == 0, sweep.output()
    assert [record.newest_attempt() for record in sweep.records] == [1, 1]


def test_jobs_under_a_wrapper_that_talks_are_submitted_once(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_front(tmp_path, "sbatch", 'echo "job 1 of 1"; exec "$REAL" "$@"', monkeypatch)
    sweep = Sweep(tmp_path, *ONE_STEP, "name=talks").start("-m", "seed=0,1")
    assert sweep.end(200) == 0, sweep.output()
    calls = jobs_called(cluster, sweep)
    assert list(calls.values()) == [2]
    assert all(name.startswith("talks-") for name in calls)


def test_a_bad_node_is_named_and_gets_no_second_try(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "python"
    bad = 'if [ "$SLURMD_NODENAME" = n1 ]; then echo "no such device" >&2; exit 1; fi'
    script.write_text(f'#!/bin/bash\n{bad}\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    sweep = Sweep(tmp_path, *ONE_STEP, f"launcher.python={script}").start()
    assert sweep.end(200) == 0, sweep.output()
    (record,) = sweep.records
    assert record.owner().node != "n1"
    said = "starts again on another node than n1: its job ended on n1 before it began (FAILED, no such device)"
    assert sweep.output().count(said) == 1
    assert len(batches(sweep)) == 2


def test_detach_says_what_was_not_submitted_and_the_same_command_submits_it(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The cluster of the tests enforces no limits. This one takes one job until there is `more`.
    limit = 'echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1'
    room = f"[ -e {tmp_path}/more ] || mkdir {tmp_path}/one 2>/dev/null || {{ {limit}; }}"
    put_in_front(tmp_path, "sbatch", f'{room}; exec "$REAL" "$@"', monkeypatch)
    sweep = Sweep(tmp_path, *ONE_STEP, "launcher.detach=true", "launcher.max_array_size=1").start("-m", "seed=0,1,2")
    assert sweep.end(60) == 1, sweep.output()
    told = "1 of 3 submitted, 2 wait for nobody (refused at the site's limit on jobs); the same command submits them"
    assert told in sweep.output()
    (tmp_path / "more").touch()
    assert sweep.start("-m", "seed=0,1,2").end(60) == 0, sweep.output()
    wait_until(lambda: sum(jobs_called(cluster, sweep).values()) == 3, 100, "the accounting")
    assert sorted(jobs_called(cluster, sweep).values()) == [0, 1, 1, 1]  # one refused


def test_detach_without_a_controller_does_not_say_that_jobs_go_on(cluster: Cluster, tmp_path: Path) -> None:
    cluster.kill_daemon("slurmctld")
    try:
        sweep = Sweep(tmp_path, *ONE_STEP, "launcher.detach=true").start()
        assert sweep.end(200) == 1, sweep.output()
        assert "0 of 1 submitted, 1 wait for nobody (unknown whether Slurm has it" in sweep.output()
        assert "the jobs continue" not in sweep.output()
    finally:
        cluster.start()


def test_an_option_that_sbatch_does_not_know_is_refused_in_its_words(cluster: Cluster, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, *ONE_STEP, "launcher.additional={foo: 5}", "launcher.detach=true").start()
    assert sweep.end(60) == 2, sweep.output()
    assert "error: the cluster refused the jobs: sbatch: unrecognized option '--foo=5'; `python" in sweep.output()
    assert [batch["gone"] for batch in batches(sweep)] == [True]


def test_a_detached_command_after_a_cancel_submits_again(cluster: Cluster, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "strategy=last_k", "grpo.max_steps=2000", "launcher.detach=true").start()
    assert sweep.end(60) == 0, sweep.output()
    (job,) = sweep.wait_steps(3)
    cluster.slurm("scancel", job)  # the run writes its checkpoint now, and the accounting still says that the job runs
    assert sweep.start().end(100) == 0, sweep.output()
    (again,) = cluster.slurm("squeue", "-h", "-o", "%i").split()
    assert again != job
    sweep.wait_steps(4)


def test_a_job_beyond_the_partitions_time_is_told_by_every_command(cluster: Cluster, tmp_path: Path) -> None:
    cluster.slurm("scontrol", "update", "PartitionName=main", "MaxTime=30")
    try:
        sweep = Sweep(tmp_path, *ONE_STEP, "name=long").start()
        words = r"job \d+ will not start by itself \(PartitionTimeLimit\): .* a smaller launcher.timeout_min"
        wait_until(lambda: re.search(words, sweep.output()) is not None, 100, f"a warning\n{sweep.output()}")
        (warning,) = read_status(tmp_path / "outputs", find_manifest(tmp_path / "outputs", "long")).warnings
        assert re.fullmatch(words, warning)
    finally:
        cluster.slurm("scontrol", "update", "PartitionName=main", "MaxTime=UNLIMITED")


def test_a_held_job_is_told_with_the_command_that_releases_it(cluster: Cluster, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, *ONE_STEP, "launcher.additional={hold: true}").start()
    words = r"job (\d+) will not start by itself \(JobHeldUser\): `(scontrol release \d+)` lets it start"
    wait_until(lambda: re.search(words, sweep.output()) is not None, 100, "a warning")
    found = re.search(words, sweep.output())
    assert found is not None
    cluster.slurm(*found[2].split())
    assert sweep.end(200) == 0, sweep.output()


def test_a_dependency_that_has_failed_is_told(cluster: Cluster, tmp_path: Path) -> None:
    failed = cluster.slurm("sbatch", "--parsable", "-o", "/dev/null", "--wrap", "exit 1").strip()
    wait_until(lambda: "FAILED" in cluster.slurm("sacct", "-X", "-n", "-j", failed, "-o", "State"), 60, "a failed job")
    sweep = Sweep(tmp_path, *ONE_STEP, f"launcher.additional={{dependency: 'afterok:{failed}'}}").start()
    words = "(DependencyNeverSatisfied): cancel it"
    wait_until(lambda: words in sweep.output(), 100, f"a warning\n{sweep.output()}")
    assert json.loads(next(tmp_path.glob("outputs/jobs/*/batch.json")).read_text())["job"] in sweep.output()
