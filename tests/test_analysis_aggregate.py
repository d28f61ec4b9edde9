"""Summaries and curves over seeds, with numbers worked out by hand."""

from dataclasses import replace

import pytest

from analysis.data.load import CPU_TIME, REWARD, SECONDS, WALL_CLOCK, Run, make_series, on_one_clock
from analysis.stats.aggregate import curves, group_runs, summarize
from efficient_rl.metrics import CPU_SECONDS
from tests.analysis_data import result, rewarded, runs_of


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
    runs = [*runs_of("lora", [0.5], peak_memory_bytes={"backward": 100}, train_seconds=10.0)]
    runs += [
        Run("other", {**runs[0].params, "seed": 1}, result(0.5, peak_memory_bytes={"backward": 300}, train_seconds=20.0))
    ]
    [summary] = summarize(runs)
    assert (summary.peak_memory_bytes, summary.train_seconds) == (200, 15.0)


def test_a_reward_curve_is_the_mean_over_seeds_of_the_last_steps() -> None:
    first, second = runs_of("lora", [0.4, 0.5])
    wide = rewarded(runs_of("full", [0.5])[0], -3.0, 5.0, 0.0)  # no band is cut
    runs = [rewarded(first, 0.0, 0.2, 0.4), rewarded(second, 0.4, 0.4, 0.8), wide]
    curve, _ = curves(group_runs(runs), REWARD, window=2)
    # Means over steps 1-2 and 2-3: 0.1, 0.3 for one seed and 0.4, 0.6 for the other; both 0.15 from their mean.
    assert curve.steps.tolist() == [2, 3]
    assert curve.mean == pytest.approx([0.25, 0.45])
    half = 12.706205 * 0.15  # t with one degree of freedom, error 0.15 sqrt(2) / sqrt(2)
    assert curve.low == pytest.approx([0.25 - half, 0.45 - half], abs=1e-5)
    assert curve.high == pytest.approx([0.25 + half, 0.45 + half], abs=1e-5)


def test_a_reward_curve_has_only_the_steps_of_every_seed_and_no_band_with_one_seed() -> None:
    runs = runs_of("a", [1, 1])
    both = [replace(run, series={REWARD: make_series([(1, 0.5), (2 + i, 0.5)])}) for i, run in enumerate(runs)]
    [curve] = curves(group_runs(both), REWARD)
    assert curve.steps.tolist() == [1]
    [single] = curves(group_runs(both[:1]), REWARD)
    assert (single.low, single.high) == (None, None)


def test_a_band_ends_at_the_lowest_and_highest_value_that_was_recorded() -> None:
    first, second = runs_of("lora", [0.4, 0.5])
    other = rewarded(runs_of("full", [0.5])[0], 0.5, 1.0)
    runs = [rewarded(first, 0.0, 0.2), rewarded(second, 1.0, 0.8), other]
    [curve, single] = curves(group_runs(runs), REWARD)
    assert curve.low is not None
    assert curve.high is not None
    assert (curve.low.tolist(), curve.high.tolist()) == ([0.0, 0.0], [1.0, 1.0])  # Student's would be 0.5 +- 6.4
    assert single.low is None


def test_seconds_are_cpu_time_only_where_every_finished_run_recorded_it() -> None:
    [known] = runs_of("lora", [0.5], train_seconds=30.0, train_cpu_seconds=5.0)
    steps = {SECONDS: make_series([(1, 30.0)]), CPU_SECONDS: make_series([(1, 5.0)])}
    known, [unknown] = replace(known, series=steps), runs_of("full", [0.5], train_seconds=40.0)
    unfinished = runs_of("full", [None])
    [changed, _], clock = on_one_clock([known, *unfinished])
    assert clock == CPU_TIME
    assert changed.result is not None
    assert changed.result.train_seconds == 5.0
    assert changed.series[SECONDS].values.tolist() == [5.0]
    assert on_one_clock([known, unknown]) == ([known, unknown], WALL_CLOCK)
