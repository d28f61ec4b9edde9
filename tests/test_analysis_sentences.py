"""What the report says in words, and that it follows from the numbers."""

from analysis.data.load import CPU_TIME, WALL_CLOCK, SweepData
from analysis.figures.numbers import points, share_text
from analysis.report.results import compute_results
from analysis.report.sentences import CLOCKS, ONE_SEED, sentences_of
from analysis.stats.aggregate import summarize
from tests.analysis_data import runs_of, sentences


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


def test_where_nothing_was_learnt_that_is_what_the_report_says() -> None:
    nothing = sentences(*runs_of("full", [0.0, 0.0], accuracy_before=0.0), *runs_of("lora", [0.0, 0.0], accuracy_before=0.0))
    assert "Nothing was learnt: no configuration solved any of the 200 held-out problems." in nothing
    worse = sentences(*runs_of("full", [0.15, 0.15]), *runs_of("lora", [0.2, 0.2]))  # 0.2 before
    assert any(
        text.startswith(
            "Nothing was learnt: no configuration is more accurate than the 20.0% before training; the most accurate is lora"
        )
        for text in worse
    )
    for said in (nothing, worse):
        assert not any("Best accuracy" in text or "Pareto front" in text for text in said)


def test_the_report_says_whether_seconds_are_cpu_time_or_of_the_wall_clock() -> None:
    known = runs_of("full", [0.5, 0.6], train_cpu_seconds=7.0)
    unknown = runs_of("lora", [0.5, 0.6])
    assert CLOCKS[CPU_TIME] in sentences(*known)
    assert CLOCKS[WALL_CLOCK] in sentences(*known, *unknown)


def test_few_seeds_are_said_to_give_wide_intervals() -> None:
    assert any("With 2 seeds they are wide" in text for text in sentences(*runs_of("full", [0.6, 0.7])))
    assert not any("they are wide" in text for text in sentences(*runs_of("full", [0.5, 0.6, 0.7, 0.8, 0.9])))


def test_an_axis_on_which_all_are_equal_is_left_out_with_a_sentence() -> None:
    runs = [*runs_of("full", [0.5, 0.6], train_seconds=1.0), *runs_of("lisa", [0.4, 0.5], train_seconds=2.0)]
    results = compute_results(SweepData("s", 0.0, "c", None, tuple(runs)))
    names = {figure.name for figure in results.figures}
    assert "pareto" not in names
    assert "pareto_seconds" in names
    assert "All configurations have the same trained parameters: that axis is left out." in sentences_of(results)


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
