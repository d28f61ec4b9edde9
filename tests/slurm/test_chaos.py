"""A sweep under random kills loses nothing and does nothing twice; benchmarks/cluster.py does the same with 200 runs."""

from pathlib import Path

import pytest

from efficient_rl.rundir.directory import RunDirectory
from tests.conftest import execute_tiny
from tests.slurm.chaos import Chaos, weights_equal
from tests.slurm.local_cluster import Cluster, Sweep

RUNS = 24
SLOWLY = "+reward.slow={_target_:tests.slurm.troubles.Slow,seconds:1.0,weight:1.0}"  # or they end before the kills do
RUN = ("strategy=last_k", "grpo.max_steps=8", SLOWLY)


@pytest.mark.slow
@pytest.mark.usefixtures("no_jobs_left")
def test_a_sweep_under_fire_loses_nothing_and_does_nothing_twice(cluster: Cluster, tmp_path: Path) -> None:
    more = ("launcher.runs_per_job=6", "launcher.array_parallelism=2", "checkpoint_steps=2", f"seed=range(0,{RUNS})")
    sweep = Sweep(tmp_path, "-m", *RUN, *more)
    report = Chaos(cluster, sweep, seed=3).go(RUNS, disturbances=12, pause_seconds=1, limit_seconds=480)
    assert sum(report.disturbances.values()) == 12, report
    assert (report.finished, report.finished_twice, report.steps_twice) == (RUNS, 0, 0), report
    whole = execute_tiny(tmp_path / "undisturbed", *RUN, "seed=7")[1]
    assert weights_equal(RunDirectory(tmp_path / "outputs" / "runs" / whole.folder.name), whole)
