"""The report: what it computes, what it says, and that it can be trusted with damaged, partial and hostile input."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from analysis.aggregate import MEASURE, Summary, bootstrap_interval, reward_curves, summarize
from analysis.findings import ONE_SEED, findings, points, share_text
from analysis.labels import make_labels, make_setting_labels
from analysis.load import Result, Run, SweepData, load_sweep
from analysis.pareto import pareto_front
from analysis.plots import draw_pareto, draw_reward_curves, styles
from analysis.report import main
from efficient_rl.compose import expand
from efficient_rl.config import parse_run
from efficient_rl.record import Record, RunResult
from tests.conftest import ROOT, environment, tiny_run

# One finished run as efficient_rl.record.RunResult writes it.
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
    }
    return Result(**{**known, **changes})


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
    return findings(SweepData("s", 0.0, "c", None, runs), summarize(runs))


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
        [sys.executable, "-c", script], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )


# Numbers


def test_a_summary_of_three_seeds_has_the_numbers_worked_out_by_hand() -> None:
    [summary] = summarize(runs_of("lora", [0.40, 0.50, 0.63], trainable=1000))
    assert summary.seeds == 3
    assert summary.accuracy == pytest.approx(0.51)  # 1.53 / 3
    # All three draws hit the lowest seed with a chance of 1/27 > 2.5%, so the interval ends at the extremes.
    assert summary.accuracy_low == pytest.approx(0.40)
    assert summary.accuracy_high == pytest.approx(0.63)
    assert summary.gain == pytest.approx(0.31)  # 0.51 - 0.20
    assert summary.share == pytest.approx(0.25)  # 1000 / 4000


def test_one_seed_has_no_interval() -> None:
    [summary] = summarize(runs_of("lora", [0.4]))
    assert (summary.accuracy_low, summary.accuracy_high) == (None, None)
    with pytest.raises(ValueError, match="at least 2"):
        bootstrap_interval(np.array([[0.4]]))


def test_unfinished_seeds_do_not_count() -> None:
    [summary] = summarize([*runs_of("lora", [0.4, None, 0.6]), *runs_of("full", [None, None])])
    assert (summary.label, summary.seeds) == ("lora", 2)
    assert summary.accuracy == pytest.approx(0.5)


def test_summaries_come_from_high_to_low_accuracy_and_equal_ones_from_cheap_to_dear() -> None:
    runs = [*runs_of("full", [0.5], 4000), *runs_of("first_k", [0.6], 2000), *runs_of("lora", [0.5], 500)]
    assert [summary.label for summary in summarize(runs)] == ["first_k", "lora", "full"]


def test_peak_memory_is_the_highest_and_time_the_mean_over_seeds() -> None:
    runs = [*runs_of("lora", [0.5], peak_memory_bytes=100, train_seconds=10.0)]
    runs += [Run("other", {**runs[0].params, "seed": 1}, result(0.5, peak_memory_bytes=300, train_seconds=20.0))]
    [summary] = summarize(runs)
    assert (summary.peak_memory_bytes, summary.train_seconds) == (300, 15.0)


def test_the_bootstrap_interval_is_that_of_scipy() -> None:
    values = np.array([0.41, 0.44, 0.45, 0.47, 0.52, 0.55, 0.61, 0.72])
    low, high = bootstrap_interval(values[:, None])
    theirs = scipy.stats.bootstrap((values,), np.mean, n_resamples=50_000, method="percentile", rng=np.random.default_rng(1))
    interval = theirs.confidence_interval
    assert low[0] == pytest.approx(interval.low, abs=0.003)  # the spread of a quantile of 10,000 draws
    assert high[0] == pytest.approx(interval.high, abs=0.003)


def test_bootstrap_intervals_of_many_columns_are_those_of_each_column() -> None:
    values = np.random.default_rng(0).normal(size=(4, 600))  # more columns than are worked on at once
    low, high = bootstrap_interval(values, 500)
    for column in (0, 255, 256, 599):
        alone = bootstrap_interval(values[:, [column]], 500)
        assert (low[column], high[column]) == (pytest.approx(alone[0][0]), pytest.approx(alone[1][0]))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
@settings(max_examples=25, deadline=None)
def test_the_bootstrap_interval_holds_the_mean_and_stays_within_the_values(values: list[float]) -> None:
    low, high = (float(end[0]) for end in bootstrap_interval(np.array(values)[:, None], 400))
    rounding = 1e-12
    assert min(values) - rounding <= low <= np.mean(values) + rounding
    assert np.mean(values) - rounding <= high <= max(values) + rounding


def test_a_reward_curve_is_the_mean_over_seeds_of_the_last_steps() -> None:
    runs = runs_of("lora", [0.4, 0.5])
    rewards = [((1, 0.0), (2, 0.2), (3, 0.4)), ((1, 0.4), (2, 0.4), (3, 0.8))]
    runs = [Run(run.hash, run.params, run.result, own) for run, own in zip(runs, rewards, strict=True)]
    [curve] = reward_curves(runs, window=2)
    # Means over steps 1-2 and 2-3: 0.1, 0.3 for one seed and 0.4, 0.6 for the other.
    assert curve.steps.tolist() == [2, 3]
    assert curve.mean == pytest.approx([0.25, 0.45])
    assert curve.low == pytest.approx([0.1, 0.3])
    assert curve.high == pytest.approx([0.4, 0.6])


def test_a_reward_curve_has_only_the_steps_of_every_seed_and_no_band_with_one_seed() -> None:
    both = [
        Run(run.hash, run.params, run.result, ((1, 0.5), (2 + index, 0.5))) for index, run in enumerate(runs_of("a", [1, 1]))
    ]
    [curve] = reward_curves(both)
    assert curve.steps.tolist() == [1]
    [single] = reward_curves(both[:1])
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


# Labels


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


# Sentences


def test_one_seed_per_configuration_is_said() -> None:
    assert ONE_SEED in sentences(*runs_of("full", [0.5]), *runs_of("lora", [0.4]))
    assert ONE_SEED not in sentences(*runs_of("full", [0.5, 0.6]), *runs_of("lora", [0.4, 0.5]))


def test_a_single_seed_among_several_is_named() -> None:
    said = sentences(*runs_of("full", [0.5, 0.6]), *runs_of("lora", [0.4]))
    assert "With one seed there is no interval, and differences may be noise: lora." in said


def test_overlapping_intervals_are_called_undecided() -> None:
    said = sentences(*runs_of("full", [0.5, 0.7]), *runs_of("lora", [0.4, 0.55]), *runs_of("last_k", [0.3, 0.4]))
    assert "These intervals overlap that of full, so the data do not decide between them: lora." in said


def test_intervals_apart_are_called_so() -> None:
    assert "No other interval overlaps that of full." in sentences(
        *runs_of("full", [0.6, 0.7]), *runs_of("lora", [0.4, 0.5])
    )


def test_no_change_against_the_accuracy_before_training_is_said() -> None:
    said = sentences(*runs_of("full", [0.1, 0.3]), *runs_of("lora", [0.05, 0.1]))  # 0.2 before training
    assert "The interval holds the accuracy before training, so the data do not show a change: full." in said
    assert "Below the accuracy before training, interval included: lora." in said


def test_the_best_and_the_cheapest_come_with_their_numbers() -> None:
    said = sentences(*runs_of("full", [0.6, 0.7], 4000), *runs_of("lora", [0.4, 0.5], 500))
    assert (
        "Best accuracy: full with 65.0% [60.0%, 70.0%], n=2; that is +45.0 points against the 20.0% before training, with "
        "100% of the parameters trained."
    ) in said
    assert (
        "Cheapest on the Pareto front (2 of 2 configurations): lora with 500 trained parameters (12.5%) reaches 45.0% "
        "[40.0%, 50.0%], n=2, 20.0 points below the best."
    ) in said


def test_few_seeds_are_said_to_give_narrow_intervals() -> None:
    assert any("With 2 seeds" in text and "50% of cases" in text for text in sentences(*runs_of("full", [0.6, 0.7])))
    assert any("With 3 seeds" in text and "75% of cases" in text for text in sentences(*runs_of("full", [0.6, 0.7, 0.8])))
    assert not any("lowest to the highest" in text for text in sentences(*runs_of("full", [0.5, 0.6, 0.7, 0.8])))


def test_settings_are_not_compared_with_each_other() -> None:
    small, large = runs_of("full", [0.3, 0.4]), runs_of("full", [0.8, 0.9], 3000, model="large")
    summaries = summarize([*small, *large])
    assert [summary.name for summary in summaries] == ["full, model=nano", "full, model=large"]
    said = sentences(*small, *large)
    assert any(text.startswith("model=nano: Best accuracy: full with 35.0%") for text in said)
    assert any(text.startswith("model=large: Best accuracy: full with 85.0%") for text in said)
    assert not any("overlap" in text or "Pareto" in text for text in said)


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
    record = Record(tmp_path / "runs" / key)
    record.claim(config)
    record.append(0, {"eval/accuracy": 0.2})
    record.append(1, {"train/reward": 0.25})
    record.append(2, {"train/reward": 0.5})
    record.finish(RunResult(**{**RESULT, "config_hash": key}))
    write_sweep(tmp_path, "s", {key: config.flat()})
    [run] = load_sweep(tmp_path, "s").runs
    assert run.result == result(0.5)
    assert run.rewards == ((1, 0.25), (2, 0.5))


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
    assert Record(folder).result() is None
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
    assert run.rewards == ((1, 0.1), (2, 0.2), (3, 0.3))


def test_without_a_name_the_newest_undamaged_sweep_is_taken(outputs: Path) -> None:
    write_sweep(outputs, "newer", {}, created=5.0)
    write_sweep(outputs, "damaged", {}, created=9.0)
    (outputs / "sweeps" / "damaged" / "sweep.json").write_text("{")
    assert load_sweep(outputs, None).name == "newer"


# Plots


def empty_axes() -> Axes:
    figure = Figure(figsize=(9, 5))
    FigureCanvasAgg(figure)
    return figure.subplots()


def test_the_front_is_a_step_line_and_the_accuracy_before_training_a_dashed_one() -> None:
    ax = empty_axes()
    draw_pareto(ax, summaries_at((10, 0.5), (100, 0.4), (1000, 0.7)))
    right = ax.get_xlim()[1]
    drawn = [(line.get_linestyle(), np.asarray(line.get_xydata()).tolist()) for line in ax.lines]
    assert ("-", [[10, 0.5], [1000, 0.5], [1000, 0.7], [right, 0.7]]) in drawn
    assert ("--", [[0, pytest.approx(0.2)], [1, pytest.approx(0.2)]]) in drawn
    assert ax.get_xscale() == "log"
    assert "before training 20.0%" in {text.get_text() for text in ax.texts}


crowds = st.lists(st.tuples(st.integers(10, 10**6), st.floats(0.0, 1.0)), min_size=1, max_size=14)


@given(crowds)
@settings(max_examples=15, deadline=None)
def test_labels_of_points_never_overlap_and_every_configuration_is_named(crowd: list[tuple[int, float]]) -> None:
    ax = empty_axes()
    summaries = summaries_at(*crowd)
    draw_pareto(ax, summaries)
    names = {summary.label for summary in summaries}
    boxes = [text.get_window_extent() for text in ax.texts if isinstance(text, Annotation) and text.get_text() in names]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    legend = ax.get_legend()
    if legend is None:
        assert len(boxes) == len(names)
    else:
        assert {text.get_text() for text in legend.get_texts()} == names | {"Pareto front"}


def test_a_label_does_not_stand_on_the_front_line() -> None:
    ax = empty_axes()
    summaries = summaries_at((61_440, 0.602), (107_136, 0.586), (323_776, 0.554))
    draw_pareto(ax, summaries)
    x, y = ax.transData.transform((61_440, 0.602))
    labels = [text for text in ax.texts if text.get_text() in {summary.label for summary in summaries}]
    assert len(labels) == 3
    for text in labels:
        box = text.get_window_extent()
        assert box.x1 < x or box.y1 < y or box.y0 > y, text.get_text()


def test_bands_are_drawn_where_there_are_several_seeds_only() -> None:
    ax = empty_axes()
    runs = [*runs_of("full", [0.5, 0.6]), *runs_of("lora", [0.5])]
    draw_reward_curves(ax, reward_curves([Run(r.hash, r.params, r.result, ((1, 0.1), (2, 0.2))) for r in runs]))
    assert (len(ax.lines), len(ax.collections)) == (2, 1)


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


def test_a_report_is_five_whole_files(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(outputs, "sweep=demo") == 0
    folder = outputs.parent / "reports" / "demo"
    names = {"report.html", "report.md", "results.csv", "pareto.png", "reward_curves.png"}
    assert {path.name for path in folder.iterdir()} == names  # and no drafts
    assert set(capsys.readouterr().out.splitlines()) == {str(folder / name) for name in names}
    for name in ("pareto.png", "reward_curves.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere(outputs: Path) -> None:
    assert report(outputs) == 0
    text = (outputs.parent / "reports" / "demo" / "report.html").read_text()
    page = Page(text)
    assert not re.search(r"https?://", text)
    assert len(page.links) == 2
    for link in page.links:
        kind, _, content = link.partition(";base64,")
        assert kind == "data:image/svg+xml"
        picture = ElementTree.fromstring(base64.b64decode(content))
        references = [v for node in picture.iter() for k, v in node.attrib.items() if k.endswith("href") or "url(" in v]
        assert references
        assert all(value.removeprefix("url(").startswith("#") for value in references)
    assert "prefers-color-scheme: dark" in text
    assert "Is it worth it?" in page.text


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
    assert not {"script", "b", "m", "i", "u"} & set(page.tags)
    markdown = (tmp_path / "s" / "report.md").read_text()
    assert not re.search(r"(?<!\\)<(script|b|u|m)", markdown)
    assert "\\| $" in markdown
    assert "[x\\](y)" in markdown
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {12}


def test_the_table_says_one_seed_and_marks_the_front(outputs: Path) -> None:
    (outputs / "runs" / "full1" / "result.json").unlink()
    path = outputs / "runs" / "full0" / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "accuracy": 0.3}))
    assert report(outputs) == 0
    rows = (outputs.parent / "reports" / "demo" / "report.md").read_text().splitlines()
    full = next(row for row in rows if row.startswith("| full |"))
    assert full == "| full | 4,000 (100%) | 30.0% [one seed] | 4.9 | +10.0 | 60.0% | 0.700 | 3 | 12.5 | 1 |  |"
    lora = next(row for row in rows if row.startswith("| lora |"))
    assert lora == "| lora | 500 (12.5%) | 45.0% [40.0%, 50.0%] | 4.9 | +25.0 | 60.0% | 0.700 | 3 | 12.5 | 2 | yes |"


def test_the_csv_has_every_summary_unrounded(outputs: Path) -> None:
    assert report(outputs) == 0
    header, first, second = (outputs.parent / "reports" / "demo" / "results.csv").read_text().splitlines()
    row = dict(zip(header.split(","), first.split(","), strict=True))
    assert (row["label"], float(row["accuracy"]), float(row["accuracy_low"]), row["on_front"]) == ("full", 0.6, 0.5, "True")
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
        (["swep=demo"], "unknown key 'swep'; did you mean 'sweep'? valid: output, reports, sweep"),
        (["sweep"], "'sweep' has no value; write sweep=VALUE"),
        (["output=nowhere"], "no sweep in nowhere/sweeps; make one with: python -m efficient_rl.sweep"),
        (["sweep=other"], "other/sweep.json; the command that made a sweep writes its file anew"),
    ],
    ids=["unknown sweep", "no path", "unknown key", "no value", "no folder", "damaged sweep"],
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
        "import resource\nfrom analysis.report import main\n"
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
        "import sys\nfrom analysis.report import main\n"
        f"assert main(['output={outputs}', 'reports={outputs.parent}']) == 0\n"
        "print([name for name in ('torch', 'mlflow') if name in sys.modules])"
    )
    done = run_script(script)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
