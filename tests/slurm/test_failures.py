"""What goes wrong in a run, on its disk or on the way to the server is told in words and takes nothing else along."""

import json
import subprocess
from pathlib import Path

import pytest

from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.status.snapshot import read_status
from efficient_rl.sweep.manifest import find_manifest
from tests.conftest import reserved_port, tracking_server
from tests.slurm.local_cluster import Cluster, Sweep, wait_until
from tests.slurm.long_run import LONG, OFTEN, STATEFUL, assert_same_run

pytestmark = pytest.mark.usefixtures("no_jobs_left")


@pytest.mark.parametrize(
    ("trouble", "cause", "words"),
    [
        ("Raises", "error", "the fourth batch cannot be scored"),
        pytest.param("Exits", "killed", "exit status 3", marks=pytest.mark.slow),
        pytest.param("Leaves", "killed", "exit status 7", marks=pytest.mark.slow),
        pytest.param("Crashes", "killed", "SIGSEGV", marks=pytest.mark.slow),
        pytest.param("Grows", "out_of_memory", "out of memory", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_fails_says_why_and_leaves_its_neighbours_alone(
    cluster: Cluster, tmp_path: Path, trouble: str, cause: str, words: str
) -> None:
    reward = f"+reward.trouble={{_target_:tests.slurm.troubles.{trouble},weight:1.0}}"
    broken = Sweep(tmp_path, "strategy=last_k", reward, "grpo.max_steps=8", "name=broken").start()
    assert broken.end() == 1, broken.output()
    (record,) = broken.records
    failure = record.failure()
    assert failure is not None
    assert failure.cause == cause
    assert words in failure.error
    assert record.newest_attempt() == 1  # an error of the run is not tried again
    job = broken.job()
    wait_until(lambda: cluster.ended(job).startswith("FAILED"), 60, "a mail of type FAIL")


@pytest.mark.slow
def test_a_failing_run_does_not_take_the_others_of_its_job_with_it(cluster: Cluster, tmp_path: Path) -> None:
    reward = "+reward.trouble={_target_:tests.slurm.troubles.Crashes,weight:1.0}"
    more = ("-m", reward, "strategy=last_k", "grpo.max_steps=2,8,3", "launcher.runs_per_job=3", "launcher.runs_per_gpu=3")
    sweep = Sweep(tmp_path, *more).start()
    assert sweep.end() == 1, sweep.output()
    assert sorted(record.state() for record in sweep.records) == ["failed", "finished", "finished"]
    (job,) = {record.owner().job_id for record in sweep.records}
    wait_until(lambda: cluster.ended(job).startswith("FAILED"), 60, "the accounting of the job's end")
    assert cluster.ended(job) == "FAILED|65:0"
    peaks = [max(r.peak_memory_bytes.values()) for record in sweep.records if (r := record.result()) is not None]
    assert all(0 < peak < 1 << 30 for peak in peaks)


@pytest.mark.slow
def test_out_of_memory_is_tried_once_with_half_the_micro_batch(cluster: Cluster, tmp_path: Path) -> None:
    hungry = ("strategy=full", "strategy._target_=tests.slurm.troubles.Hungry", "grpo.max_steps=3")
    plain = Sweep(tmp_path, *hungry, "name=plain").start()
    assert plain.end() == 1
    failure = plain.records[0].failure()
    assert failure is not None
    assert failure.cause == "out_of_memory"
    assert Sweep(tmp_path, *hungry, "launcher.oom_retry=true").start().end() == 0, plain.output()
    result = plain.records[0].result()
    assert result is not None
    assert result.steps == 3


@pytest.mark.slow
def test_a_stalled_run_is_reported_and_started_again(cluster: Cluster, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    sweep = Sweep(
        tmp_path, "strategy=last_k", "+reward.trouble={_target_:tests.slurm.troubles.Hangs,weight:1.0}",
        "grpo.max_steps=6", "checkpoint_steps=2", "watch.stall_minutes=0.2", "watch.requeue_stalled=true",
        f"watch.notify='cat >> {heard}; echo >> {heard}'",
    ).start()  # fmt: skip
    assert sweep.end() == 0, sweep.output()
    events = [json.loads(line) for line in heard.read_text().splitlines()]
    assert [event["event"] for event in events] == ["stalled", "sweep_ended"]
    assert events[-1]["runs"] == {"finished": 1}
    assert sweep.records[0].newest_attempt() == 2


@pytest.mark.slow
def test_a_full_disk_loses_nothing(cluster: Cluster, tmp_path: Path, undisturbed: RunDirectory) -> None:
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(outputs)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.decode().strip()}")
    try:
        sweep = Sweep(tmp_path, *LONG, OFTEN).start()
        assert sweep.end() == 1, sweep.output()
        (row,) = read_status(outputs, find_manifest(outputs, None)).rows
        assert row.failure is not None
        assert "No space left on device" in row.failure.error, row.failure
        subprocess.run(["mount", "-o", "remount,size=500m", str(outputs)], check=True)
        assert sweep.start().end() == 0, sweep.output()
        assert_same_run(sweep, undisturbed)
    finally:
        subprocess.run(["umount", "-l", str(outputs)], check=True)


@pytest.mark.slow
def test_points_reach_a_tracking_server_that_was_away_once_each(cluster: Cluster, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    with reserved_port() as port:
        sweep = Sweep(tmp_path, *STATEFUL, "grpo.max_steps=200")
        with tracking_server(port, tmp_path / "server.db") as uri:
            sweep.start("tracking=mlflow", f"tracking.uri={uri}", "name=away")
            sweep.wait_steps(10)
        (steps,) = [len(list(record.metrics())) for record in sweep.records]
        sweep.wait_steps(steps + 30)
        with tracking_server(port, tmp_path / "server.db"):
            assert sweep.end() == 0, sweep.output()
            client = MlflowClient(uri)
            experiment = client.get_experiment_by_name("away")
            assert experiment is not None
            (run,) = client.search_runs([experiment.experiment_id], "tags.config_hash != ''")
            points = client.get_metric_history(run.info.run_id, "train/reward")
            assert sorted(point.step for point in points) == list(range(1, 201))
            assert run.info.status == "FINISHED"
