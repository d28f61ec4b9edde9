"""The tracking store and the run directories give the same numbers; reports become artifacts of the sweep's run."""

import shutil
from pathlib import Path

import pytest

from analysis.data.load import BLOCKS, SweepData, load_sweep
from analysis.data.stored import load_stored
from analysis.report.__main__ import main
from analysis.stats.aggregate import summarize
from efficient_rl.errors import ConfigError
from efficient_rl.tracking.views import attach
from tests.conftest import Sweep, reserved_port, tracking_server

READ = (  # what the analysis reads of a result
    *("config_hash", "model", "strategy", "seed", "trainable_params", "mean_active_params", "total_params"),
    *("accuracy", "accuracy_before", "greedy_accuracy", "standard_error", "problems", "samples", "final_reward"),
    *("right", "right_before", "by_difficulty", "by_difficulty_before", "sets", "steps"),
    *("highest_peak_bytes", "peak_memory_bytes", "memory_parts_bytes", "train_seconds", "total_seconds", "tokens"),
    "code_version",
)


def assert_same(one: SweepData, other: SweepData) -> None:
    runs = {run.hash: run for run in other.runs}
    assert runs.keys() == {run.hash for run in one.runs}
    for run in one.runs:
        stored = runs[run.hash]
        assert stored.params == run.params
        assert stored.series == run.series
        assert run.result is not None
        assert stored.result is not None
        for name in READ:
            expected, found = getattr(run.result, name), getattr(stored.result, name)
            kind = pytest.approx(expected) if isinstance(expected, float | int) else expected
            assert found == kind, name
    assert [s.label for s in summarize(one.runs)] == [s.label for s in summarize(other.runs)]


def test_the_store_gives_what_the_run_directories_give(finished: Path) -> None:
    directories = load_sweep(finished / "outputs", "all")
    stored = load_stored(f"sqlite:///{finished / 'mlflow.db'}", "all")
    assert (stored.name, stored.command) == ("all", directories.command)
    assert len(directories.finished) == 8
    assert len(directories.finished[0].result.right) == 12  # type: ignore[union-attr]
    assert_same(directories, stored)


@pytest.mark.slow
def test_a_server_gives_what_the_run_directories_give(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that answers are cut off and asked for in halves.
    monkeypatch.setattr("efficient_rl.tracking.server.POINTS_A_REQUEST", 5)
    database = shutil.copy(finished / "mlflow.db", tmp_path)
    with reserved_port() as port, tracking_server(port, Path(database)) as server:
        assert_same(load_sweep(finished / "outputs", "all"), load_stored(server, None))


def test_the_report_reads_the_store_and_becomes_artifacts_of_the_sweeps_run(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"sqlite:///{finished / 'mlflow.db'}"
    assert main([f"tracking={uri}", "read=store", f"reports={tmp_path}", f"output={tmp_path / 'nothing'}"]) == 0
    assert capsys.readouterr().err == ""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("all")
    assert experiment is not None
    [parent] = client.search_runs([experiment.experiment_id], "tags.sweep_parent = 'all'")
    names = {Path(file.path).name for file in client.list_artifacts(parent.info.run_id, "report")}
    assert {"report.html", "report.json", "results.csv", "pareto.pdf"} <= names


@pytest.mark.slow
def test_a_report_without_its_store_is_written_and_says_so(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep=all", f"output={finished / 'outputs'}", f"reports={tmp_path}"]) == 0
    assert "not in the tracking store: there is no database" in capsys.readouterr().err
    assert (tmp_path / "all" / "report.html").is_file()
    assert main(["sweep=all", f"output={finished / 'outputs'}", f"reports={tmp_path}", "tracking=none"]) == 0
    assert capsys.readouterr().err == ""


def test_a_store_without_the_sweep_is_named(finished: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{finished / 'mlflow.db'}"
    assert attach(uri, "other", tmp_path) == f"{uri} does not know the sweep other"
    with pytest.raises(ConfigError, match="unknown sweep 'al'; did you mean 'all'"):
        load_stored(uri, "al")
    with pytest.raises(ConfigError, match=r"file:/x cannot be read; use sqlite, postgresql, http, https"):
        load_stored("file:/x", None)
    (tmp_path / "text.db").write_text("no database at all, but a text that is long enough to be looked at")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_stored(f"sqlite:///{tmp_path / 'text.db'}", None)


@pytest.mark.slow
def test_what_a_dynamic_strategy_trained_is_recorded_when_it_changes_and_reaches_the_store(
    sweep: Sweep, tmp_path: Path
) -> None:
    done = sweep("strategy=badam", "strategy.interval=2", "strategy.order=ascending", "grpo.max_steps=5", "name=blocks")
    assert done.returncode == 0, done.stdout + done.stderr
    data = load_sweep(tmp_path / "outputs", "blocks")
    [run] = data.runs
    blocks = {key: series for key, series in run.series.items() if key.startswith(BLOCKS)}
    assert set(blocks) == {f"blocks/{index:02d}" for index in range(6)}  # badam never trains the rest
    # Two steps each: block 0 in steps 1 and 2, block 1 in 3 and 4, block 2 in 5.
    assert (blocks["blocks/00"].steps.tolist(), blocks["blocks/00"].values.tolist()) == ([1, 3], [1.0, 0.0])
    assert (blocks["blocks/01"].steps.tolist(), blocks["blocks/01"].values.tolist()) == ([1, 3, 5], [0.0, 1.0, 0.0])
    assert (blocks["blocks/02"].steps.tolist(), blocks["blocks/02"].values.tolist()) == ([1, 5], [0.0, 1.0])
    assert_same(data, load_stored(f"sqlite:///{tmp_path / 'mlflow.db'}", None))
