"""What people see while a sweep runs."""

import io
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from efficient_rl.cli import lay_out, print_line, room_of, shorten
from efficient_rl.errors import ConfigError
from efficient_rl.rundir.attempt import Attempt
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.result import Failure
from efficient_rl.rundir.state import RunState
from efficient_rl.status.__main__ import COLUMNS as OF_STATUS
from efficient_rl.sweep.display import (
    COLUMNS,
    DROPPED,
    Display,
    Row,
    bytes_text,
    duration,
    failure_text,
    headline,
    run_table,
)
from tests.conftest import tiny_run

LABELS = (
    "full",
    "first_k k=1 learning_rate=0.000107136 max_completion_length=256 temperature=0.9 seed=12345",
    "lora target_modules=[q_proj,k_proj,v_proj,o_proj…3f9c rank=16",
    "last_k path=" + "x" * 70,
    "[bold]markup[/bold] :key: 数学の問題をたくさん解く訓練",
)


def rows(count: int, folder: Path = Path("/outputs/runs")) -> list[Row]:
    made = []
    for index in range(count):
        row = Row(folder / f"{index:02d}ab34cd56ef", LABELS[index % len(LABELS)], 25_000, RunState.RUNNING, 10_713 + index)
        row.reward, row.accuracy_before, row.accuracy = 0.123, 0.25, 0.5
        row.trainable, row.peak_bytes, row.step_seconds = 107_136, 3.5 * 2**30, [2.0]
        row.note = "job 123456_12 on node-17.cluster"
        made.append(row)
    return made


def attempt_with_steps(folder: Path, steps: int) -> Attempt:
    config = tiny_run()
    attempt = RunDirectory(folder / config.config_hash).claim(config)
    attempt.append(0, {"eval/accuracy": 0.2, "params/trainable": 1000.0})
    for step in range(1, steps + 1):
        attempt.append(
            step, {"train/reward": step / 10, "time/step_seconds": 2.0, "memory/backward_peak_bytes": 3.0 * 2**20}
        )
    return attempt


def test_a_row_follows_the_run_directory(tmp_path: Path) -> None:
    attempt = attempt_with_steps(tmp_path, 3)
    row = Row(attempt.folder, "last_k", max_steps=10, state=RunState.RUNNING)
    row.refresh()
    assert row.cells()[2:] == ["running", "3/10", "0.300", "20.0%", "1,000", "3 MiB", "14 s", ""]
    attempt.append(10, {"eval/accuracy": 0.5})
    row.refresh()
    assert row.cells()[5] == "20.0% → 50.0%"


@pytest.mark.parametrize("state", [RunState.WAITING, RunState.QUEUED, RunState.FINISHED])
def test_a_resumed_run_shows_the_steps_it_has_before_it_runs_again(tmp_path: Path, state: RunState) -> None:
    attempt = attempt_with_steps(tmp_path, 3)
    row = Row(attempt.folder, "last_k", 10, state)
    with Display([row], Console(file=io.StringIO(), width=80)) as display:
        display.update()
        assert row.cells()[3] == "3/10"


def test_a_terminal_shows_no_more_rows_than_fit_and_the_telling_ones_first(tmp_path: Path) -> None:
    rows = [Row(tmp_path / str(i), f"r{i}", 5, RunState.WAITING) for i in range(100)]
    rows[77].state, rows[88].state = RunState.RUNNING, RunState.FAILED
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, height=20)
    console.print(Display(rows, console).table())
    lines = screen.getvalue().splitlines()
    assert len(lines) <= 20
    assert "r77" in screen.getvalue()
    assert "r88" in screen.getvalue()
    assert "87 more" in screen.getvalue()


@pytest.mark.parametrize("columns", [COLUMNS, OF_STATUS], ids=["sweep", "status"])
@pytest.mark.parametrize("room", [200, 132, 100, 80, 79, 60, 40, 30, 20, 12, 5])
@pytest.mark.parametrize("count", [1, 3, 50])
def test_a_run_has_one_line_that_fits_and_no_number_is_broken(count: int, room: int, columns: tuple[str, ...]) -> None:
    listed = rows(count)
    lines = run_table(listed, count, columns, room).plain.splitlines()
    titles, *shown = lines[-count - 1 :]
    assert len(shown) == count
    widest = max(map(cell_len, lines))
    assert widest <= room or room < 20
    kept = [name for name in columns if name in titles]
    for row, line in zip(listed, shown, strict=True):
        cells = dict(zip(COLUMNS, row.cells(), strict=True))
        for name in kept:
            assert name == "what" or cells[name] in line, (name, line)


def test_columns_are_dropped_in_the_documented_order() -> None:
    seen = []
    for room in range(200, 19, -1):
        titles = run_table(rows(3), 3, COLUMNS, room).plain.splitlines()[-4]
        kept = {name for name in COLUMNS if name in titles.split("  ") or f"  {name}" in titles or titles.startswith(name)}
        assert {"what", "state"} <= kept
        seen += [name for name in DROPPED if name not in kept and name not in seen]
    assert tuple(seen) == DROPPED


def test_a_column_without_a_value_goes_first_and_a_shorter_label_leaves_room() -> None:
    row = rows(2)[1]
    row.accuracy, row.accuracy_before, row.note = None, None, "n7"
    titles, line = run_table([row], 1, OF_STATUS, 100).plain.splitlines()[-2:]
    assert titles.split() == ["run", "what", "state", "step", "reward", "left", "where"]
    assert line.split("  ")[1] == "first_k k=1 … temperature=0.9 seed=12345"
    assert len(line) <= 100


def test_a_label_stays_whole_while_a_column_can_go_instead() -> None:
    row = rows(1)[0]
    row.label = "first_k learning_rate=0.000107136 rank=2 seed=0"
    for room in range(47 + 32, 200):
        assert f"  {row.label}  running  " in run_table([row], 1, COLUMNS, room).plain, room
    for room in range(20, 47 + 32):
        assert row.label not in run_table([row], 1, COLUMNS, room).plain, room


def test_a_pipe_gets_every_column_and_the_whole_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    pipe = Console(file=io.StringIO())
    assert room_of(pipe) is None
    print_line(pipe, run_table(rows(5), 5, COLUMNS, room_of(pipe)))
    told = pipe.file.getvalue()  # type: ignore[attr-defined]
    assert all(label in told for label in LABELS)
    assert "107,136" in told
    assert "\x1b" not in told
    monkeypatch.setenv("COLUMNS", "80")
    assert room_of(Console(file=io.StringIO())) == 80


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("first_k k=1 seed=0", 18, "first_k k=1 seed=0"),
        ("first_k k=1 rank=2 seed=0", 24, "first_k k=1 … seed=0"),
        ("first_k k=1 rank=2 seed=0", 18, "first_k … seed=0"),
        ("first_k k=1 rank=2 seed=0", 12, "first_k …"),
        ("first_k k=1", 5, "firs…"),
        ("first_k", 1, "…"),
        ("数学の問題", 6, "数学…"),
    ],
)
def test_a_label_that_is_too_long_keeps_its_first_and_last_words(text: str, width: int, shown: str) -> None:
    assert shorten(text, width) == shown
    assert cell_len(shown) <= width


def test_a_table_without_rows_is_its_titles() -> None:
    assert lay_out(["run", "what"], [], 80, ["run"], "what") == ["run  what"]


def test_a_log_gets_a_line_when_a_state_changes_and_no_control_characters(tmp_path: Path) -> None:
    row = Row(tmp_path / "abc", "full", 5)
    log = io.StringIO()
    with Display([row], Console(file=log, force_terminal=False, width=80)) as display:
        display.update()
        display.update()
        row.state = RunState.FINISHED
    assert [line.split(" (")[0] for line in log.getvalue().splitlines()] == ["abc full: waiting", "abc full: finished"]
    assert "\x1b" not in log.getvalue()


def test_a_terminal_that_runs_or_a_debugger_use_gets_lines_and_no_table() -> None:
    screen = io.StringIO()
    with Display(rows(1), Console(file=screen, force_terminal=True, width=80), shared=True) as display:
        display.update()
    assert screen.getvalue().startswith("00ab34cd full: running (step 10713/25000")
    assert "\x1b[?25l" not in screen.getvalue(), "the cursor stays"


def test_errors_and_logs_stand_in_whole_lines_and_an_error_of_many_runs_once() -> None:
    listed = rows(3)
    for row, error in zip(listed, ("out of memory " * 20, "no letters", "no letters"), strict=True):
        row.state, row.failure = RunState.FAILED, Failure(1, error.strip(), f"/a/{'long/' * 30}{row.key}/log.txt")
    screen = io.StringIO()
    print_line(Console(file=screen, width=40), failure_text(listed))
    lines = screen.getvalue().splitlines()
    assert lines[0] == "failed: " + ("out of memory " * 20).strip()
    assert lines[1].endswith(f" {listed[0].log}")
    assert lines[2] == "2 failed: no letters"
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        ("efficient_rl.errors.ConfigError: k=9 exceeds 6", "k=9 exceeds 6"),
        ("efficient_rl.errors.SchedulerError: sbatch: no", "sbatch: no"),
        ("torch.OutOfMemoryError: CUDA out of memory", "OutOfMemoryError: CUDA out of memory"),
        ("huggingface_hub.errors.EntryNotFoundError: 404", "EntryNotFoundError: 404"),
        ("tests.mine.NoLetters", "NoLetters"),
        ("ValueError: no letters", "ValueError: no letters"),
        ("model.path=x: no such folder", "model.path=x: no such folder"),
        ("strategy.k: must be above 0", "strategy.k: must be above 0"),
        ("", ""),
    ],
)
def test_an_error_begins_with_no_class_path(recorded: str, shown: str) -> None:
    assert Failure(1, recorded, "log.txt").error == shown


def test_what_an_attempt_records_of_a_bad_request_is_its_message(tmp_path: Path) -> None:
    attempt = attempt_with_steps(tmp_path, 0)
    attempt.fail(ConfigError("k=9 exceeds the model's 6 blocks; use k<=6"))
    failure = RunDirectory(attempt.folder).failure()
    assert failure is not None
    assert failure.error == "k=9 exceeds the model's 6 blocks; use k<=6"


@pytest.mark.parametrize(
    ("runs", "left"),
    [
        ([("running", 3, [2.0])], "1 running; about 14 s left"),
        ([("running", 3, [2.0]), ("running", 8, [1.0])], "2 running; about 14 s left"),
        ([("running", 0, [2.0]), ("waiting", 0, []), ("waiting", 5, [])], "1 running, 2 waiting; about 50 s left"),
        ([("running", 0, []), ("finished", 10, [3.0])], "1 finished, 1 running; about 30 s left"),
        ([("running", 0, []), ("waiting", 0, [])], "1 running, 1 waiting"),
        ([("waiting", 3, [2.0])], "1 waiting"),
        ([("finished", 10, [2.0]), ("failed", 3, [2.0])], "1 finished, 1 failed"),
    ],
)  # fmt: skip
def test_the_headline_counts_states_and_says_how_long_it_takes(runs: list[tuple[str, int, list[float]]], left: str) -> None:
    listed = []
    for state, step, seconds in runs:
        listed.append(Row(Path("x"), "r", 10, RunState(state), step, step_seconds=seconds))
    assert headline(listed) == left


def test_units_are_readable() -> None:
    assert [duration(s) for s in (0.4, 59, 61, 7260)] == ["0 s", "59 s", "1 min 01 s", "2 h 01 min"]
    assert [bytes_text(b) for b in (5 * 2**20, 1.5 * 2**30)] == ["5 MiB", "1.5 GiB"]
