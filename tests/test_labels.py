"""One labeler: the live table, sweep.json, MLflow, status and the report call a run by the same name."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient

from analysis.report.__main__ import main as report
from analysis.stats.aggregate import MEASURE
from efficient_rl.config.compose import expand
from efficient_rl.config.run_config import parse_run
from efficient_rl.sweep.labels import label_runs, make_labels, make_setting_labels
from tests.test_search import search


@pytest.mark.parametrize(
    ("overrides", "told", "reported"),
    [
        pytest.param(
            ["strategy=lora", "reward=accuracy,kimi"],
            ["lora reward=accuracy", "lora reward=accuracy+length"],
            [("lora reward=accuracy", ""), ("lora reward=accuracy+length", "")],
            marks=pytest.mark.slow,
        ),
        (
            ["strategy=lora", "model=nano,smollm2_135m"],
            ["lora model=nano", "lora model=smollm2_135m"],
            [("lora", "model=nano"), ("lora", "model=smollm2_135m")],
        ),
    ],
    ids=["two rewards", "two models"],
)
def test_runs_are_told_apart_by_the_same_words_in_the_table_the_manifest_mlflow_and_the_report(
    overrides: list[str],
    told: list[str],
    reported: list[tuple[str, str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    assert search(*overrides, f"tracking.uri={store}") == 0
    table = capsys.readouterr().out
    assert all(f" {label}: finished" in table for label in told)
    manifest = json.loads(Path("outputs/sweeps/s/sweep.json").read_text())
    assert [run["label"] for run in manifest["runs"]] == told
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("s")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in runs if "config_hash" in run.data.tags) == told
    assert report(["sweep=s", "tracking=none"]) == 0
    rows = csv.DictReader(Path("reports/s/results.csv").read_text().splitlines())
    assert sorted((row["label"], row["setting"]) for row in rows) == reported


def test_a_run_has_the_label_of_its_configuration_and_its_seed_where_there_are_several() -> None:
    runs = [parse_run(point) for point in expand(["strategy=full,lora", "lora.rank=1,4", "seed=0,1"])]
    expected = [f"{name} seed={seed}" for name in ("full", "lora rank=1", "lora rank=4") for seed in (0, 1)]
    assert sorted(label_runs(runs).values()) == expected
    assert list(label_runs(runs[:1]).values()) == ["full"]


def configurations(*overrides: str) -> list[dict[str, Any]]:
    """The flat parameters of every distinct run that the overrides name."""
    return list({run.config_hash: run.flat() for run in map(parse_run, expand(overrides))}.values())


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["strategy=full,first_k,last_k,lora"], ["full", "first_k", "last_k", "lora"]),
        (["strategy=full,first_k", "strategy.k=1,2"], ["full", "first_k k=1", "first_k k=2"]),
        (["strategy=full,lora", "lora.rank=1,4"], ["full", "lora rank=1", "lora rank=4"]),
        (
            ["strategy=full,lora", "grpo.beta=0.0,0.04"],
            ["full beta=0.0", "full beta=0.04", "lora beta=0.0", "lora beta=0.04"],
        ),
        (["strategy=full", "reward=accuracy,tinyzero"], ["full reward=accuracy", "full reward=format+accuracy"]),
    ],
    ids=["strategy", "k", "rank", "beta", "reward"],
)
def test_a_label_is_the_strategy_and_what_varies_within_it(overrides: list[str], expected: list[str]) -> None:
    assert make_labels(configurations(*overrides)) == expected


def test_a_learning_rate_that_the_strategy_decides_is_not_shown_and_one_that_varies_is() -> None:
    decided = configurations("strategy=full,lora")
    assert len({params["grpo.learning_rate"] for params in decided}) == 2  # lora multiplies it by a factor of its own
    assert make_labels(decided) == ["full", "lora"]
    varied = make_labels(configurations("strategy=full", "grpo.learning_rate=1e-4,1e-3"))
    assert varied == ["full learning_rate=0.0001", "full learning_rate=0.001"]


def test_models_are_settings_and_do_not_appear_in_the_labels() -> None:
    params = configurations("strategy=full,lora", "model=nano,smollm2_135m")
    assert set(make_labels(params, MEASURE)) == {"full", "lora"}
    assert set(make_setting_labels(params, MEASURE)) == {"model=nano", "model=smollm2_135m"}


def test_numbers_in_labels_have_as_many_digits_as_tell_them_apart() -> None:
    rates = [0.006762095212206098, 0.0067621, 0.001]
    groups = [{"strategy.name": "lora", "grpo.learning_rate": rate} for rate in rates]
    assert make_labels(groups[1:]) == ["lora learning_rate=0.00676", "lora learning_rate=0.001"]
    assert make_labels(groups) == [f"lora learning_rate={rate}" for rate in (0.006762095, 0.0067621, 0.001)]


def test_the_seed_is_never_part_of_a_label() -> None:
    assert make_labels([{"strategy.name": "full", "seed": 0}, {"strategy.name": "full", "seed": 1}]) == ["full", "full"]


values = st.one_of(st.integers(0, 2), st.sampled_from(["a", "b"]), st.booleans())
flat_params = st.fixed_dictionaries(
    {"strategy.name": st.sampled_from(["full", "lora"])},
    optional={
        "strategy.k": values,
        "grpo.beta": values,
        "curriculum.name": values,
        "reward.r.name": values,
        "grpo.k": values,
    },
)


@given(st.lists(flat_params, unique_by=lambda params: json.dumps(params, sort_keys=True), max_size=8))
@settings(deadline=None)
def test_different_configurations_have_different_labels(groups: list[dict[str, Any]]) -> None:
    labels = make_labels(groups)
    assert len(set(labels)) == len(groups)
