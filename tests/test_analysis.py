"""The report: what it computes, what it says, and that it can be trusted with damaged, partial and hostile input."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Annotation

from analysis.data.load import REWARD, Result, Run, SweepData, load_sweep, make_series
from analysis.figures.data import Bars, Figure, Heat, Intervals, Line, Lines, Point, Scatter
from analysis.figures.draw import draw_figure, draw_lines, draw_scatter
from analysis.figures.style import styles, written
from analysis.report.__main__ import main
from analysis.report.results import analyse
from analysis.report.sentences import ONE_SEED, findings, points, share_text
from analysis.stats.aggregate import Summary, curves, summarize
from analysis.stats.intervals import Estimate
from analysis.stats.pareto import pareto_front
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.result import RunResult
from tests.conftest import environment, tiny_run

# One finished run as efficient_rl.rundir.directory.RunResult writes it.
EVALUATION = {
    "accuracy": 0.5,
    "greedy_accuracy": 0.6,
    "pass_at_k": 0.7,
    "standard_error": 0.025,
    "problems": 200,
    "samples": 4,
}
RESULT: dict[str, Any] = {
    "model": "nano",
    "strategy": "full",
    "seed": 0,
    "trainable_params": 1000,
    "mean_active_params": 1000.0,
    "total_params": 4000,
    "accuracy": 0.5,
    "accuracy_before": 0.2,
    "evaluation": EVALUATION,
    "evaluation_before": EVALUATION,
    "final_reward": 0.7,
    "peak_memory_bytes": {"generation": 2**20, "backward": 3 * 2**20},
    "memory_parts_bytes": {"parameters": 2**19},
    "phase_seconds": {},
    "train_seconds": 12.5,
    "total_seconds": 15.0,
    "steps": 3,
    "tokens": 1234,
    "code_version": "abc",
    "attempt": 1,
    "finished_at": 1.0,
}


def result(accuracy: float, trainable: int = 1000, **changes: Any) -> Result:
    known: dict[str, Any] = {
        "trainable_params": trainable,
        "mean_active_params": float(trainable),
        "total_params": 4000,
        "accuracy": accuracy,
        "accuracy_before": 0.2,
        "greedy_accuracy": 0.6,
        "standard_error": 0.025,
        "problems": 200,
        "final_reward": 0.7,
        "peak_memory_bytes": 3 * 2**20,
        "train_seconds": 12.5,
        "tokens": 1234,
        "code_version": "abc",
        "samples": 4,
        "phase_peaks_bytes": {"generation": 2**20, "backward": 3 * 2**20},
        "parts_bytes": {"parameters": 2**19},
    }
    return Result(**{**known, **changes})


def rewarded(run: Run, *values: float) -> Run:
    """The run with these rewards at steps 1, 2, ..."""
    return replace(run, series={REWARD: make_series(enumerate(values, 1))})


def runs_of(strategy: str, accuracies: Sequence[float | None], trainable: int = 1000, **changes: Any) -> list[Run]:
    """A run for every accuracy, with seeds 0, 1, ...; None is a run that is not finished."""
    return [
        Run(
            f"{strategy}-{trainable}-{seed}",
            {"strategy.name": strategy, "model.name": changes.get("model", "nano"), "seed": seed},
            None if value is None else result(value, trainable, **{k: v for k, v in changes.items() if k != "model"}),
        )
        for seed, value in enumerate(accuracies)
    ]


def sentences(*runs: Run) -> list[str]:
    return findings(analyse(SweepData("s", 0.0, "c", None, runs)))


def write_run(outputs: Path, key: str, rewards: Sequence[float] = (0.1, 0.2, 0.3), **changes: Any) -> Path:
    folder = outputs / "runs" / key
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({**RESULT, "config_hash": key, **changes}))
    lines = [{"step": 0, "time": 0.0, "metrics": {"eval/accuracy": 0.2}}]
    lines += [{"step": step, "time": 0.0, "metrics": {"train/reward": reward}} for step, reward in enumerate(rewards, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def write_sweep(
    outputs: Path, name: str, runs: Mapping[str, Mapping[str, Any]], created: float = 1.0, **changes: Any
) -> None:
    folder = outputs / "sweeps" / name
    folder.mkdir(parents=True)
    manifest = {
        "name": name,
        "created": created,
        "command": "python -m efficient_rl.sweep",
        "question": None,
        "runs": [{"hash": key, "params": params} for key, params in runs.items()],
    }
    (folder / "sweep.json").write_text(json.dumps({**manifest, **changes}))


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """The outputs of the sweep `demo`: full and lora, two seeds each, all finished."""
    folder = tmp_path / "outputs"
    params = {f"{name}{seed}": {"strategy.name": name, "seed": seed} for name in ("full", "lora") for seed in (0, 1)}
    write_sweep(folder, "demo", params, question="Is it worth it?")
    for key, accuracy, size in (("full0", 0.5, 4000), ("full1", 0.7, 4000), ("lora0", 0.4, 500), ("lora1", 0.5, 500)):
        write_run(folder, key, accuracy=accuracy, trainable_params=size, mean_active_params=float(size))
    return folder


def report(outputs: Path, *arguments: str) -> int:
    return main([f"output={outputs}", f"reports={outputs.parent / 'reports'}", *arguments])


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )


# Numbers


def test_a_summary_of_three_seeds_has_the_numbers_worked_out_by_hand() -> None:
    [summary] = summarize(runs_of("lora", [0.40, 0.50, 0.63], trainable=1000, standard_error=0.0))
    assert summary.seeds == 3
    assert summary.accuracy == pytest.approx(0.51)  # 1.53 / 3
    # Deviations -0.11, -0.01, 0.12: variance 0.0266 / 2 = 0.0133, error sqrt(0.0133 / 3) = 0.066583; t(2 free) = 4.302653
    assert summary.accuracy_low == pytest.approx(0.51 - 4.302653 * 0.0665833, abs=1e-5)
    assert summary.accuracy_high == pytest.approx(0.51 + 4.302653 * 0.0665833, abs=1e-5)
    assert summary.gain.value == pytest.approx(0.31)  # 0.51 - 0.20
    assert summary.share == pytest.approx(0.25)  # 1000 / 4000


def test_the_interval_of_an_accuracy_widens_with_the_error_over_problems() -> None:
    [sure] = summarize(runs_of("lora", [0.5, 0.5, 0.5], standard_error=0.0))
    [unsure] = summarize(runs_of("lora", [0.5, 0.5, 0.5], standard_error=0.1))
    assert (sure.accuracy_low, sure.accuracy_high) == (0.5, 0.5)
    # The seeds agree, so all of the error is that of the 200 problems: t with 199 degrees of freedom is 1.971957.
    assert unsure.accuracy_low == pytest.approx(0.5 - 1.971957 * 0.1, abs=1e-6)


def test_one_seed_has_no_interval() -> None:
    [summary] = summarize(runs_of("lora", [0.4]))
    assert (summary.accuracy_low, summary.accuracy_high) == (None, None)


def test_unfinished_seeds_do_not_count() -> None:
    [summary] = summarize([*runs_of("lora", [0.4, None, 0.6]), *runs_of("full", [None, None])])
    assert (summary.label, summary.seeds) == ("lora", 2)
    assert summary.accuracy == pytest.approx(0.5)


def test_summaries_come_from_high_to_low_accuracy_and_equal_ones_from_cheap_to_dear() -> None:
    runs = [*runs_of("full", [0.5], 4000), *runs_of("first_k", [0.6], 2000), *runs_of("lora", [0.5], 500)]
    assert [summary.label for summary in summarize(runs)] == ["first_k", "lora", "full"]


def test_peak_memory_and_time_are_means_over_seeds() -> None:
    runs = [*runs_of("lora", [0.5], peak_memory_bytes=100, train_seconds=10.0)]
    runs += [Run("other", {**runs[0].params, "seed": 1}, result(0.5, peak_memory_bytes=300, train_seconds=20.0))]
    [summary] = summarize(runs)
    assert (summary.peak_memory_bytes, summary.train_seconds) == (200, 15.0)


def test_a_reward_curve_is_the_mean_over_seeds_of_the_last_steps() -> None:
    first, second = runs_of("lora", [0.4, 0.5])
    [curve] = curves([rewarded(first, 0.0, 0.2, 0.4), rewarded(second, 0.4, 0.4, 0.8)], REWARD, window=2)
    # Means over steps 1-2 and 2-3: 0.1, 0.3 for one seed and 0.4, 0.6 for the other; both 0.15 from their mean.
    assert curve.steps.tolist() == [2, 3]
    assert curve.mean == pytest.approx([0.25, 0.45])
    half = 12.706205 * 0.15  # t with one degree of freedom, error 0.15 sqrt(2) / sqrt(2)
    assert curve.low == pytest.approx([0.25 - half, 0.45 - half], abs=1e-5)
    assert curve.high == pytest.approx([0.25 + half, 0.45 + half], abs=1e-5)


def test_a_reward_curve_has_only_the_steps_of_every_seed_and_no_band_with_one_seed() -> None:
    runs = runs_of("a", [1, 1])
    both = [replace(run, series={REWARD: make_series([(1, 0.5), (2 + i, 0.5)])}) for i, run in enumerate(runs)]
    [curve] = curves(both, REWARD)
    assert curve.steps.tolist() == [1]
    [single] = curves(both[:1], REWARD)
    assert (single.low, single.high) == (None, None)


# Pareto front


def summaries_at(*places: tuple[int, float]) -> list[Summary]:
    """Summaries of one seed with these trained parameters and accuracies, all in one setting."""
    return summarize([Run(str(i), {"strategy.name": f"s{i}"}, result(y, x)) for i, (x, y) in enumerate(places)])


def places(summaries: Sequence[Summary]) -> list[tuple[int, float]]:
    return [(summary.trainable_params, summary.accuracy) for summary in summaries]


def test_the_front_of_a_worked_example() -> None:
    found = pareto_front(summaries_at((10, 0.5), (20, 0.4), (20, 0.6), (30, 0.6), (40, 0.7), (50, 0.1)))
    assert places(found) == [(10, 0.5), (20, 0.6), (40, 0.7)]


def test_equal_configurations_stay_on_the_front_together() -> None:
    assert places(pareto_front(summaries_at((10, 0.5), (10, 0.5), (20, 0.5)))) == [(10, 0.5), (10, 0.5)]


def dominates(one: Summary, other: Summary) -> bool:
    cheaper, better = other.trainable_params - one.trainable_params, one.accuracy - other.accuracy
    return cheaper >= 0 and better >= 0 and (cheaper > 0 or better > 0)


clouds = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6).map(lambda n: n / 6)), max_size=10)


@given(clouds)
@settings(deadline=None)
def test_the_front_is_exactly_what_no_other_dominates(cloud: list[tuple[int, float]]) -> None:
    summaries = summaries_at(*cloud)
    front = pareto_front(summaries)
    expected = [summary for summary in summaries if not any(dominates(other, summary) for other in summaries)]
    assert sorted(s.label for s in front) == sorted(s.label for s in expected)
    assert places(front) == sorted(places(front))


@given(clouds.flatmap(lambda cloud: st.tuples(st.just(cloud), st.permutations(range(len(cloud))))))
@settings(deadline=None)
def test_the_front_does_not_depend_on_the_order(case: tuple[list[tuple[int, float]], list[int]]) -> None:
    cloud, order = case
    summaries = summaries_at(*cloud)
    assert pareto_front([summaries[index] for index in order]) == pareto_front(summaries)


# Sentences


def test_one_seed_per_configuration_is_said() -> None:
    assert ONE_SEED in sentences(*runs_of("full", [0.5]), *runs_of("lora", [0.4]))
    assert ONE_SEED not in sentences(*runs_of("full", [0.5, 0.6]), *runs_of("lora", [0.4, 0.5]))


def test_a_single_seed_among_several_is_named() -> None:
    said = sentences(*runs_of("full", [0.5, 0.6]), *runs_of("lora", [0.4]))
    assert "With one seed there is no interval, and differences may be noise: lora." in said


def test_what_the_data_do_not_tell_apart_is_called_undecided() -> None:
    said = sentences(*runs_of("full", [0.5, 0.7, 0.6]), *runs_of("lora", [0.6, 0.5, 0.55]))
    assert any(text.startswith("The data do not decide between full and lora (+5.0 points [") for text in said)
    assert not any(text.startswith("Of all") for text in said)  # of one pair all is said


def test_what_the_data_tell_apart_is_said_with_its_interval() -> None:
    said = sentences(*runs_of("full", [0.60, 0.70, 0.65]), *runs_of("lora", [0.41, 0.50, 0.45]))
    # Differences 0.19, 0.20, 0.20: mean 0.19667, error 0.0057735 / sqrt(3) = 0.0033333; t(2 free) = 4.302653
    assert (
        "full is more accurate than lora (+19.7 points [+18.2, +21.1]): told apart after Holm's correction for all pairs."
        in said
    )


def test_configurations_without_common_seeds_are_not_compared() -> None:
    one, other = runs_of("full", [0.6, 0.7]), runs_of("lora", [None, None, 0.4, 0.5])
    assert not any("decide" in text for text in sentences(*one, *other))


def test_no_change_against_the_accuracy_before_training_is_said() -> None:
    said = sentences(*runs_of("full", [0.1, 0.3]), *runs_of("lora", [0.05, 0.0501], standard_error=0.001))  # 0.2 before
    assert "The interval of the gain holds 0, so the data do not show a change by training: full." in said
    assert "Below the accuracy before training, interval included: lora." in said


def test_the_best_and_the_cheapest_come_with_their_numbers() -> None:
    known = {"standard_error": 0.0}
    said = sentences(*runs_of("full", [0.64, 0.66], 4000, **known), *runs_of("lora", [0.44, 0.46], 500, **known))
    # Two seeds 0.01 from their mean: error 0.01, t(1 free) = 12.706, so 12.7 points either way.
    assert (
        "Best accuracy: full with 65.0% [52.3%, 77.7%], n=2; that is +45.0 points against the 20.0% before training, with "
        "100% of the parameters trained."
    ) in said
    assert (
        "Cheapest on the Pareto front (2 of 2 configurations): lora with 500 trained parameters (12.5%) reaches 45.0% "
        "[32.3%, 57.7%], n=2, 20.0 points below the best."
    ) in said


def test_few_seeds_are_said_to_give_wide_intervals() -> None:
    assert any("With 2 seeds they are wide" in text for text in sentences(*runs_of("full", [0.6, 0.7])))
    assert not any("they are wide" in text for text in sentences(*runs_of("full", [0.5, 0.6, 0.7, 0.8, 0.9])))


def test_an_axis_on_which_all_are_equal_is_left_out_with_a_sentence() -> None:
    runs = [*runs_of("full", [0.5, 0.6], train_seconds=1.0), *runs_of("lisa", [0.4, 0.5], train_seconds=2.0)]
    answer = analyse(SweepData("s", 0.0, "c", None, tuple(runs)))
    names = {figure.name for figure in answer.figures}
    assert "pareto" not in names
    assert "pareto_seconds" in names
    assert "All configurations have the same trained parameters: that axis is left out." in findings(answer)


def test_settings_are_not_compared_with_each_other() -> None:
    small, large = runs_of("full", [0.3, 0.4]), runs_of("full", [0.8, 0.9], 3000, model="large")
    summaries = summarize([*small, *large])
    assert [summary.name for summary in summaries] == ["full, model=nano", "full, model=large"]
    said = sentences(*small, *large)
    assert any(text.startswith("model=nano: Best accuracy: full with 35.0%") for text in said)
    assert any(text.startswith("model=large: Best accuracy: full with 85.0%") for text in said)
    assert not any("decide" in text or "Pareto" in text for text in said)


def test_unfinished_runs_are_counted_and_mixed_code_versions_are_named() -> None:
    said = sentences(*runs_of("full", [0.5, None]), *runs_of("lora", [0.5], code_version="xyz"))
    assert "2 of 3 runs finished; the numbers below leave out the other 1." in said
    assert "The runs come from 2 versions of the code, so differences may too: abc, xyz." in said


def test_points_have_a_sign_and_no_negative_zero() -> None:
    assert [points(0.375), points(-0.0664), points(-0.0001)] == ["+37.5", "-6.6", "+0.0"]


def test_a_small_share_is_not_rounded_to_nothing() -> None:
    assert [share_text(1.0), share_text(0.159), share_text(0.000412)] == ["100%", "15.9%", "0.0412%"]


# Reading


def test_the_report_reads_what_the_record_writes(tmp_path: Path) -> None:
    config = tiny_run("strategy=last_k")
    key = config.config_hash
    record = RunDirectory(tmp_path / "runs" / key)
    with record.claim(config) as attempt:
        attempt.append(0, {"eval/accuracy": 0.2})
        attempt.append(1, {"train/reward": 0.25})
        attempt.append(2, {"train/reward": 0.5})
        attempt.finish(RunResult(**{**RESULT, "config_hash": key}))
    write_sweep(tmp_path, "s", {key: config.flat()})
    [run] = load_sweep(tmp_path, "s").runs
    assert run.result == result(0.5)
    assert run.series[REWARD] == make_series([(1, 0.25), (2, 0.5)])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        json.dumps({**RESULT, "config_hash": "another"}),
        json.dumps({key: value for key, value in {**RESULT, "config_hash": "lora1"}.items() if key != "accuracy"}),
        json.dumps({**RESULT, "config_hash": "lora1"})[:-40],
    ],
    ids=["empty", "half", "list", "null", "other run", "no accuracy", "cut off"],
)
def test_a_damaged_result_counts_as_unfinished_for_the_report_and_for_the_record(outputs: Path, content: str) -> None:
    folder = outputs / "runs" / "lora1"
    (folder / "result.json").write_text(content)
    assert RunDirectory(folder).result() is None
    sweep = load_sweep(outputs, "demo")
    assert {run.hash for run in sweep.finished} == {"full0", "full1", "lora0"}
    assert sentences(*sweep.runs)[0] == "3 of 4 runs finished; the numbers below leave out the other 1."


@pytest.mark.parametrize("value", ["NaN", "Infinity", "true", '"0.5"', "null"])
def test_an_accuracy_that_is_no_finite_number_counts_as_unfinished(outputs: Path, value: str) -> None:
    path = outputs / "runs" / "lora1" / "result.json"
    path.write_text(
        path.read_text().replace('"accuracy": 0.5, "accuracy_before"', f'"accuracy": {value}, "accuracy_before"')
    )
    assert value in path.read_text()
    assert len(load_sweep(outputs, "demo").finished) == 3


def test_of_a_step_recorded_twice_the_first_line_counts_and_damaged_lines_are_skipped(outputs: Path) -> None:
    good = [(1, 0.1), (2, 0.2), (1, 0.9), (3, 0.3)]
    lines = [json.dumps({"step": step, "time": 0.0, "metrics": {"train/reward": reward}}) for step, reward in good]
    text = "\n".join([*lines[:2], "{half", "[]", '{"step": 4, "metrics": 5}', *lines[2:]]) + "\n" + lines[0][:-3]
    (outputs / "runs" / "lora0" / "metrics.jsonl").write_text(text)
    [run] = [run for run in load_sweep(outputs, "demo").runs if run.hash == "lora0"]
    assert run.series[REWARD] == make_series([(1, 0.1), (2, 0.2), (3, 0.3)])


def test_without_a_name_the_newest_undamaged_sweep_is_taken(outputs: Path) -> None:
    write_sweep(outputs, "newer", {}, created=5.0)
    write_sweep(outputs, "damaged", {}, created=9.0)
    (outputs / "sweeps" / "damaged" / "sweep.json").write_text("{")
    assert load_sweep(outputs, None).name == "newer"


# Plots


def empty_axes() -> Axes:
    canvas = Canvas(figsize=(9, 5))
    FigureCanvasAgg(canvas)
    return canvas.subplots()


def scatter_of(*places: tuple[float, float]) -> Scatter:
    """Points s0, s1, ... at these places, in one setting, as the report would draw them."""
    summaries = summaries_at(*((round(x), y) for x, y in places))
    front = pareto_front(summaries)
    points = [Point(s.label, s.costs["trainable_params"], Estimate(s.accuracy), s in front, None, True) for s in summaries]
    line = tuple((float(s.trainable_params), s.accuracy) for s in front)
    return Scatter("trained parameters", "count", "held-out accuracy", "share", tuple(points), line, (0.2, 0.2))


def drawn(data: Scatter) -> Axes:
    ax = empty_axes()
    draw_scatter(ax, data, styles(point.label for point in data.points))
    return ax


def test_the_front_is_a_step_line_and_the_accuracy_before_training_a_dashed_one() -> None:
    ax = drawn(scatter_of((10, 0.5), (100, 0.4), (1000, 0.7)))
    right = ax.get_xlim()[1]
    found = [(line.get_linestyle(), np.asarray(line.get_xydata()).tolist()) for line in ax.lines]
    assert ("-", [[10, 0.5], [1000, 0.5], [1000, 0.7], [right, 0.7]]) in found
    assert ("--", [[0, pytest.approx(0.2)], [1, pytest.approx(0.2)]]) in found
    assert ax.get_xscale() == "log"
    assert "before training 20.0%" in {text.get_text() for text in ax.texts}


crowds = st.lists(st.tuples(st.integers(10, 10**6), st.floats(0.0, 1.0)), min_size=1, max_size=14)


@given(crowds)
@settings(max_examples=15, deadline=None)
def test_labels_of_points_never_overlap_and_every_configuration_is_named(crowd: list[tuple[int, float]]) -> None:
    data = scatter_of(*crowd)
    ax = drawn(data)
    names = {point.label for point in data.points}
    boxes = [text.get_window_extent() for text in ax.texts if isinstance(text, Annotation) and text.get_text() in names]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    legend = ax.get_legend()
    if legend is None:
        assert len(boxes) == len(names)
    else:
        assert {text.get_text() for text in legend.get_texts()} == names | {"Pareto front"}


def test_a_label_does_not_stand_on_the_front_line() -> None:
    data = scatter_of((61_440, 0.602), (107_136, 0.586), (323_776, 0.554))
    ax = drawn(data)
    x, y = ax.transData.transform((61_440, 0.602))
    labels = [text for text in ax.texts if text.get_text() in {point.label for point in data.points}]
    assert len(labels) == 3
    for text in labels:
        box = text.get_window_extent()
        assert box.x1 < x or box.y1 < y or box.y0 > y, text.get_text()


def test_bands_are_drawn_where_there_are_several_seeds_only() -> None:
    ax = empty_axes()
    with_band = Line("full", (1.0, 2.0), (0.1, 0.2), (0.0, 0.1), (0.2, 0.3))
    data = Lines("step", "reward", "number", (with_band, Line("lora", (1.0, 2.0), (0.1, 0.2))))
    draw_lines(ax, data, styles(["full", "lora"]))
    assert (len(ax.lines), len(ax.collections)) == (2, 1)


def test_every_kind_of_figure_is_drawn_with_all_its_names() -> None:
    half = Estimate(0.5, 0.4, 0.6)
    kinds = {
        "bars": Bars("memory", "bytes", ("full", "lora"), {"weights": (2.0**20, 2.0**21)}, (2.0**21, 2.0**22), "peak"),
        "heat": Heat("step", "block", (1, 2), ("0", "1"), ((0.0, 1.0), (1.0, 0.5))),
        "gaps": Intervals("points", "points", ("full", "lora"), (half, half), (True, False)),
    }
    canvas = draw_figure(Figure("f", "t", "c", kinds), styles(["full", "lora"]))
    ticks = [[text.get_text() for text in ax.get_yticklabels()] for ax in canvas.axes]
    assert ticks == [["full", "lora"], ["0", "1"], ["full", "lora"]]
    assert [ax.get_title(loc="left") for ax in canvas.axes] == ["bars", "heat", "gaps"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.4544, "share", "45.44%"),
        (107_136, "count", "107k"),
        (999_700, "count", "1M"),
        (494_000_000, "count", "494M"),
        (63 * 2**20, "bytes", "63 MiB"),
        (90, "seconds", "1.5 min"),
        (0.02, "seconds", "20 ms"),
        (0, "bytes", "0 B"),
        (-2.5, "points", "-2.5"),
    ],
)
def test_numbers_are_written_with_their_units(value: float, unit: str, text: str) -> None:
    assert written(value, unit) == text


def test_strategies_differ_in_colour_and_their_variants_in_line() -> None:
    looks = styles(["full beta=0", "full beta=1", "lora beta=0", "lora beta=1"])
    assert looks["full beta=0"].color == looks["full beta=1"].color != looks["lora beta=0"].color
    assert looks["full beta=0"].line == looks["lora beta=0"].line != looks["full beta=1"].line
    alone = styles(["full beta=0", "full beta=1"])
    assert alone["full beta=0"].color != alone["full beta=1"].color


@given(st.sets(st.tuples(st.sampled_from("abcdefghi"), st.integers(0, 4)), max_size=28))
@example({("a", k) for k in range(5)} | {("b", 0)})
@example({(strategy, k) for strategy in "abcdefgh" for k in (0, 1)})
def test_configurations_never_look_the_same(pairs: set[tuple[str, int]]) -> None:
    looks = styles(f"{strategy} k={k}" for strategy, k in pairs)
    assert len({(look.color, look.line) for look in looks.values()}) == len(pairs)


# The files


class Page(HTMLParser):
    """Checks that every element is closed in order, and keeps the text and the attributes."""

    EMPTY = ("meta", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.EMPTY, f"<{tag} /> is no empty element"
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


FIGURES = ("pareto", "differences", "reward_curves", "memory", "memory_by_phase")
TEXTS = ("report.html", "report.md", "results.csv", "differences.csv", "results.tex", "report.json")


def test_a_report_is_whole_files_and_every_figure_twice(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(outputs, "sweep=demo") == 0
    folder = outputs.parent / "reports" / "demo"
    names = {*TEXTS, *(f"{name}.{kind}" for name in FIGURES for kind in ("png", "pdf"))}
    assert {path.name for path in folder.iterdir()} == names  # and no drafts
    assert set(capsys.readouterr().out.splitlines()) == {str(folder / name) for name in names}
    for name in FIGURES:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere(outputs: Path) -> None:
    assert report(outputs) == 0
    text = (outputs.parent / "reports" / "demo" / "report.html").read_text()
    page = Page(text)
    assert not re.search(r"https?://", text)
    assert page.links == []
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert "Is it worth it?" in page.text


def test_the_json_has_every_number_and_figure(outputs: Path) -> None:
    assert report(outputs) == 0
    content = json.loads((outputs.parent / "reports" / "demo" / "report.json").read_text())
    assert content["format"] == "efficient_rl report 1"
    full, lora = content["summaries"]
    assert (full["label"], full["accuracy"], full["trainable_params"], full["on_front"]) == ("full", 0.6, 4000, True)
    assert (lora["label"], lora["accuracy"], lora["train_seconds"]) == ("lora", 0.45, 12.5)
    [difference] = content["differences"]
    assert (difference["first"], difference["second"]) == ("full", "lora")
    assert difference["accuracy"]["value"] == pytest.approx(0.15)  # 0.5 - 0.4 and 0.7 - 0.5
    assert [figure["name"] for figure in content["figures"]] == list(FIGURES)


def test_the_latex_table_escapes_what_tex_would_obey(tmp_path: Path) -> None:
    params = {key: {"strategy.name": "first_k", "strategy.k": k} for key, k in (("a", "50%_$x$"), ("b", "\\input{a}&~"))}
    write_sweep(tmp_path, "t", params)
    for key in params:
        write_run(tmp_path, key)
    assert main([f"output={tmp_path}", f"reports={tmp_path}", "sweep=t"]) == 0
    table = (tmp_path / "t" / "results.tex").read_text()
    assert r"first\_k k=50\%\_\$x\$" in table
    assert r"\textbackslash{}input\{a\}\&\textasciitilde{}" in table


def test_the_commands_to_reproduce_begin_with_the_commit_and_its_changes(outputs: Path) -> None:
    for key in ("full0", "full1", "lora0", "lora1"):
        path = outputs / "runs" / key / "result.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "code_version": "0123456789ab-dirty-89abcdef"}))
    assert report(outputs) == 0
    lines = (outputs.parent / "reports" / "demo" / "report.md").read_text().splitlines()
    assert lines[-5:] == [
        "    git checkout 0123456789ab",
        "    git apply outputs/code/0123456789ab-dirty-89abcdef/changes.diff",
        "    pip install -c constraints.txt -e .",
        "    python -m efficient_rl.sweep",
        "    python -m analysis.report sweep=demo",
    ]


def test_hostile_text_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    question = "<script>alert('x')</script> & \"a\" | $\\frac{1$ [x](y) _z_"
    params = {
        "a": {"strategy.name": "<b>$x_", "strategy.k": 1, "seed": 0, "model.name": "<m>$"},
        "b": {"strategy.name": "<b>$x_", "strategy.k": "$\\oops$</td>", "seed": 0, "model.name": "<m>$"},
        "c": {"strategy.name": "<b>$x_", "strategy.k": 1, "seed": 0, "model.name": "$$\\n</p>"},
    }
    write_sweep(tmp_path, "s", params, question=question, command="<i>'\"` && python")
    for key in params:
        write_run(tmp_path, key, code_version="<u>")
    assert main([f"output={tmp_path}", f"reports={tmp_path}"]) == 0
    page = Page((tmp_path / "s" / "report.html").read_text())
    assert question in page.text
    assert "<b>$x_ k=$\\oops$</td>" in page.text
    assert "<i>'\"` && python" in page.text
    assert not {"b", "m", "i", "u"} & set(page.tags)
    assert page.tags.count("script") == 2  # the data and the code
    markdown = (tmp_path / "s" / "report.md").read_text()
    assert not re.search(r"(?<!\\)<(script|b|u|m)", markdown)
    assert "\\| $" in markdown
    assert "[x\\](y)" in markdown
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {14}


def test_the_table_says_one_seed_and_marks_the_front(outputs: Path) -> None:
    (outputs / "runs" / "full1" / "result.json").unlink()
    path = outputs / "runs" / "full0" / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "accuracy": 0.3}))
    assert report(outputs) == 0
    rows = (outputs.parent / "reports" / "demo" / "report.md").read_text().splitlines()
    full = next(row for row in rows if row.startswith("| full |"))
    shared = "60.0% | 0.700 | 0.200 | 3 | 12.5 | 1.23k"
    assert full == f"| full | 4,000 (100%) | 30.0% [one seed] | 30.0% | +10.0 | {shared} | 1 |  |"
    lora = next(row for row in rows if row.startswith("| lora |"))
    # Errors of 0.05 over seeds and 0.025 over problems; t with 1.562 degrees of freedom is 5.69: 31.8 points
    assert lora.startswith("| lora | 500 (12.5%) | 45.0% [13.2%, 76.8%] | 45.0% | +25.0 | ")
    assert lora.endswith(f"{shared} | 2 | yes |")


def test_the_csv_has_every_summary_unrounded(outputs: Path) -> None:
    assert report(outputs) == 0
    header, first, second = (outputs.parent / "reports" / "demo" / "results.csv").read_text().splitlines()
    row = dict(zip(header.split(","), first.split(","), strict=True))
    assert (row["label"], float(row["accuracy"]), float(row["trainable_params"]), row["on_front"]) == (
        "full",
        0.6,
        4000.0,
        "True",
    )
    assert second.startswith("lora,")


def test_the_same_runs_give_the_same_bytes(outputs: Path) -> None:
    folder = outputs.parent / "reports" / "demo"
    assert report(outputs) == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert report(outputs) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_two_models_are_drawn_in_two_panels(tmp_path: Path) -> None:
    params = {m: {"strategy.name": "full", "seed": 0, "model.name": m} for m in ("small", "large")}
    write_sweep(tmp_path, "s", params)
    for key in params:
        write_run(tmp_path, key)
    assert main([f"output={tmp_path}", f"reports={tmp_path}"]) == 0
    assert "| full, model=small |" in (tmp_path / "s" / "report.md").read_text()


# Exit statuses


def test_no_finished_run_is_an_error(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in outputs.glob("runs/*/result.json"):
        path.unlink()
    assert report(outputs) == 1
    assert capsys.readouterr().err == (
        "error: no run of sweep 'demo' is finished (0 of 4); to go on: python -m efficient_rl.sweep\n"
    )
    assert not (outputs.parent / "reports").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep=dem"], "unknown sweep 'dem'; did you mean 'demo'? valid: demo, other"),
        (["sweep=../demo"], "unknown sweep '../demo'; did you mean 'demo'? valid: demo, other"),
        (
            ["swep=demo"],
            "unknown key 'swep'; did you mean 'sweep'? valid: accuracy, output, read, reports, study, sweep, tracking",
        ),
        (["sweep"], "'sweep' has no value; write sweep=VALUE"),
        (["read=everything"], "read='everything' is not known; valid: directories, store"),
        (["accuracy=50"], "accuracy='50' must be a share from 0 to 1, such as accuracy=0.5"),
        (["read=store", "tracking=none"], "read=store needs a store and tracking=none names none"),
        (["read=store"], "no database"),
        (["output=nowhere"], "no sweep in nowhere/sweeps; make one with: python -m efficient_rl.sweep"),
        (["sweep=other"], "other/sweep.json; the command that made a sweep writes its file anew"),
    ],
    ids=[
        "unknown sweep",
        "no path",
        "unknown key",
        "no value",
        "unknown source",
        "no share",
        "no store",
        "no database",
        "no folder",
        "damaged sweep",
    ],
)
def test_a_bad_request_ends_in_status_1_and_a_remedy(
    outputs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    write_sweep(outputs, "other", {})
    (outputs / "sweeps" / "other" / "sweep.json").write_text("[]")
    assert report(outputs, *arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


def test_a_file_that_cannot_be_written_leaves_no_draft_and_ends_in_status_1(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = outputs.parent / "reports" / "demo"
    (folder / "report.html").mkdir(parents=True)  # a folder where the file should go
    assert report(outputs) == 1
    assert "report.html" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["report.html"]


def test_a_report_that_is_cut_off_half_way_leaves_the_earlier_one_whole(outputs: Path) -> None:
    assert report(outputs) == 0
    folder = outputs.parent / "reports" / "demo"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    script = (
        "import resource\nfrom analysis.report.__main__ import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"  # like a full disk: a longer file breaks off
        f"raise SystemExit(main(['output={outputs}', 'reports={folder.parent}']))"
    )
    done = run_script(script)
    assert (done.returncode, done.stdout) == (1, "")
    assert "File too large" in done.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_help_ends_in_status_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: python -m analysis.report [sweep=NAME]")


def test_the_command_imports_neither_torch_nor_mlflow(outputs: Path) -> None:
    script = (
        "import sys\nfrom analysis.report.__main__ import main\n"
        f"assert main(['output={outputs}', 'reports={outputs.parent}']) == 0\n"
        "print([name for name in ('torch', 'mlflow') if name in sys.modules])"
    )
    done = run_script(script)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
