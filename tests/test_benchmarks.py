"""The benchmark for GPUs runs, on a small model, where there is none; the recorded figures are all there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment

RESULTS = ROOT / "benchmarks" / "results"


@pytest.mark.slow
def test_the_gpu_benchmark_works_without_a_network_on_a_small_model(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.training_gpu",
        "--tiny",
        "--steps",
        "2",
        "--output",
        str(tmp_path / "r.json"),
    ]
    done = subprocess.run(
        [*command, "--strategies", "full", "lisa"],
        env=environment(HF_HUB_OFFLINE="1"), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "r.json").read_text())
    assert set(result["difference_of_first_update"]) == {"full", "last_k", "lora"}
    assert all(found["weights"] < 1e-3 for found in result["difference_of_first_update"].values())
    found = result["strategies"]
    assert found["full"]["step_ratio"] > 0
    assert found["full"]["trl"]["backward_seconds"] > 0
    assert 0 < found["lisa"]["ours"]["generation_seconds"] < found["lisa"]["ours"]["step_seconds"]


def test_the_recorded_figures_name_their_bounds_and_cover_every_strategy() -> None:
    measured = json.loads((RESULTS / "training.json").read_text())
    assert len(measured["figures"]) == 9
    assert all(row["ratio"] > 0 and 0 < row["at_most"] < 1 for row in measured["figures"])
    (reference,) = [row for row in measured["figures"] if "bytes for the reference" in row["what"]]
    assert reference["ratio"] <= reference["at_most"]  # the one that no busy machine can change
    assert max(measured["bookkeeping_share"].values()) <= 0.03
    assert set(measured["strategies"]) == {path.stem for path in (ROOT / "conf" / "strategy").glob("*.yaml")}


def test_every_recorded_claim_has_five_seeds_and_all_its_runs() -> None:
    claims = json.loads((RESULTS / "claims.json").read_text())["claims"]
    assert {claim["name"] for claim in claims} == {path.stem for path in (ROOT / "sweeps" / "claims").glob("*.yaml")}
    for claim in claims:
        assert claim["finished"] == claim["runs"], claim["name"]
        assert claim["seeds"] >= 5, claim["name"]
        assert all(check["estimate"]["low"] is not None for check in claim["checks"]), claim["name"]


def test_the_recorded_searches_had_a_quarter_of_the_grid_and_at_least_five_seeds() -> None:
    measured = json.loads((RESULTS / "searching.json").read_text())
    replay = measured["replay"]
    assert replay["trials"] * 4 <= replay["runs_of_the_grid"] == len(measured["grid"])
    assert set(replay["hypervolume_share"]) == {"random", "pareto", "nsga2"}
    for found in replay["hypervolume_share"].values():
        assert len(found["each"]) == replay["seeds"] >= 5
        assert all(0 < share <= 1 for share in found["each"])


def test_the_recorded_sampling_beats_the_sampler_before() -> None:
    figures = json.loads((RESULTS / "sampling.json").read_text())["figures"]
    assert len(figures) == 3
    assert all(0 < row["ratio"] < 1 and row["load"] > 0 for row in figures)
