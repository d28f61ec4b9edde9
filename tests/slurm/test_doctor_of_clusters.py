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


@pytest.mark.parametrize(
    ("limit", "settings", "words"),
    [
        ("MaxTime=30", {"timeout_min": 60}, "launcher.timeout_min=60 exceeds the time limit 30 min of partition main"),
        ("MaxNodes=1", {"nodes": 2, "processes_per_run": 2}, "launcher.nodes=2 exceeds MaxNodes=1 of partition main"),
        ("MaxCPUsPerNode=2", {"cpus_per_task": 4}, "launcher.cpus_per_task=4 exceeds MaxCPUsPerNode=2 of partition main"),
        ("MaxMemPerNode=2000", {}, "launcher.mem_gb=4.0 exceeds MaxMemPerNode=2000 of partition main"),
        ("State=DOWN", {}, "the state DOWN of partition main"),
        ("MaxTime=30", {"timeout_min": 60, "partition": "low,main"}, None),  # it fits into one of them
        ("MaxTime=30", {"timeout_min": 60, "partition": "low"}, None),
    ],
)
def test_a_request_beyond_a_partitions_limits_fails_with_the_bound(
    cluster: Cluster, limit: str, settings: dict[str, object], words: str | None
) -> None:
    key, lifted = limit.split("=")[0], {"State": "UP", "MaxMemPerNode": "0"}
    cluster.slurm("scontrol", "update", "PartitionName=main", limit)
    try:
        (found, *_) = check_cluster(launcher(**settings))
    finally:
        cluster.slurm("scontrol", "update", "PartitionName=main", f"{key}={lifted.get(key, 'UNLIMITED')}")
    assert (found.level, words is None or words in found.what) == ("ok" if words is None else "failure", True), found


def test_more_nodes_than_are_up_fail_with_their_number(cluster: Cluster) -> None:
    cluster.slurm("scontrol", "update", "NodeName=n[1-3]", "State=DRAIN", "Reason=test")
    try:
        (found, *_) = check_cluster(launcher(nodes=2, processes_per_run=2))
    finally:
        cluster.slurm("scontrol", "update", "NodeName=n[1-3]", "State=RESUME")
    assert "launcher.nodes=2 exceeds the 1 nodes that fit and are up of partition main" in found.what


def test_a_time_limit_that_the_signal_eats_up_is_a_warning(cluster: Cluster) -> None:
    assert [finding.level for finding in check_cluster(launcher(timeout_min=5))] == ["ok", "ok", "warning"]
