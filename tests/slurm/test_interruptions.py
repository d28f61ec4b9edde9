"""A run that the cluster takes away goes on elsewhere: nothing lost, nothing twice, the weights of an undisturbed run."""

import json
import re
import time
from pathlib import Path

import pytest

from efficient_rl.rundir.directory import RunDirectory
from tests.conftest import execute_tiny
from tests.slurm.local_cluster import Cluster, Sweep, wait_until
from tests.slurm.long_run import LONG, OFTEN, STATEFUL, assert_same_run

SLOW = (*STATEFUL, "grpo.max_steps=300")

pytestmark = pytest.mark.usefixtures("no_jobs_left")


def slow(seconds: float) -> str:
    return f"+reward.slow={{_target_:tests.slurm.troubles.Slow,seconds:{seconds},weight:1.0}}"


@pytest.fixture(scope="module")
def undisturbed_slow(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run that takes its time on the cluster, done here without waiting."""
    return execute_tiny(tmp_path_factory.mktemp("slow"), *SLOW, slow(0.0))[1]


def go_on_after(signal: str, cluster: Cluster, folder: Path, undisturbed: RunDirectory) -> tuple[Sweep, str]:
    """Send the job of a run a signal after 15 steps; the sweep, which ended as if undisturbed, and that job."""
    sweep = Sweep(folder, *LONG).start()  # only the checkpoint that the signal asks for
    (job,) = sweep.wait_steps(15)
    cluster.slurm("scancel", f"--signal={signal}", job)
    assert sweep.end() == 0, sweep.output()
    assert_same_run(sweep, undisturbed, attempts=2)
    log = (sweep.records[0].folder / "log.txt").read_text()
    assert int(re.findall(r"resuming from .*checkpoint-(\d+)", log)[-1]) >= 15
    return sweep, job


def test_a_preempted_run_is_requeued_and_goes_on_exactly(
    cluster: Cluster, tmp_path: Path, undisturbed: RunDirectory
) -> None:
    sweep, job = go_on_after("USR2", cluster, tmp_path, undisturbed)
    assert sweep.job() == job


@pytest.mark.slow
def test_a_job_asked_to_end_writes_a_checkpoint_and_a_new_job_goes_on_exactly(
    cluster: Cluster, tmp_path: Path, undisturbed: RunDirectory
) -> None:
    sweep, job = go_on_after("TERM", cluster, tmp_path, undisturbed)
    wait_until(lambda: cluster.ended(job).startswith("FAILED"), 60, "the accounting of the end of the job")
    assert cluster.ended(job) == "FAILED|15:0"
    assert "starts again: preempted or asked to stop" in sweep.output()
    assert sweep.job() != job


@pytest.mark.slow
def test_a_suspended_run_is_not_taken_for_stalled_and_goes_on(
    cluster: Cluster, tmp_path: Path, undisturbed: RunDirectory
) -> None:
    sweep = Sweep(tmp_path, *LONG, "watch.stall_minutes=0.15", "watch.requeue_stalled=true").start()
    (job,) = sweep.wait_steps(15)
    cluster.slurm("scontrol", "suspend", job)
    wait_until(lambda: "(suspended)" in sweep.output(), 60, f"the suspension\n{sweep.output()}")
    time.sleep(20)
    cluster.slurm("scontrol", "resume", job)
    assert sweep.end() == 0, sweep.output()
    assert "stalled" not in sweep.output()
    assert_same_run(sweep, undisturbed, attempts=1)


@pytest.mark.slow
def test_a_run_longer_than_two_time_limits_goes_on_in_the_next_job(
    cluster: Cluster, tmp_path: Path, undisturbed_slow: RunDirectory
) -> None:
    limits = ("launcher.timeout_min=2", "launcher.signal_seconds=30")  # Slurm may signal up to a minute early
    sweep = Sweep(tmp_path, *SLOW, slow(0.8), "checkpoint_steps=100000", *limits).start()
    wait_until(lambda: len(list(tmp_path.glob("outputs/runs/*/attempts/000003.json"))) == 1, 500, "a third attempt")
    cluster.slurm("scontrol", "update", f"JobId={sweep.job()}", "TimeLimit=60")  # the rest may take its time
    assert sweep.end(400) == 0, sweep.output()
    assert_same_run(sweep, undisturbed_slow)
    log = (sweep.records[0].folder / "log.txt").read_text()
    resumed = [int(step) for step in re.findall(r"resuming from .*checkpoint-(\d+)", log)]
    assert len(resumed) >= 2
    assert resumed == sorted(set(resumed))


@pytest.mark.slow
def test_a_run_requeued_by_hand_goes_on_from_its_checkpoint(
    cluster: Cluster, tmp_path: Path, undisturbed: RunDirectory
) -> None:
    sweep = Sweep(tmp_path, *LONG, OFTEN).start()
    (job,) = sweep.wait_steps(15)
    cluster.slurm("scontrol", "requeue", job)
    assert sweep.end() == 0, sweep.output()
    assert_same_run(sweep, undisturbed)


@pytest.mark.slow
def test_a_run_in_a_low_partition_makes_room_and_goes_on(
    cluster: Cluster, tmp_path: Path, undisturbed_slow: RunDirectory
) -> None:
    """The run takes half a minute beside its steps, so that it is preempted before it ends."""
    sweep = Sweep(tmp_path, *SLOW, slow(0.1), "launcher.partition=low").start()
    sweep.wait_steps(15)
    request = ("-p", "main", "-N", "4", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 3")
    preemptor = cluster.slurm("sbatch", "--parsable", *request).strip()
    wait_until(
        lambda: "COMPLETED" in cluster.slurm("sacct", "-X", "-n", "-j", preemptor, "-o", "State"), 120, "the preemptor"
    )
    assert sweep.records[0].result() is None  # it is the preemptor that has made the run wait
    assert sweep.end() == 0, sweep.output()
    assert_same_run(sweep, undisturbed_slow, attempts=2)


def test_a_crashed_node_gives_its_run_to_another(cluster: Cluster, tmp_path: Path, undisturbed: RunDirectory) -> None:
    sweep = Sweep(tmp_path, *LONG, OFTEN).start()
    sweep.wait_steps(15)
    node = sweep.records[0].owner().node
    cluster.control("crash", node)
    try:
        assert sweep.end() == 0, sweep.output()
        assert_same_run(sweep, undisturbed, attempts=2)
        assert sweep.records[0].owner().node != node
    finally:
        cluster.start()


@pytest.mark.slow
def test_of_two_live_copies_of_a_run_only_the_newer_writes(
    cluster: Cluster, tmp_path: Path, undisturbed_slow: RunDirectory
) -> None:
    """The node's daemon dies and its processes live: Slurm starts the run elsewhere while the old copy still trains."""
    sweep = Sweep(tmp_path, *SLOW, slow(0.5), OFTEN).start()
    sweep.wait_steps(10)
    (record,) = sweep.records
    cluster.kill_daemon(record.owner().node)
    try:
        wait_until(lambda: record.newest_attempt() == 2, 200, "the second copy")
        wait_until(lambda: "is no longer the newest" in (record.folder / "log.txt").read_text(), 60, "the end of the first")
        assert sweep.end() == 0, sweep.output()
        assert_same_run(sweep, undisturbed_slow, attempts=2)
        lines = [json.loads(line) for line in (record.folder / "metrics.jsonl").read_text().splitlines()]
        by_attempt = [line["attempt"] for line in lines]
        assert by_attempt == sorted(by_attempt)
        assert len({(line["step"], "eval/accuracy" in line["metrics"]) for line in lines}) == len(lines)
    finally:
        cluster.start()


def test_a_restarted_controller_changes_nothing(cluster: Cluster, tmp_path: Path, undisturbed: RunDirectory) -> None:
    sweep = Sweep(tmp_path, *LONG, OFTEN).start()
    sweep.wait_steps(10)
    cluster.kill_daemon("slurmctld")
    time.sleep(8)  # the watcher asks and gets no answer
    cluster.start()
    assert sweep.end() == 0, sweep.output()
    assert_same_run(sweep, undisturbed, attempts=1)


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_a_run_over_two_processes_or_nodes_survives_a_preemption(cluster: Cluster, tmp_path: Path, nodes: int) -> None:
    more = (f"launcher.nodes={nodes}", f"launcher.gpus_per_node={3 - nodes}", "launcher.processes_per_run=2")
    run = ("strategy=last_k", "grpo.max_steps=80")
    sweep = Sweep(tmp_path, *run).start(*more)
    (job,) = sweep.wait_steps(10)
    cluster.slurm("scancel", "--signal=USR2", job)
    assert sweep.end() == 0, sweep.output()
    (record,) = sweep.records
    result, alone = record.result(), execute_tiny(tmp_path / "alone", *run)[0]
    assert result is not None
    assert record.newest_attempt() == 2
    assert result.final_reward == pytest.approx(alone.final_reward, abs=0.02)  # 80 steps let rounding grow
    assert [row["step"] for row in record.metrics()] == [*range(81), 80]
