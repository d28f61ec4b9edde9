"""Reading sweeps and runs from the output folder, damaged ones too."""

import json
from pathlib import Path

import pytest

from analysis.data.load import REWARD, load_sweep, make_series
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.result import RunResult
from tests.analysis_data import RESULT, demo_outputs, sentences, write_sweep
from tests.conftest import tiny_run


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return demo_outputs(tmp_path)


def test_the_report_reads_what_the_record_writes(tmp_path: Path) -> None:
    config = tiny_run("strategy=last_k")
    key = config.config_hash
    written = RunResult(**{**RESULT, "config_hash": key})
    record = RunDirectory(tmp_path / "runs" / key)
    with record.claim(config) as attempt:
        attempt.append(0, {"eval/accuracy": 0.2})
        attempt.append(1, {"train/reward": 0.25})
        attempt.append(2, {"train/reward": 0.5})
        attempt.finish(written)
    write_sweep(tmp_path, "s", {key: config.flat()})
    [run] = load_sweep(tmp_path, "s").runs
    assert run.result == written
    assert (written.greedy_accuracy, written.standard_error, written.gain) == (0.6, 0.025, 0.3)
    assert (written.problems, written.samples, written.highest_peak_bytes) == (200, 4, 3 * 2**20)
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
