"""Fixtures: a real Slurm cluster, started once for all tests here."""

from collections.abc import Iterator

import pytest

from tests.slurm.local_cluster import Cluster, local_cluster, wait_until, why_not


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster; skips where none can be started."""
    if reason := why_not():
        pytest.skip(reason)
    with local_cluster() as cluster:
        yield cluster


@pytest.fixture
def no_jobs_left(cluster: Cluster) -> Iterator[None]:
    """Cancel what a failed test left, so that the next one finds an empty cluster."""
    yield
    if text := cluster.slurm("squeue", "-h", "-o", "%A").split():
        cluster.slurm("scancel", *set(text))
        wait_until(lambda: not cluster.slurm("squeue", "-h"), 60, "jobs to go")
