"""MLflow takes every name, whatever it is called; what it refuses and what was deleted in it keeps nothing back."""

import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.utils.validation import _validate_metric_name

from analysis.data.load import load_sweep
from analysis.data.stored import load_stored
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.result import Failure
from efficient_rl.sweep.manifest import ListedRun, Manifest
from efficient_rl.tracking.client import make_database, store_trouble
from efficient_rl.tracking.collector import Collector
from efficient_rl.tracking.experiment import TrackedRun
from efficient_rl.tracking.names import LONGEST, name_tags, read_name, stored_name
from efficient_rl.tracking.sync import sync_until
from tests.conftest import environment, reserved_port, tiny_run, tracking_server
from tests.fake_launcher import result

NAMES = (  # of sources, levels of difficulty and evaluation sets
    *("Counting & Probability", "AoPS (2024)", "1e+06", "C++", "100%", "x=1,2", 'say "hi"', "it's", "[a]", "{a}"),
    *("a/b", "a//b", "/a", "a/", ".", "..", "../x", "..x", "a/./b", "", " ", "a:b", "a:26:b", "a::b", "::", "_x26_"),
    *("tab\t", "line\n", "数学", "é", "😀", "\udce9", "a\\b", "a|b", "a;b", "a*?", "~", "#1", "$", "@me", "^"),
    *("`", "<", ">", "!", "a" * 300, "a" * 300 + "b"),
)  # fmt: skip


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables, which take it seconds to make."""
    path = tmp_path_factory.mktemp("empty") / "m.db"
    assert MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)
    return path


@pytest.fixture
def store(empty: Path, tmp_path: Path) -> str:
    """The URI of a database of one's own."""
    shutil.copy(empty, tmp_path / "m.db")
    return uri_of(tmp_path)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user may write; pytest's own are private."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def uri_of(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/m.db"


def collector(tmp_path: Path, uri: str | None = None) -> Collector:
    return Collector(uri or uri_of(tmp_path), "s", "python -m efficient_rl.sweep", tmp_path / "outputs")


def a_run(tmp_path: Path, seed: int = 0, metrics: dict[str, float] | None = None, finish: bool = True) -> TrackedRun:
    """A run of two steps that only looks like training."""
    config = tiny_run(f"seed={seed}")
    record = RunDirectory(tmp_path / "outputs" / "runs" / config.config_hash)
    with record.claim(config) as attempt:
        sizes = {"params/trainable": 7.0, "params/total": 9.0, "eval/standard_error": 0.1}
        attempt.append(0, sizes | {"eval/accuracy": 0.1})
        attempt.append(1, {"train/reward": 0.5, "params/active": 7.0} | (metrics or {}))
        attempt.append(2, sizes | {"eval/accuracy": 0.3})
        if finish:
            attempt.finish(result(config, attempt.number))
    return TrackedRun(record.folder, f"run {seed}", config.flat())


def children(client: MlflowClient, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    experiment = client.get_experiment_by_name("s")
    assert experiment is not None
    return [run for run in client.search_runs([experiment.experiment_id], "", view) if "config_hash" in run.data.tags]


def parent(client: MlflowClient) -> Run:
    experiment = client.get_experiment_by_name("s")
    assert experiment is not None
    (found,) = [run for run in client.search_runs([experiment.experiment_id]) if "sweep_parent" in run.data.tags]
    return found


def is_whole(client: MlflowClient, count: int = 1) -> bool:
    """Whether that many runs stand below the parent, each with its points, its parameters and its end."""
    runs, above = children(client), parent(client)
    for run in runs:
        points = client.get_metric_history(run.info.run_id, "eval/accuracy")
        assert [point.value for point in points] == [0.1, 0.3]
        assert run.data.tags["mlflow.parentRunId"] == above.info.run_id
        assert run.data.params["strategy.name"] == "full"
        assert run.info.status == "FINISHED"
    return len(runs) == count


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_every_name_becomes_one_that_mlflow_takes_and_is_read_back(name: str) -> None:
    for whole in (name, f"eval/accuracy_source_{name}", f"reward.{name}.weight"):
        stored = stored_name(whole)
        _validate_metric_name(stored)
        assert len(stored) <= LONGEST
        assert read_name(stored, name_tags([whole])) == whole


def test_names_that_mlflow_takes_stay_as_they_are() -> None:
    for name in ("train/reward", "eval/accuracy_difficulty_3", "grpo.learning_rate", "a b", "org:data", "数学", "a.b-c_d/e"):
        assert stored_name(name) == name
    assert stored_name("Counting & Probability") == "Counting :26: Probability"


@settings(max_examples=2000, deadline=None)
@given(st.lists(st.text("a:/. &_x26\n(é", max_size=7), min_size=2, max_size=2, unique=True))
def test_two_names_never_become_one(names: list[str]) -> None:
    one, other = map(stored_name, names)
    assert one != other
    for name, stored in zip(names, (one, other), strict=True):
        _validate_metric_name(stored)
        assert read_name(stored, {}) == name


def all_names() -> dict[str, float]:
    random.seed(0)
    return {f"eval/accuracy_source_{name}": random.random() for name in NAMES if name != "\udce9"}


def test_points_of_every_name_arrive_and_the_report_reads_them_by_their_names(tmp_path: Path, store: str) -> None:
    sent = all_names() | {"eval/accuracy_difficulty_1e+06": 0.25}
    run = a_run(tmp_path, metrics=sent)
    ours = collector(tmp_path)
    assert sync_until(ours, [run], seconds=0, complete=True) is None
    assert ours.refused == []
    client = MlflowClient(store)
    assert is_whole(client)
    (child,) = children(client)
    assert {read_name(key, child.data.tags): value for key, value in child.data.metrics.items()}.items() >= sent.items()
    Manifest("s", "c", None, False, (ListedRun(run.folder.name, "r", run.params),)).write(tmp_path / "outputs")
    (here,), (there,) = load_sweep(tmp_path / "outputs", "s").runs, load_stored(store, "s").runs
    assert there.params == here.params
    assert there.series == here.series
    assert there.result is not None
    assert there.result.by_difficulty == {"1e+06": 0.25}


@pytest.mark.slow
def test_a_server_takes_every_name_and_gives_it_back(tmp_path: Path) -> None:
    run = a_run(tmp_path, metrics=all_names() | {"eval/accuracy_difficulty_1e+06": 0.25, "train/kl": math.nan})
    with reserved_port() as port, tracking_server(port, tmp_path / "server.db") as uri:
        ours = collector(tmp_path, uri)
        assert sync_until(ours, [run], seconds=200, complete=True) is None
        assert ours.refused == []
        client = MlflowClient(uri)
        assert is_whole(client)
        (there,) = load_stored(uri, "s").runs
        assert there.params == run.params
        assert there.result is not None
        assert there.result.by_difficulty == {"1e+06": 0.25}
        client.delete_run(parent(client).info.run_id)
        for child in children(client):
            client.delete_run(child.info.run_id)
        assert sync_until(collector(tmp_path, uri), [run], seconds=0, complete=True) is None
        assert is_whole(client)


BAD: dict[str, Any] = {
    "nan": math.nan,
    "infinite": math.inf,
    "minus": -math.inf,
    "huge": 10**400,
    "tiny": 5e-324,
    "large": 1e308,
}


def test_no_single_bad_point_parameter_or_tag_keeps_the_others_back(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "efficient_rl.tracking.sender.stored_name", lambda name: name
    )  # so that there is something to refuse
    good = a_run(tmp_path, seed=1)
    metrics = BAD | {"train/(a)": 1.0, "train/" + "b" * 300: 1.0} | {f"train/{index}": 1.0 for index in range(40)}
    run = a_run(tmp_path, metrics=metrics)
    params = dict(run.params) | {
        "bad(key)": 1,
        "k" * 300: 1,
        "long": "x" * 9000,
        "nul": "a\0b",
        "half": "\udce9",
        "none": None,
    }
    run = TrackedRun(run.folder, "a label " * 50, params)
    RunDirectory(run.folder).record_failure(Failure(1, "\udce9\0" + "e" * 9000, "log.txt"))
    ours = Collector(store, "s", "python " + "x=1 " * 5000, tmp_path / "outputs")
    assert sync_until(ours, [run, good], seconds=0, complete=True) is None
    client = MlflowClient(store)
    assert is_whole(client, 2)
    refused = {text.split(" of run ")[0] for text in ours.refused}
    assert refused == {"huge", "metric train/(a)", f"metric train/{'b' * 300}", "param bad(key)", f"param {'k' * 300}"}
    child = next(each for each in children(client) if each.data.params.get("long"))
    assert {f"train/{index}" for index in range(40)} | BAD.keys() - {"huge"} <= child.data.metrics.keys()
    assert len(child.data.params["long"]) == 6000
    assert child.data.params["seed"] == "0"


def test_a_run_that_cannot_be_sent_keeps_no_other_run_back(tmp_path: Path, store: str) -> None:
    runs = [a_run(tmp_path, seed=seed) for seed in range(3)]
    (runs[0].folder / "tracking").write_text("no folder")
    ours = collector(tmp_path)
    assert sync_until(ours, runs, seconds=0, complete=True) is not None
    assert is_whole(MlflowClient(store), 2)
    (runs[0].folder / "tracking").unlink()
    assert sync_until(ours, runs, seconds=0, complete=True) is None
    assert is_whole(MlflowClient(store), 3)


def gone(client: MlflowClient, what: str) -> None:
    """Delete in the store what is named, as its UI does, or for good, as `mlflow gc` does."""
    experiment, store = client.get_experiment_by_name("s"), client._tracking_client.store
    assert experiment is not None
    doomed = [*([parent(client)] if "parent" in what else []), *(children(client)[:1] if "child" in what else [])]
    for run in doomed:
        client.delete_run(run.info.run_id)
        if "for good" in what:
            store._hard_delete_run(run.info.run_id)
    if "experiment" in what:
        client.delete_experiment(experiment.experiment_id)
    if what == "experiment for good":
        store._hard_delete_experiment(experiment.experiment_id)


DELETED = (
    *("child", "parent", "parent and child", "experiment", "child, experiment"),
    *("child for good", "parent for good", "parent and child for good", "experiment for good"),
)


@pytest.mark.parametrize("what", DELETED)
def test_what_was_deleted_in_the_store_is_there_again_after_the_same_command(tmp_path: Path, store: str, what: str) -> None:
    runs = [a_run(tmp_path, seed=seed) for seed in range(2)]
    assert sync_until(collector(tmp_path), runs, seconds=0, complete=True) is None
    client = MlflowClient(store)
    gone(client, what)
    assert sync_until(collector(tmp_path), runs, seconds=0, complete=True) is None
    assert is_whole(client, 2)
    assert parent(client).info.status == "FINISHED"
    above, before = parent(client).info.run_id, {child.info.run_id for child in children(client)}
    assert sync_until(collector(tmp_path), runs, seconds=0, complete=True) is None
    assert (parent(client).info.run_id, {child.info.run_id for child in children(client)}) == (above, before)


@pytest.mark.parametrize("what", DELETED)
def test_what_is_deleted_while_a_sweep_runs_is_there_again_at_its_end(tmp_path: Path, store: str, what: str) -> None:
    runs = [a_run(tmp_path, seed=seed, finish=seed == 0) for seed in range(2)]
    ours = collector(tmp_path)
    assert sync_until(ours, runs, seconds=0) is None
    client = MlflowClient(store)
    gone(client, what)
    runs[1] = a_run(tmp_path, seed=1)
    sync_until(ours, runs, seconds=0)
    assert sync_until(ours, runs, seconds=20, complete=True) is None
    assert sync_until(collector(tmp_path), runs, seconds=20, complete=True) is None
    assert is_whole(client, 2)
    assert parent(client).info.status == "FINISHED"


def test_the_parent_runs_while_a_stopped_sweep_goes_on_and_then_is_finished(tmp_path: Path, store: str) -> None:
    first, second = a_run(tmp_path, seed=0), a_run(tmp_path, seed=1, finish=False)
    assert sync_until(collector(tmp_path), [first, second], seconds=0, complete=False) is None
    client = MlflowClient(store)
    assert parent(client).info.status == "KILLED"
    attempt = RunDirectory(second.folder).claim(tiny_run("seed=1"))
    again, stopped = collector(tmp_path), collector(tmp_path)
    assert sync_until(again, [first, second], seconds=0) is None
    assert parent(client).info.status == "RUNNING"
    attempt.append(1, {"train/reward": 1.0})
    assert (
        sync_until(stopped, [first, second], seconds=0, complete=False) is None
    )  # another command, beside running children
    assert parent(client).info.status == "KILLED"
    attempt.append(2, {"train/reward": 1.0})
    assert sync_until(again, [first, second], seconds=0) is None
    assert parent(client).info.status == "RUNNING"
    attempt.finish(result(tiny_run("seed=1"), attempt.number))
    attempt.release()
    assert sync_until(again, [first, second], seconds=0, complete=True) is None
    assert parent(client).info.status == "FINISHED"
    assert {child.info.status for child in children(client)} == {"FINISHED"}


def test_a_parent_that_was_left_killed_is_finished_where_all_had_been_sent(tmp_path: Path, store: str) -> None:
    run = a_run(tmp_path)
    assert sync_until(collector(tmp_path), [run], seconds=0, complete=False) is None
    assert sync_until(collector(tmp_path), [run], seconds=0, complete=True) is None
    client = MlflowClient(store)
    assert parent(client).info.status == "FINISHED"
    (note,) = (tmp_path / "outputs" / "sweeps" / "s" / "tracking").iterdir()
    note.unlink()  # a sweep that version 0.1 has sent
    client.set_terminated(parent(client).info.run_id, "KILLED")
    assert sync_until(collector(tmp_path), [run], seconds=0, complete=True) is None
    assert parent(client).info.status == "FINISHED"


def test_a_child_that_a_crash_left_without_parameters_gets_them(tmp_path: Path, store: str) -> None:
    run = a_run(tmp_path)
    bare = TrackedRun(run.folder, run.name, {"seed": 0})
    assert sync_until(collector(tmp_path), [bare], seconds=0) is None
    next((run.folder / "tracking").glob("*.json")).unlink()
    assert sync_until(collector(tmp_path), [run], seconds=0) is None
    (child,) = children(MlflowClient(store))
    assert len(child.data.params) == len(run.params)


def test_completions_are_there_once_however_often_a_run_ends(tmp_path: Path, store: str) -> None:
    run = a_run(tmp_path, finish=False)
    (run.folder / "completions.jsonl").write_text('{"step": 1, "completion": "a"}\n{"step": 2, "completion": "b"}\n')
    RunDirectory(run.folder).record_failure(Failure(1, "no letters", "log.txt"))
    assert sync_until(collector(tmp_path), [run], seconds=0) is None
    a_run(tmp_path)
    assert sync_until(collector(tmp_path), [run], seconds=0) is None
    client = MlflowClient(store)
    (child,) = children(client)
    text = Path(client.download_artifacts(child.info.run_id, "completions.json", str(tmp_path))).read_text()
    assert text.count('"a"') == 1


@pytest.mark.parametrize(("mask", "mode"), [(0o002, 0o664), (0o077, 0o600), (0o022, 0o644)])
def test_the_database_follows_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        make_database(uri_of(tmp_path))
        assert store_trouble(uri_of(tmp_path)) is None
        if mask == 0o002:
            assert sync_until(collector(tmp_path), [a_run(tmp_path)], seconds=0) is None
    finally:
        os.umask(before)
    assert (tmp_path / "m.db").stat().st_mode & 0o777 == mode


def test_a_database_of_somebody_else_is_one_line(empty: Path, shared: Path) -> None:
    run, uri = a_run(shared), f"sqlite:///{shared}/m.db"
    for name in ("m.db", "other.db"):
        shutil.copy(empty, shared / name)
    for path in shared.rglob("*"):
        path.chmod(0o777 if path.is_dir() else 0o666)
    (shared / "m.db").chmod(0o444)
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom tests.test_tracking_refusals import *\n"
        "folder, run = Path(sys.argv[3]), TrackedRun(Path(sys.argv[2]), 'r', {})\n"
        "os.umask(0)\n"
        "assert sync_until(collector(folder, f'sqlite:///{folder}/other.db'), [run], seconds=0) is None  # imports all\n"
        "if os.getuid() == 0:\n    os.setuid(65534)  # an ordinary user, whom rights stop\n"
        "print(store_trouble(sys.argv[1]))\n"
        "print(sync_until(collector(folder, sys.argv[1]), [run], seconds=1))\n"
    )
    line = [sys.executable, "-c", script, uri, str(run.folder), str(shared)]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""
    doctor, sync = done.stdout.splitlines()
    assert "m.db is read-only for this user" in doctor
    assert "readonly database" in sync
