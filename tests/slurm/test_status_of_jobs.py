"""The status command on a real cluster."""

import json
from pathlib import Path

import pytest

from efficient_rl.observe import find_manifest, read_status
from efficient_rl.status import main
from tests.slurm.local_cluster import Cluster, Sweep, wait_until


@pytest.mark.usefixtures("no_jobs_left")
def test_jobs_are_seen_waiting_running_and_cancelled(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = tmp_path / "outputs"
    more = ("grpo.max_steps=2000", "seed=0,1", "launcher.array_parallelism=1", "launcher.detach=true", "name=two")
    sweep = Sweep(tmp_path, "-m", "strategy=last_k", *more).start()
    assert sweep.end(60) == 0, sweep.output()
    sweep.wait_steps(2)
    status = read_status(outputs, find_manifest(outputs, "two"))
    assert [row.state for row in status.rows] == ["running", "queued"]
    assert "on n" in status.rows[0].note
    assert "JobArrayTaskLimit" in status.rows[1].note
    assert len(set(status.jobs.values())) == 2
    prefix = status.rows[0].folder.name[:8]
    assert main(["two", f"output={outputs}", "--cancel", prefix]) == 0
    assert "cancelled job" in capsys.readouterr().out

    def states() -> list[str]:
        return [row.state for row in read_status(outputs, find_manifest(outputs, "two")).rows]

    wait_until(lambda: states() == ["failed", "running"], 90, "the second run to take the first one's place")
    assert main(["two", f"output={outputs}", "--json"]) == 1
    first = json.loads(capsys.readouterr().out)["runs"][0]
    assert (first["cause"], first["error"]) == ("cancelled", "cancelled")
    assert main(["two", f"output={outputs}", "--cancel"]) == 0
    wait_until(lambda: states() == ["failed", "failed"], 60, "the end")
