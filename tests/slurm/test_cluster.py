"""Whatever a cluster does to a run: nothing is lost, nothing done twice, and the weights are those of an undisturbed run."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from efficient_rl.record import Record
from tests.conftest import environment, execute_tiny
from tests.slurm.local_cluster import Cluster, Sweep, running, wait_until

STEPS = 120
LONG = (  # everything that has a state: a dynamic strategy, a curriculum, a reference, an optimizer
    "strategy=lisa",
    "strategy.interval=5",
    "curriculum=adarft",
    "grpo.beta=0.04",
    f"grpo.max_steps={STEPS}",
)
OFTEN = "checkpoint_steps=10"
SLOW_STEPS = 300
SLOW = (*LONG[:-1], f"grpo.max_steps={SLOW_STEPS}")
pytestmark = pytest.mark.usefixtures("no_jobs_left")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """The long run, done in this process without any disturbance."""
    return execute_tiny(tmp_path_factory.mktemp("undisturbed"), *LONG)[1]


def assert_same_run(sweep: Sweep, undisturbed: Record, attempts: int | None = None) -> None:
    """Finished once, every step logged once, weights bit for bit those of the undisturbed run."""
    (record,) = sweep.records
    result = record.result()
    assert result is not None, sweep.output()
    expected = load_file(undisturbed.folder / "model" / "model.safetensors")
    found = load_file(record.folder / "model" / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    whole = undisturbed.result()
    assert whole is not None
    assert [row["step"] for row in record.metrics()] == [*range(whole.steps + 1), whole.steps]
    assert (result.accuracy, result.final_reward, result.tokens) == (whole.accuracy, whole.final_reward, whole.tokens)
    assert not (record.folder / "earlier").exists()
    started = [json.loads(path.read_text())["started"] for path in (record.folder / "attempts").glob("*.json")]
    assert max(started) < result.finished_at
    if attempts is not None:
        assert len(started) == attempts


def test_a_preempted_run_is_requeued_and_goes_on_exactly(cluster: Cluster, tmp_path: Path, undisturbed: Record) -> None:
    sweep = Sweep(tmp_path, *LONG).start()  # only the checkpoint that the signal asks for
    (job,) = sweep.wait_steps(15)
    cluster.slurm("scancel", "--signal=USR2", job)
    assert sweep.end() == 0, sweep.output()
    assert_same_run(sweep, undisturbed, attempts=2)
    log = (sweep.records[0].folder / "log.txt").read_text()
    assert int(re.findall(r"resuming from .*checkpoint-(\d+)", log)[-1]) >= 15
    assert sweep.job() == job


def slow(seconds: float) -> str:
    return f"+reward.slow={{_target_:tests.slurm.troubles.Slow,seconds:{seconds},weight:1.0}}"


@pytest.fixture(scope="module")
def undisturbed_slow(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """A run that takes its time on the cluster, done here without waiting."""
    return execute_tiny(tmp_path_factory.mktemp("slow"), *SLOW, slow(0.0))[1]


def test_a_run_longer_than_two_time_limits_goes_on_in_the_next_job(
    cluster: Cluster, tmp_path: Path, undisturbed_slow: Record
) -> None:
    limits = ("launcher.timeout_min=1", "launcher.signal_seconds=30")  # Slurm may signal up to a minute early
    sweep = Sweep(tmp_path, *SLOW, slow(0.2), "checkpoint_steps=100000", *limits).start()
    wait_until(lambda: len(list(tmp_path.glob("outputs/runs/*/attempts/000003.json"))) == 1, 400, "a third attempt")
    cluster.slurm("scontrol", "update", f"JobId={sweep.job()}", "TimeLimit=60")  # the rest may take its time
    assert sweep.end(400) == 0, sweep.output()
    assert_same_run(sweep, undisturbed_slow)
    log = (sweep.records[0].folder / "log.txt").read_text()
    resumed = [int(step) for step in re.findall(r"resuming from .*checkpoint-(\d+)", log)]
    assert len(resumed) >= 2
    assert resumed == sorted(set(resumed))


def test_a_run_requeued_by_hand_goes_on_from_its_checkpoint(cluster: Cluster, tmp_path: Path, undisturbed: Record) -> None:
    sweep = Sweep(tmp_path, *LONG, OFTEN).start()
    (job,) = sweep.wait_steps(15)
    cluster.slurm("scontrol", "requeue", job)
    assert sweep.end() == 0, sweep.output()
    assert_same_run(sweep, undisturbed)


def test_a_run_in_a_low_partition_makes_room_and_goes_on(cluster: Cluster, tmp_path: Path, undisturbed: Record) -> None:
    sweep = Sweep(tmp_path, *LONG, "launcher.partition=low").start()
    sweep.wait_steps(15)
    cluster.slurm("sbatch", "-p", "main", "-N", "4", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 3")
    assert sweep.end() == 0, sweep.output()
    assert_same_run(sweep, undisturbed, attempts=2)


def test_a_crashed_node_gives_its_run_to_another(cluster: Cluster, tmp_path: Path, undisturbed: Record) -> None:
    sweep = Sweep(tmp_path, *LONG, OFTEN).start()
    sweep.wait_steps(15)
    node = (sweep.records[0].owner() or {})["job"]["node"]
    cluster.control("crash", node)
    try:
        assert sweep.end() == 0, sweep.output()
        assert_same_run(sweep, undisturbed, attempts=2)
        assert (sweep.records[0].owner() or {})["job"]["node"] != node
    finally:
        cluster.start()


def test_of_two_live_copies_of_a_run_only_the_newer_writes(
    cluster: Cluster, tmp_path: Path, undisturbed_slow: Record
) -> None:
    """The node's daemon dies and its processes live: Slurm starts the run elsewhere while the old copy still trains."""
    sweep = Sweep(tmp_path, *SLOW, slow(0.5), OFTEN).start()
    sweep.wait_steps(10)
    (record,) = sweep.records
    cluster.kill_daemon((record.owner() or {})["job"]["node"])
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


def test_a_restarted_controller_changes_nothing(cluster: Cluster, tmp_path: Path, undisturbed: Record) -> None:
    sweep = Sweep(tmp_path, *LONG, OFTEN).start()
    sweep.wait_steps(10)
    cluster.kill_daemon("slurmctld")
    time.sleep(8)  # the watcher asks and gets no answer
    cluster.start()
    assert sweep.end() == 0, sweep.output()
    assert_same_run(sweep, undisturbed, attempts=1)


def test_a_cancelled_job_is_a_failure_with_that_cause_and_the_same_command_goes_on(
    cluster: Cluster, tmp_path: Path, undisturbed: Record
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


def test_ctrl_c_leaves_the_jobs_and_the_same_command_finds_them(
    cluster: Cluster, tmp_path: Path, undisturbed: Record
) -> None:
    sweep = Sweep(tmp_path, *LONG, OFTEN).start()
    (job,) = sweep.wait_steps(5)
    assert sweep.process is not None
    sweep.process.send_signal(signal.SIGINT)
    assert sweep.end(20) == 0
    assert "the jobs go on without this command" in sweep.output()
    assert running(job)
    assert sweep.start().end() == 0, sweep.output()
    assert_same_run(sweep, undisturbed, attempts=1)
    assert sweep.job() == job


def test_detach_returns_at_once_and_a_lost_terminal_is_no_loss(
    cluster: Cluster, tmp_path: Path, undisturbed: Record
) -> None:
    sweep = Sweep(tmp_path, *LONG, OFTEN).start("launcher.detach=true")
    assert sweep.end(30) == 0
    assert "the jobs go on without this command" in sweep.output()
    sweep.start()
    sweep.wait_steps(5)
    assert sweep.process is not None
    sweep.process.send_signal(signal.SIGHUP)
    sweep.process.wait(timeout=20)
    assert sweep.start().end() == 0, sweep.output()
    assert_same_run(sweep, undisturbed, attempts=1)


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


@pytest.mark.parametrize(
    ("trouble", "cause", "words"),
    [
        ("Raises", "error", "the fourth batch cannot be scored"),
        ("Exits", "killed", "exit status 3"),
        ("Leaves", "killed", "exit status 7"),
        ("Crashes", "killed", "SIGSEGV"),
        ("Grows", "out_of_memory", "out of memory"),
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


def test_a_failing_run_does_not_take_the_others_of_its_job_with_it(cluster: Cluster, tmp_path: Path) -> None:
    reward = "+reward.trouble={_target_:tests.slurm.troubles.Crashes,weight:1.0}"
    more = ("-m", reward, "strategy=last_k", "grpo.max_steps=2,8,3", "launcher.runs_per_job=3", "launcher.runs_per_gpu=3")
    sweep = Sweep(tmp_path, *more).start()
    assert sweep.end() == 1, sweep.output()
    assert sorted(record.state() for record in sweep.records) == ["failed", "finished", "finished"]
    assert len({(record.owner() or {})["job"]["id"] for record in sweep.records}) == 1
    peaks = [max(r.peak_memory_bytes.values()) for record in sweep.records if (r := record.result()) is not None]
    assert all(0 < peak < 1 << 30 for peak in peaks)


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


def test_a_stalled_run_is_reported_and_started_again(cluster: Cluster, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    sweep = Sweep(
        tmp_path, "strategy=last_k", "+reward.trouble={_target_:tests.slurm.troubles.Hangs,weight:1.0}",
        "grpo.max_steps=6", "checkpoint_steps=2", "launcher.stall_minutes=0.2", "launcher.requeue_stalled=true",
        f"launcher.notify='cat >> {heard}; echo >> {heard}'",
    ).start()  # fmt: skip
    assert sweep.end() == 0, sweep.output()
    events = [json.loads(line) for line in heard.read_text().splitlines()]
    assert [event["event"] for event in events] == ["stalled", "sweep_ended"]
    assert events[-1]["runs"] == {"finished": 1}
    assert sweep.records[0].newest_attempt() == 2


def test_a_full_disk_loses_nothing(cluster: Cluster, tmp_path: Path, undisturbed: Record) -> None:
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
        subprocess.run(["mount", "-o", "remount,size=500m", str(outputs)], check=True)
        assert sweep.start().end() == 0, sweep.output()
        assert_same_run(sweep, undisturbed)
    finally:
        subprocess.run(["umount", "-l", str(outputs)], check=True)


def test_points_reach_a_tracking_server_that_was_away_once_each(cluster: Cluster, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    port = 20000 + os.getpid() % 9000
    uri = f"http://127.0.0.1:{port}"

    def serve() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
             "--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"],
            env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        wait_until(lambda: answers(port), 60, "the server")
        return process

    server = serve()
    try:
        sweep = Sweep(tmp_path, *LONG[:-1], "grpo.max_steps=200").start(
            "tracking=mlflow", f"tracking.uri={uri}", "name=away"
        )
        sweep.wait_steps(10)
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        (steps,) = [len(list(record.metrics())) for record in sweep.records]
        sweep.wait_steps(steps + 30)
        server = serve()
        assert sweep.end() == 0, sweep.output()
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("away")
        assert experiment is not None
        (run,) = client.search_runs([experiment.experiment_id], "tags.config_hash != ''")
        points = client.get_metric_history(run.info.run_id, "train/reward")
        assert sorted(point.step for point in points) == list(range(1, 201))
        assert run.info.status == "FINISHED"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def answers(port: int) -> bool:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


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


def test_a_request_that_can_never_start_is_refused_in_words(cluster: Cluster, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "strategy=last_k", "launcher.partition=nonesuch").start()
    assert sweep.end(60) == 2
    assert "invalid partition" in sweep.output()
    assert "Traceback" not in sweep.output()


def test_more_gpu_hours_than_allowed_are_refused_without_a_terminal(cluster: Cluster, tmp_path: Path) -> None:
    bound = "launcher.max_gpu_hours=0.00001"
    sweep = Sweep(tmp_path, "-m", "strategy=last_k", "seed=0,1", "grpo.max_steps=100000", bound).start()
    assert sweep.end(60) == 2
    assert "GPU hours: above launcher.max_gpu_hours" in sweep.output()
    assert not list(tmp_path.glob("outputs/jobs/*/*"))


def test_arrays_keep_to_the_size_and_the_parallelism_that_they_are_given(cluster: Cluster, tmp_path: Path) -> None:
    more = ("launcher.max_array_size=2", "launcher.array_parallelism=1", "grpo.max_steps=1", "seed=range(0,5)")
    sweep = Sweep(tmp_path, "-m", "strategy=last_k", *more).start()
    assert sweep.end() == 0, sweep.output()
    sizes = sorted(len(json.loads(path.read_text())["tasks"]) for path in tmp_path.glob("outputs/jobs/*/batch.json"))
    assert sizes == [1, 2, 2]
    scripts = [path.read_text() for path in tmp_path.glob("outputs/jobs/*/*submission.sh")]
    assert sum("--array=0-1%1" in script for script in scripts) == 2
