"""A search on a cluster: its jobs outlive it and are found again, and one of them can be ended alone."""

import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from efficient_rl.config.compose import expand
from efficient_rl.config.run_config import to_dict
from efficient_rl.launch.base import build_launcher
from efficient_rl.launch.worker import Job
from efficient_rl.run import Options
from efficient_rl.rundir.directory import RunDirectory
from tests.conftest import tiny_run
from tests.slurm.local_cluster import REQUEST, Cluster, Sweep, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_jobs_left")]


def test_a_killed_search_finds_its_jobs_and_no_trial_is_lost_or_doubled(cluster: Cluster, tmp_path: Path) -> None:
    space = ("-m", "search=random", "strategy=choice(first_k,last_k)", "grpo.learning_rate=tag(log,interval(1e-4,1e-2))")
    sweep = Sweep(tmp_path, *space, "search.trials=3", "search.parallel=2", "grpo.max_steps=60", "name=s").start()
    sweep.wait_steps(3, runs=2)
    sweep.kill()
    assert sweep.start().end() == 0, sweep.output()
    journal = JournalStorage(JournalFileBackend(str(tmp_path / "outputs/sweeps/s/study.journal")))
    trials = optuna.load_study(study_name="s", storage=journal).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    assert sorted(record.folder.name for record in sweep.records) == sorted(t.user_attrs["config_hash"] for t in trials)
    assert [record.newest_attempt() for record in sweep.records] == [1] * 3


def test_a_cancelled_job_writes_a_checkpoint_and_leaves_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    launcher = build_launcher(expand([*REQUEST, "launcher.signal_seconds=60"])[0].config["launcher"])
    runs = [tiny_run("grpo.max_steps=2000"), tiny_run("grpo.max_steps=3")]
    folders = [tmp_path / "outputs" / "runs" / run.config_hash for run in runs]
    jobs = [Job(f, to_dict(run), Options(1000)) for f, run in zip(folders, runs, strict=True)]
    long, short = (launcher.launch([job])[0] for job in jobs)
    ended = []

    def steps() -> int:
        ended.extend(launcher.poll())
        return sum("train/reward" in row["metrics"] for row in RunDirectory(folders[0]).metrics())

    wait_until(lambda: steps() >= 3, 240, "the long run")
    launcher.cancel(long)
    deadline = time.monotonic() + 240
    while len(ended) < 2 and time.monotonic() < deadline:
        ended.extend(launcher.poll(0.2))
    assert {handle.job.key: handle.state for handle in ended} == {long.job.key: "stopped", short.job.key: "finished"}
    wait_until(lambda: not cluster.slurm("squeue", "-h"), 60, "the job to leave")
    assert RunDirectory(folders[0]).checkpoint() is not None
    assert RunDirectory(folders[0]).failure() is None
    assert RunDirectory(folders[0]).result() is None
