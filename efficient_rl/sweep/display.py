"""Shows a sweep while it runs: a live table in a terminal, plain lines elsewhere."""

import os
import statistics
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.result import Failure
from efficient_rl.rundir.state import RunState

FRAME_LINES = 7  # of the table around its rows, and the prompt
STYLES = {
    "finished": "green",
    "running": "cyan",
    "queued": "blue",
    "failed": "bold red",
    "waiting": "dim",
    "elsewhere": "yellow",
    "pruned": "magenta",
}


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
        """The hash of the run."""
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
            peaks = [value for name, value in metrics.items() if name.startswith("memory/")]
            self.peak_bytes = max([*peaks, self.peak_bytes or 0.0]) or None
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
            self.folder.name[:8],
            self.label,
            self.state,
            f"{self.step}/{self.max_steps}",
            "" if self.reward is None else f"{self.reward:.3f}",
            accuracy,
            "" if self.trainable is None else f"{int(self.trainable):,}",
            "" if self.peak_bytes is None else bytes_text(self.peak_bytes),
            "" if self.seconds_left() is None else duration(self.seconds_left() or 0.0),
            self.note,
        ]


COLUMNS = ("run", "what", "state", "step", "reward", "accuracy", "trained", "peak memory", "left", "where")


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
        """The most telling rows: what runs and what failed first, then the rest up to a screenful."""
        return run_table([*self._rows], max(3, self._console.height - FRAME_LINES))

    def _say_changes(self) -> None:
        progress = time.monotonic() - self._last_progress > 30
        for row in self._rows:
            if self._said.get(row.folder) != row.state or (progress and row.state == "running"):
                named = (f"{name} {cell}" for name, cell in zip(COLUMNS[3:], row.cells()[3:], strict=True) if cell)
                line = f"{row.folder.name[:8]} {row.label}: {row.state} ({', '.join(named)})"
                self._console.print(line, soft_wrap=True, highlight=False, markup=False)
                self._said[row.folder] = row.state
        if progress:
            self._last_progress = time.monotonic()


def run_table(rows: Sequence[Row], room: int, columns: Sequence[str] = COLUMNS) -> Table:
    """The table of all rows, or of the `room` most telling ones, under a count of their states."""
    counts = {state: sum(row.state == state for row in rows) for state in STYLES}
    title = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    table = Table(title=title, title_justify="left")
    columns = [column for column in columns if column != "where" or any(row.note for row in rows)]
    for column in columns:
        right = column in ("step", "reward", "trained", "peak memory", "left")
        whole = column in ("run", "state", "step")
        table.add_column(column, justify="right" if right else "left", no_wrap=whole, overflow="fold")
    order = ["running", "failed", "elsewhere", "queued", "finished", "pruned", "waiting"]
    shown = sorted(rows, key=lambda row: order.index(row.state)) if len(rows) > room else rows
    for row in shown[:room]:
        cells = dict(zip(COLUMNS, row.cells(), strict=True))
        table.add_row(*(cells[column] for column in columns), style=STYLES[row.state])
    if len(rows) > room:
        table.caption = f"{len(rows) - room} more"
    return table


def failure_table(rows: Sequence[Row]) -> Table:
    """Why runs failed, in words, and where their logs are."""
    table = Table(title="failed", title_justify="left")
    for column in ("run", "what", "error", "log"):
        table.add_column(column, overflow="fold")
    for row in rows:
        failure = row.failure or RunDirectory(row.folder).failure()
        error = escape(failure.error if failure else "unknown")
        table.add_row(row.folder.name[:8], row.label, error, failure.log if failure else row.log)
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
