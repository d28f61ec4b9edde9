"""Shows a sweep while it runs: a live table in a terminal, plain lines elsewhere."""

import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.result import Failure
from efficient_rl.rundir.state import RunState

FRAME_LINES = 7  # of the table around its rows, and the prompt
COLUMNS = ("run", "what", "state", "step", "reward", "accuracy", "trained", "peak memory", "left", "where")
RIGHT, WHOLE = ("step", "reward", "trained", "peak memory", "left"), ("run", "state", "step")
STYLES = {  # in the order of the rows where not all fit
    "running": "cyan",
    "failed": "bold red",
    "elsewhere": "yellow",
    "queued": "blue",
    "finished": "green",
    "pruned": "magenta",
    "waiting": "dim",
}
TITLE = ("finished", "running", "queued", "failed", "waiting", "elsewhere", "pruned")


@dataclass
class Row:
    """One run as the table shows it; `refresh` reads what its directory has new."""

    folder: Path
    label: str
    max_steps: int
    state: RunState = RunState.WAITING
    step: int = 0
    reward: float | None = None
    accuracy: float | None = None
    accuracy_before: float | None = None
    trainable: int | None = None
    peak_bytes: float | None = None
    failure: Failure | None = None
    note: str = ""  # the cluster job and node, or why it waits
    step_seconds: list[float] = field(default_factory=list)
    _offset: int = 0

    @property
    def key(self) -> str:
        return self.folder.name

    @property
    def log(self) -> str:
        """Where to read on: what the failure names, else the run's own log."""
        return self.failure.log if self.failure else str(self.folder / "log.txt")

    def refresh(self) -> None:
        """Take in new metric lines."""
        for line in RunDirectory(self.folder).metrics(self._offset):
            self._offset = line["end"]
            metrics = line["metrics"]
            self.step = max(self.step, line["step"])
            self.reward = metrics.get("train/reward", self.reward)
            self.trainable = metrics.get("params/trainable", self.trainable)
            for name, value in metrics.items():
                if name.startswith("memory/"):
                    self.peak_bytes = max(value, self.peak_bytes or value)
            if "time/step_seconds" in metrics:
                self.step_seconds.append(metrics["time/step_seconds"])
            if "eval/accuracy" in metrics:
                if line["step"] == 0:
                    self.accuracy_before = metrics["eval/accuracy"]
                else:
                    self.accuracy = metrics["eval/accuracy"]

    def seconds_left(self) -> float | None:
        """From the median step so far; None before the first step and after the last."""
        if self.state != "running" or not self.step_seconds:
            return None
        return (self.max_steps - self.step) * statistics.median(self.step_seconds[-20:])

    def cells(self) -> list[str]:
        """The columns of the table, as text."""
        accuracy = " → ".join(f"{value:.1%}" for value in (self.accuracy_before, self.accuracy) if value is not None)
        return [
            self.key[:8],
            self.label,
            self.state,
            f"{self.step}/{self.max_steps}",
            _cell(self.reward, "{:.3f}".format),
            accuracy,
            _cell(self.trainable, "{:,.0f}".format),
            _cell(self.peak_bytes, bytes_text),
            _cell(self.seconds_left(), duration),
            self.note,
        ]


def _cell(value: float | None, form: Callable[[float], str]) -> str:
    return "" if value is None else form(value)


class Display:
    """A context in which `update` keeps the terminal, or a log, informed."""

    def __init__(self, rows: Collection[Row], console: Console) -> None:
        self._rows = rows
        self._console = console
        live = console.is_terminal and "JPY_PARENT_PID" not in os.environ  # a notebook only pretends to be a terminal
        self._live = Live(console=console, refresh_per_second=2, transient=False) if live else None
        self._said: dict[Path, str] = {}
        self._last_progress = time.monotonic()

    def __enter__(self) -> "Display":
        for row in self._rows:
            if row.state == "finished":
                row.refresh()
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.update(last=True)
        if self._live:
            self._live.stop()

    def update(self, last: bool = False) -> None:
        """Read the directories of what runs and show the change."""
        for row in self._rows:
            if row.state in ("running", "elsewhere") or last:
                row.refresh()
        if self._live:
            self._live.update(self.table())
        else:
            self._say_changes()

    def table(self) -> Table:
        """The most important rows: running and failed ones first, up to a screenful."""
        return run_table([*self._rows], max(3, self._console.height - FRAME_LINES))

    def _say_changes(self) -> None:
        progress = time.monotonic() - self._last_progress > 30
        for row in self._rows:
            if self._said.get(row.folder) != row.state or (progress and row.state == "running"):
                cells = zip(COLUMNS[3:], row.cells()[3:], strict=True)
                named = ", ".join(f"{name} {cell}" for name, cell in cells if cell)
                line = f"{row.key[:8]} {row.label}: {row.state} ({named})"
                self._console.print(line, soft_wrap=True, highlight=False, markup=False)
                self._said[row.folder] = row.state
        if progress:
            self._last_progress = time.monotonic()


def run_table(rows: Sequence[Row], room: int, columns: Sequence[str] = COLUMNS) -> Table:
    """The table of all rows, or of the `room` most telling ones, under a count of their states."""
    counts = Counter(map(attrgetter("state"), rows))
    title = ", ".join(f"{counts[state]} {state}" for state in TITLE if counts[state])
    table = Table(title=title, title_justify="left")
    if not any(map(attrgetter("note"), rows)):
        columns = [column for column in columns if column != "where"]
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in RIGHT else "left"
        table.add_column(column, justify=justify, no_wrap=column in WHOLE, overflow="fold")
    if len(rows) > room:
        rows = sorted(rows, key=lambda row: [*STYLES].index(row.state))
        table.caption = f"{len(rows) - room} more"
    for row in rows[:room]:
        cells = dict(zip(COLUMNS, row.cells(), strict=True))
        table.add_row(*map(cells.__getitem__, columns), style=STYLES[row.state])
    return table


def failure_table(rows: Sequence[Row]) -> Table:
    """Why runs failed, in words, and where their logs are."""
    table = Table(title="failed", title_justify="left")
    for column in ("run", "what", "error", "log"):
        table.add_column(column, overflow="fold")
    for row in rows:
        failure = row.failure or RunDirectory(row.folder).failure()
        error, log = (failure.error, failure.log) if failure else ("unknown", row.log)
        table.add_row(row.key[:8], row.label, escape(error), log)
    return table


def duration(seconds: float) -> str:
    """Seconds as people read them: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def bytes_text(count: float) -> str:
    """Bytes as MiB or GiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
