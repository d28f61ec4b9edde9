"""MLflow gets every point once: while runs go on, after it was away, after a crash, and from two senders."""

import contextlib
import json
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from mlflow import MlflowClient

from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.tracking.client import resolve_uri
from efficient_rl.tracking.collector import Collector
from efficient_rl.tracking.experiment import TrackedRun
from efficient_rl.tracking.sync import sync_until
from tests.conftest import environment, execute_tiny, reserved_port, tiny_run, tracking_server


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> TrackedRun:
    _, record = execute_tiny(tmp_path_factory.mktemp("runs"), "strategy=last_k")
    return TrackedRun(record.folder, "last_k", tiny_run("strategy=last_k").flat())


def fresh(run: TrackedRun, tmp_path: Path) -> TrackedRun:
    """A copy of the run that nothing was sent of."""
    import shutil

    shutil.copytree(run.folder, tmp_path / "runs" / run.folder.name)
    return TrackedRun(tmp_path / "runs" / run.folder.name, run.name, run.params)


def collector(uri: str, tmp_path: Path, sweep: str = "s") -> Collector:
    return Collector(uri, sweep, "python -m efficient_rl.sweep", tmp_path / "outputs")


def points(uri: str, sweep: str = "s") -> dict[str, int]:
    """How many points the child run of the sweep has, by metric."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(sweep)
    assert experiment is not None
    children = [r for r in client.search_runs([experiment.experiment_id]) if "config_hash" in r.data.tags]
    assert len(children) == 1
    found = children[0]
    return {key: len(client.get_metric_history(found.info.run_id, key)) for key in found.data.metrics}


def expected(run: TrackedRun) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in RunDirectory(run.folder).metrics():
        for key in row["metrics"]:
            counts[key] = counts.get(key, 0) + 1
    return counts


def is_complete(found: dict[str, int], run: TrackedRun) -> bool:
    wanted = expected(run)
    return {key: found.get(key) for key in wanted} == wanted


def test_every_point_parameter_and_file_arrives_once_however_often_it_is_sent(one_run: TrackedRun, tmp_path: Path) -> None:
    run, uri = fresh(one_run, tmp_path), f"sqlite:///{tmp_path}/m.db"
    for _ in range(3):
        collector(uri, tmp_path).sync([run])
    found = points(uri)
    assert is_complete(found, run)
    assert {"accuracy", "accuracy_before", "accuracy_gain", "memory/total_peak_bytes", "params/trainable"} <= set(found)
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("s").experiment_id])
    child = next(r for r in runs if "config_hash" in r.data.tags)
    parent = next(r for r in runs if "sweep_parent" in r.data.tags)
    assert len(runs) == 2
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.params["strategy.k"] == "2"
    assert child.data.params["grpo.learning_rate"]
    assert child.info.status == "FINISHED"
    files = {item.path for item in client.list_artifacts(child.info.run_id)}
    assert {"config.yaml", "result.json", "log.txt", "completions.json"} - {"log.txt"} <= files


def test_points_sent_just_before_a_crash_are_not_there_twice(one_run: TrackedRun, tmp_path: Path) -> None:
    run, uri = fresh(one_run, tmp_path), f"sqlite:///{tmp_path}/m.db"
    collector(uri, tmp_path).sync([run])
    state = next((run.folder / "tracking").glob("*.json"))
    state.write_text(json.dumps({**json.loads(state.read_text()), "offset": 0, "status": "RUNNING"}))  # the note was lost
    collector(uri, tmp_path).sync([run])
    assert is_complete(points(uri), run)
    state.unlink()  # even the run's id was lost
    collector(uri, tmp_path).sync([run])
    assert is_complete(points(uri), run)


def sync_elsewhere(run: TrackedRun, uri: str, tmp_path: Path) -> subprocess.Popen[str]:
    """A sender in a process of its own."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom tests.test_tracking import collector\n"
        "from efficient_rl.tracking.experiment import TrackedRun\nfrom efficient_rl.tracking.sync import sync_until\n"
        "run = TrackedRun(Path(sys.argv[1]), 'r', {'strategy.k': 2})\n"
        "error = sync_until(collector(sys.argv[2], Path(sys.argv[3])), [run], 60)\nassert error is None, error\n"
    )
    arguments = [sys.executable, "-c", script, str(run.folder), uri, str(tmp_path)]
    return subprocess.Popen(arguments, env=environment(), stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_store_that_was_deleted_gets_everything_again(one_run: TrackedRun, tmp_path: Path) -> None:
    run, uri = fresh(one_run, tmp_path), f"sqlite:///{tmp_path}/m.db"
    counts = []
    for _ in range(2):
        assert not collector(uri, tmp_path).is_sent(run)
        sender = sync_elsewhere(run, uri, tmp_path)
        _, errors = sender.communicate(timeout=120)
        assert sender.returncode == 0, errors
        assert collector(uri, tmp_path).is_sent(run)
        with contextlib.closing(sqlite3.connect(tmp_path / "m.db")) as store:
            counts.append(store.execute("SELECT COUNT(*) FROM metrics").fetchone()[0])
        (tmp_path / "m.db").rename(tmp_path / f"gone-{len(counts)}.db")
    assert counts[0] == counts[1] >= sum(expected(run).values())


@pytest.mark.slow
def test_two_senders_at_first_use_do_not_break_or_double_the_store(one_run: TrackedRun, tmp_path: Path) -> None:
    run, uri = fresh(one_run, tmp_path), f"sqlite:///{tmp_path}/m.db"
    senders = [sync_elsewhere(run, uri, tmp_path) for _ in range(3)]
    errors = [sender.communicate(timeout=120)[1] for sender in senders]
    assert [sender.returncode for sender in senders] == [0, 0, 0], errors
    collector(uri, tmp_path).sync([run])
    assert is_complete(points(uri), run)


def test_a_locked_store_delays_points_and_loses_none(one_run: TrackedRun, tmp_path: Path) -> None:
    run, uri = fresh(one_run, tmp_path), f"sqlite:///{tmp_path}/m.db"
    collector(uri, tmp_path, "other").sync([])
    ours = collector(uri, tmp_path)
    ours._opened()
    lock = sqlite3.connect(tmp_path / "m.db", check_same_thread=False)
    lock.execute("BEGIN EXCLUSIVE")
    threading.Timer(3.0, lock.rollback).start()
    assert sync_until(ours, [run], seconds=120) is None
    lock.close()
    assert is_complete(points(uri), run)


@pytest.mark.slow
def test_an_unreachable_server_is_reported_and_gets_everything_when_it_is_back(one_run: TrackedRun, tmp_path: Path) -> None:
    run = fresh(one_run, tmp_path)
    with reserved_port() as port:
        uri = f"http://127.0.0.1:{port}"
        error = sync_until(collector(uri, tmp_path), [run], seconds=0)
        assert error
        assert not collector(uri, tmp_path).is_sent(run)
        with tracking_server(port, tmp_path / "server.db"):
            ours = collector(uri, tmp_path)
            assert sync_until(ours, [run], seconds=120) is None
            assert ours.is_sent(run)
            assert is_complete(points(uri), run)


def test_a_run_shared_by_two_sweeps_is_in_both_experiments(one_run: TrackedRun, tmp_path: Path) -> None:
    run, uri = fresh(one_run, tmp_path), f"sqlite:///{tmp_path}/m.db"
    for sweep in ("a", "b"):
        collector(uri, tmp_path, sweep).sync([run])
        assert is_complete(points(uri, sweep), run)


def test_points_arrive_while_the_run_goes_on_and_the_rest_later(one_run: TrackedRun, tmp_path: Path) -> None:
    run, uri = fresh(one_run, tmp_path), f"sqlite:///{tmp_path}/m.db"
    path = run.folder / "metrics.jsonl"
    lines, result = path.read_bytes().splitlines(keepends=True), (run.folder / "result.json").read_text()
    (run.folder / "result.json").unlink()
    path.write_bytes(b"".join(lines[:2]) + lines[2][:10])
    ours = collector(uri, tmp_path)
    ours.sync([run])
    assert points(uri)["train/reward"] == 1
    path.write_bytes(b"".join(lines))
    (run.folder / "result.json").write_text(result)
    ours.sync([run])
    assert is_complete(points(uri), run)


def test_the_uri_is_always_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_uri(None) == f"sqlite:///{tmp_path}/mlflow.db"
    assert resolve_uri("sqlite:///x/y.db") == f"sqlite:///{tmp_path}/x/y.db"
    assert resolve_uri("none") is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert resolve_uri(None) == "http://127.0.0.1:5000"
    assert resolve_uri("sqlite:////abs.db") == "sqlite:////abs.db"


def test_the_parent_run_ends_also_where_the_background_had_sent_everything_before(
    one_run: TrackedRun, tmp_path: Path
) -> None:
    run, uri = fresh(one_run, tmp_path), f"sqlite:///{tmp_path / 'm.db'}"
    ours = collector(uri, tmp_path)
    assert sync_until(ours, [run], seconds=0) is None
    assert ours.is_sent(run)

    def parent() -> str:
        (found,) = [r for r in MlflowClient(uri).search_runs([_experiment(uri)]) if "sweep_parent" in r.data.tags]
        return str(found.info.status)

    assert parent() == "RUNNING"
    assert sync_until(ours, [run], seconds=0, complete=True) is None
    assert parent() == "FINISHED"


def _experiment(uri: str) -> str:
    found = MlflowClient(uri).get_experiment_by_name("s")
    assert found is not None
    return str(found.experiment_id)
