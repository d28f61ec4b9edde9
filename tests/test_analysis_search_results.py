"""What a report says of the search that its runs come from."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.data.load import SweepData
from analysis.figures.data import Figure, Line, Lines
from analysis.figures.draw import draw_figure
from analysis.report.__main__ import write_report
from analysis.report.results import compute_results
from analysis.report.search_results import FILE, search_results
from efficient_rl.errors import ConfigError
from tests.analysis_data import runs_of


def swept() -> SweepData:
    """Two arms with two seeds each."""
    runs = [*runs_of("full", [0.5, 0.6], 4000), *runs_of("lora", [0.4, 0.5], 500)]
    return SweepData("s", 0.0, "the command", None, tuple(runs))


def arm(name: str, test: str, centre: float, values: list[float], failed: int = 0) -> dict[str, Any]:
    """An arm as search.json has it: a learning rate a decade for each value, centred."""
    rates = [centre * 10.0 ** (place - 1) for place in range(len(values))]
    best = max(range(len(values)), key=values.__getitem__)
    return {
        "arm": name, "centre": centre, "low": rates[0], "high": rates[-1], "trials": len(values), "failed": failed,
        "spent": {"train_seconds": 90.0, "tokens": 1500.0},
        "tried": [{"learning_rate": r, "value": v, "hash": "h"} for r, v in zip(rates, values, strict=True)],
        "best": {"learning_rate": rates[best], "value": values[best], "hash": "h", "at_edge": best == len(values) - 1},
        "test": [test],
    }  # fmt: skip


def tuned(folder: Path, *arms: dict[str, Any]) -> dict[str, Any]:
    content = {"objective": {"accuracy": "maximize"}, "tuning": "s-tuning", "arms": list(arms)}
    folder.mkdir(exist_ok=True)
    (folder / FILE).write_text(json.dumps(content))
    return content


def test_a_report_says_what_the_tuning_of_every_arm_cost(tmp_path: Path) -> None:
    sweep, folder = swept(), tmp_path / "sweep"
    content = tuned(
        folder,
        arm("arm 1", sweep.runs[0].hash, 3e-4, [0.1, 0.5, 0.3]),
        arm("arm 2", sweep.runs[2].hash, 3e-3, [0.1, 0.2, 0.3]),
    )
    write_report(sweep, tmp_path, search=search_results(folder, sweep))
    page, text = ((tmp_path / "s" / name).read_text() for name in ("report.html", "report.md"))
    for said in (page, text):
        assert "chosen among 3 finished trials on the validation split; all of them together took 3 min of training" in said
        assert "3k tokens" in said
        assert "at the edge of what was tried, so a better one may lie beyond: lora." in said
        assert "Equal tuning" in said
    assert "| lora | 0.0003 to 0.03 | 0.03 (edge) | 0.003 | 30% | 3 | 0 | 90.0 | 1.5k |" in text
    assert json.loads((tmp_path / "s" / "report.json").read_text())["search"] == content
    assert (tmp_path / "s" / "tuning.png").stat().st_size > 1000


def test_arms_are_drawn_over_multiples_of_their_own_centres_under_the_names_of_the_report(tmp_path: Path) -> None:
    sweep = swept()
    tuned(
        tmp_path,
        arm("arm 1", sweep.runs[0].hash, 3e-4, [0.1, 0.5, 0.3]),
        arm("arm 2", sweep.runs[2].hash, 3e-3, [0.1, 0.2, 0.3]),
    )
    found = search_results(tmp_path, sweep)
    assert found is not None
    panel = found.figures[0].panels[""]
    assert isinstance(panel, Lines)
    assert panel.names == ("0.1", "1", "10")
    assert [(line.label, line.y) for line in panel.lines] == [("full", (0.1, 0.5, 0.3)), ("lora", (0.1, 0.2, 0.3))]


def test_arms_with_failed_trials_are_called_unequally_tuned(tmp_path: Path) -> None:
    sweep = swept()
    tuned(
        tmp_path,
        arm("arm 1", sweep.runs[0].hash, 3e-4, [0.1, 0.5, 0.3]),
        arm("arm 2", sweep.runs[2].hash, 3e-3, [0.1, 0.2], failed=1),
    )
    found = search_results(tmp_path, sweep)
    assert found is not None
    assert "among 2 to 3 finished trials" in found.sentences[0]
    assert any("not tuned equally" in sentence for sentence in found.sentences)


def test_learning_rates_of_a_sampler_are_no_common_axis(tmp_path: Path) -> None:
    sweep = swept()
    odd = arm("arm 2", sweep.runs[2].hash, 3e-3, [0.1, 0.2, 0.3])
    odd["tried"] = [{**each, "learning_rate": each["learning_rate"] * 1.7} for each in odd["tried"]]
    tuned(tmp_path, arm("arm 1", sweep.runs[0].hash, 3e-4, [0.1, 0.5, 0.3]), odd)
    found = search_results(tmp_path, sweep)
    assert found is not None
    assert found.figures == []


def test_the_front_of_a_search_is_named_with_its_values_and_cost(tmp_path: Path) -> None:
    trials = [
        {"number": 0, "hash": "a" * 16, "params": {"strategy": "lora", "lora.rank": 4}, "values": [0.25, 5e5]},
        {"number": 1, "hash": "bbbbbbbb0", "params": {"strategy": "full", "rate": 0.00031234}, "values": [0.5, 4e6]},
        {"number": 2, "hash": "c" * 16, "params": {"strategy": "full"}, "values": [0.1, 4e6]},
    ]  # fmt: skip
    content = {
        "objectives": {"accuracy": "maximize", "params/trainable": "minimize"}, "trials": trials, "front": [0, 1],
        "counts": {"complete": 3, "fail": 0, "repeats": 2}, "spent": {"train_seconds": 30.0, "tokens": 2e6},
    }  # fmt: skip
    (tmp_path / FILE).write_text(json.dumps(content))
    found = search_results(tmp_path, swept())
    assert found is not None
    assert found.sentences == ["The search's trials (3 complete, 2 repeats) took 30 s of training and 2M tokens."]
    assert found.table.head == ("trial", "run", "values", "accuracy", "trained parameters")
    assert [[text for text, _ in row] for row in found.table.rows] == [
        ["1", "bbbbbbbb", "strategy=full rate=0.000312", "50%", "4M"],
        ["0", "aaaaaaaa", "strategy=lora rank=4", "25%", "500k"],
    ]
    assert found.table.caption == "2 of 3 trials."


def test_a_sweep_that_was_no_search_says_nothing_of_one_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    assert search_results(tmp_path, swept()) is None
    (tmp_path / FILE).write_text('{"arms": 3}')
    with pytest.raises(ConfigError, match=r"damaged: .*search\.json .*rewrites it"):
        search_results(tmp_path, replace(swept()))


def test_further_evaluation_sets_have_a_figure_where_runs_had_any() -> None:
    runs = [
        *runs_of("full", [0.5, 0.6], 4000, sets={"gsm8k": {"accuracy": 0.25}, "svamp": {"accuracy": 0.5}}),
        *runs_of("lora", [0.4, 0.5], 500),
    ]
    figures = {figure.name: figure for figure in compute_results(SweepData("s", 0.0, "c", None, tuple(runs))).figures}
    panel = figures["sets"].panels[""]
    assert isinstance(panel, Lines)
    assert panel.names == ("gsm8k", "svamp")
    assert {line.label: line.y for line in panel.lines} == {"full": (0.25, 0.5)}
    assert "sets" not in {figure.name for figure in compute_results(swept()).figures}


def test_short_runs_that_took_different_times_are_not_called_equal() -> None:
    runs = [*runs_of("full", [0.5, 0.6], 4000, train_seconds=1.3), *runs_of("lora", [0.4, 0.5], 500, train_seconds=0.8)]
    answer = compute_results(SweepData("s", 0.0, "c", None, tuple(runs)))
    assert "pareto_seconds" in {figure.name for figure in answer.figures}
    assert not any("training time" in sentence for sentence in answer.left_out)


def test_no_tick_stands_at_half_a_step() -> None:
    line = Line("full", (1.0, 2.0, 3.0), (0.1, 0.2, 0.3))
    axes = draw_figure(Figure("f", "f", "", {"": Lines("training step", "reward", "number", (line,))}), {}).axes[0]
    assert all(float(tick).is_integer() for tick in axes.get_xticks())
