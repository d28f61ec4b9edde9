"""The doctor's verdict on requests to a real cluster."""

import pytest

from efficient_rl.doctor.cluster import check_cluster
from efficient_rl.launch.slurm.launcher import SlurmLauncher
from tests.slurm.local_cluster import Cluster


def launcher(**settings: object) -> SlurmLauncher:
    return SlurmLauncher(**({"gpus_per_node": 1, "cpus_per_task": 1, "mem_gb": 4} | settings))  # type: ignore[arg-type]


def test_a_request_that_can_start_passes(cluster: Cluster) -> None:
    assert [finding.level for finding in check_cluster(launcher())] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"partition": "nonesuch"}, "Invalid partition"),
        ({"gpus_per_node": 99}, "not available"),
        ({"mem_gb": 9000}, "not available"),
        ({"constraint": "h100"}, "feature"),
        ({"nodes": 50, "processes_per_run": 50}, "ode"),
    ],
)
def test_a_request_that_can_never_start_fails_with_slurms_reason(
    cluster: Cluster, settings: dict[str, object], words: str
) -> None:
    (found, *_) = check_cluster(launcher(**settings))
    assert found.level == "failure"
    assert words in found.what
    assert "main" in found.why


def test_a_time_limit_that_the_signal_eats_up_is_a_warning(cluster: Cluster) -> None:
    assert [finding.level for finding in check_cluster(launcher(timeout_min=5))] == ["ok", "ok", "warning"]
