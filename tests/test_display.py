"""What people see while a sweep runs."""

import io
from pathlib import Path

from rich.console import Console

from efficient_rl.rundir.attempt import Attempt
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.sweep.display import Display, Row, bytes_text, duration
from tests.conftest import tiny_run


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
    row = Row(attempt.folder, "last_k", max_steps=10, state="running")
    row.refresh()
    assert row.cells()[2:] == ["running", "3/10", "0.300", "20.0%", "1,000", "3 MiB", "14 s", ""]
    attempt.append(10, {"eval/accuracy": 0.5})
    row.refresh()
    assert row.cells()[5] == "20.0% → 50.0%"


def test_a_terminal_shows_no_more_rows_than_fit_and_the_telling_ones_first(tmp_path: Path) -> None:
    rows = [Row(tmp_path / str(i), f"r{i}", 5, "waiting") for i in range(100)]
    rows[77].state, rows[88].state = "running", "failed"
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, height=20)
    console.print(Display(rows, console).table())
    lines = screen.getvalue().splitlines()
    assert len(lines) <= 20
    assert "r77" in screen.getvalue()
    assert "r88" in screen.getvalue()
    assert "87 more" in screen.getvalue()


def test_a_log_gets_a_line_when_a_state_changes_and_no_control_characters(tmp_path: Path) -> None:
    row = Row(tmp_path / "abc", "full", 5)
    log = io.StringIO()
    with Display([row], Console(file=log, force_terminal=False, width=80)) as display:
        display.update()
        display.update()
        row.state = "finished"
    assert [line.split(" (")[0] for line in log.getvalue().splitlines()] == ["abc full: waiting", "abc full: finished"]
    assert "\x1b" not in log.getvalue()


def test_units_are_readable() -> None:
    assert [duration(s) for s in (0.4, 59, 61, 7260)] == ["0 s", "59 s", "1 min 01 s", "2 h 01 min"]
    assert [bytes_text(b) for b in (5 * 2**20, 1.5 * 2**30)] == ["5 MiB", "1.5 GiB"]
