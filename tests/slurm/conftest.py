"""Fixtures: a real Slurm cluster, started once for all tests here."""

from collections.abc import Iterator

import pytest

from efficient_rl.rundir.directory import RunDirectory
from tests.conftest import execute_tiny
from tests.slurm.local_cluster import Cluster, Sweep, local_cluster, wait_until, why_not
from tests.slurm.long_run import LONG


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster; skips where none can be started."""
    if reason := why_not():
        pytest.skip(reason)
    with local_cluster() as cluster:
        yield cluster


@pytest.fixture
def no_jobs_left(cluster: Cluster) -> Iterator[None]:
    """End what a failed test left, so that the next one finds an empty cluster with all its nodes."""
    yield
    while Sweep.started:
        Sweep.started.pop().kill_if_alive()
    cluster.start()  # what the test killed, and nodes that Slurm has drained
    if text := cluster.slurm("squeue", "-h", "-o", "%A").split():
        cluster.slurm("scancel", *set(text))
        wait_until(lambda: not cluster.slurm("squeue", "-h"), 60, "jobs to go")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The long run, done in this process without any disturbance."""
    return execute_tiny(tmp_path_factory.mktemp("undisturbed"), *LONG)[1]
