"""Two sweeps or two versions of the code against each other."""

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.compare import compare_runs, main, named_runs, sentences
from analysis.data.load import Run
from efficient_rl.errors import ConfigError
from tests.analysis_data import result, write_run, write_sweep

SMALL = 0.005


def runs(strategy: str, beta: float, accuracies: dict[int, float], **changes: Any) -> list[Run]:
    """A run for every seed."""
    return [
        Run(
            f"{strategy}{beta}{seed}", {"strategy.name": strategy, "grpo.beta": beta, "seed": seed}, result(value, **changes)
        )
        for seed, value in accuracies.items()
    ]


def test_configurations_are_matched_by_all_that_does_not_differ_throughout() -> None:
    old = [*runs("full", 0.0, {0: 0.5, 1: 0.52, 2: 0.51}), *runs("lora", 0.0, {0: 0.4, 1: 0.41, 2: 0.39})]
    new = [*runs("full", 0.04, {0: 0.6, 1: 0.62, 2: 0.61 + SMALL}, train_seconds=25.0), *runs("bitfit", 0.04, {0: 0.3})]
    found = compare_runs(old, new)
    assert found.apart == {"grpo.beta": (["0.0"], ["0.04"])}
    [change] = found.changes
    assert (change.label, change.difference.seeds, change.seconds_ratio) == ("full", 3, 2.0)
    assert change.difference.accuracy.value == pytest.approx(0.1 + SMALL / 3)
    assert change.difference.decided
    assert found.unmatched == 2
    said = sentences(found, ("old", "new"))
    assert said[0] == "new is more accurate in 1 of 1 configurations: full."
    assert "2 configurations are in one of the two only and take no part." in said


def test_differences_are_paired_by_seed_and_corrected_for_all_configurations() -> None:
    # Seeds scatter by 0.2, the same in both: only the pairs show the difference.
    old = [*runs("full", 0.0, {0: 0.3, 1: 0.5}), *runs("lora", 0.0, {0: 0.3, 1: 0.5})]
    new = [*runs("full", 0.0, {1: 0.6, 0: 0.4 + SMALL}), *runs("lora", 0.0, {0: 0.3, 1: 0.51})]
    found = {change.label: change.difference for change in compare_runs(old, new).changes}
    # 0.105 and 0.1: mean 0.1025, error 0.0025, t = 41 with 1 degree of freedom, p = 2 arctan(1 / 41) / pi
    assert found["full"].p == pytest.approx(0.015526, abs=1e-5)
    assert found["full"].holm_p == pytest.approx(2 * found["full"].p)
    assert not found["lora"].decided


def test_a_difference_in_what_measures_is_said() -> None:
    old, new = runs("full", 0.0, {0: 0.5, 1: 0.52}), runs("full", 0.0, {0: 0.5, 1: 0.52})
    new = [Run(run.hash, {**run.params, "eval.problems": 5}, run.result) for run in new]
    old = [Run(run.hash, {**run.params, "eval.problems": 9}, run.result) for run in old]
    said = sentences(compare_runs(old, new), ("a", "b"))
    assert "The two were not measured alike, so accuracies may differ for that alone: eval.problems." in said


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"no configuration is in both \(1 and 1\) on two common seeds"):
        compare_runs(runs("full", 0.0, {0: 0.5, 1: 0.5}), runs("full", 0.0, {1: 0.5, 2: 0.5}))


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Sweep `s` ran with commit 1111111 first and was forced to run again with 2222222."""
    folder = tmp_path / "outputs"
    write_sweep(folder, "s", {f"full{seed}": {"strategy.name": "full", "seed": seed} for seed in (0, 1)})
    for seed in (0, 1):
        run = write_run(folder, f"full{seed}", accuracy=0.6 + seed / 10, code_version="2222222bbbbb")
        earlier = run / "earlier" / "before-attempt-2"
        earlier.mkdir(parents=True)
        old = json.loads((run / "result.json").read_text()) | {"accuracy": 0.5 + seed / 10, "code_version": "1111111aaaaa"}
        (earlier / "result.json").write_text(json.dumps(old))
    return folder


def test_two_commits_are_compared_with_results_that_were_set_aside(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["1111111", "2222222", f"output={outputs}", f"reports={tmp_path / 'r'}"]) == 0
    printed = capsys.readouterr().out
    assert "+10.0 points [+10.0, +10.0]" in printed
    content = json.loads((tmp_path / "r" / "1111111-against-2222222.json").read_text())
    assert content["overall"]["value"] == pytest.approx(0.1)
    head, row = (tmp_path / "r" / "1111111-against-2222222.csv").read_text().splitlines()
    assert head.startswith("configuration,difference,low,high,p,holm_p,seeds")
    assert float(row.split(",")[1]) == pytest.approx(0.1)
    assert row.startswith("full,")


def test_a_sweep_has_its_newest_results(outputs: Path) -> None:
    assert [run.result.accuracy for run in named_runs(outputs, "s") if run.result] == [0.6, 0.7]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["s"], "1 names given and two are compared"),
        (["s", "t"], "unknown sweep 't'"),
        (["s", "3333333"], "no finished run of '3333333'"),
        (["s", "s", "sweep=s"], "unknown key 'sweep'"),
    ],
)
def test_a_bad_request_ends_in_status_2_and_a_remedy(
    outputs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([*arguments, f"output={outputs}"]) == 2
    assert message in capsys.readouterr().err
