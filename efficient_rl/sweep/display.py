"""Shows a sweep while it runs: a live table in a terminal, plain lines elsewhere."""

import statistics
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from efficient_rl.cli import is_live, lay_out, print_line, room_of
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.result import Failure
from efficient_rl.rundir.state import RunState

FRAME_LINES = 7  # of the table around its rows, and the prompt
COLUMNS = ("run", "what", "state", "step", "reward", "accuracy", "trained", "peak memory", "left", "where")
# Where a terminal is narrow, in this order.
DROPPED = ("peak memory", "trained", "reward", "where", "left", "accuracy", "run", "step")
RIGHT = ("step", "reward", "trained", "peak memory", "left")
ACTIVE = ("running", "elsewhere")
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

    @property
    def pace(self) -> float | None:
        """Seconds of a step, the median of the last ones; None before the first."""
        return statistics.median(self.step_seconds[-20:]) if self.step_seconds else None

    def seconds_left(self) -> float | None:
        """From the pace so far; None before the first step and where the run is not running."""
        if self.state != "running" or self.pace is None:
            return None
        return (self.max_steps - self.step) * self.pace

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
    """A context in which `update` keeps the terminal, or a log, informed.

    `shared`: the runs themselves, or a debugger, use the terminal, so that no table is drawn.
    """

    def __init__(self, rows: Collection[Row], console: Console, shared: bool = False) -> None:
        self._rows = rows
        self._console = console
        live = is_live(console) and not shared
        self._live = Live(console=console, refresh_per_second=2, transient=False) if live else None
        self._read: set[Path] = set()  # the rows that have shown what their directories hold
        self._said: dict[Path, str] = {}
        self._last_progress = time.monotonic()

    def __enter__(self) -> "Display":
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
            if row.state in ACTIVE or last or row.folder not in self._read:
                self._read.add(row.folder)
                row.refresh()
        if self._live:
            self._live.update(self.table())
        else:
            self._say_changes()

    def table(self) -> Text:
        """The most important rows: running and failed ones first, up to a screenful."""
        lines = max(3, self._console.height - FRAME_LINES)
        return run_table([*self._rows], lines, room=room_of(self._console))

    def _say_changes(self) -> None:
        progress = time.monotonic() - self._last_progress > 30
        for row in self._rows:
            if self._said.get(row.folder) != row.state or (progress and row.state == "running"):
                cells = zip(COLUMNS[3:], row.cells()[3:], strict=True)
                named = ", ".join(f"{name} {cell}" for name, cell in cells if cell)
                print_line(self._console, f"{row.key[:8]} {row.label}: {row.state} ({named})")
                self._said[row.folder] = row.state
        if progress:
            print_line(self._console, headline([*self._rows]))
            self._last_progress = time.monotonic()


def run_table(rows: Sequence[Row], lines: int, columns: Sequence[str] = COLUMNS, room: int | None = None) -> Text:
    """All rows, or the `lines` most telling ones, a line each, under a count of their states.

    `room` is how many cells a line may have; None: as many as it needs.
    """
    head = headline(rows)
    text = Text("\n".join(textwrap.wrap(head, room)) if room else head, no_wrap=True, overflow="crop")
    hidden = len(rows) - lines
    if hidden > 0:
        rows = sorted(rows, key=lambda row: [*STYLES].index(row.state))[:lines]
    if not any(map(attrgetter("note"), rows)):
        columns = [column for column in columns if column != "where"]
    cells = []
    for row in rows:
        named = dict(zip(COLUMNS, row.cells(), strict=True))
        cells.append([*map(named.__getitem__, columns)])
    titles, *shown = lay_out(columns, cells, room, DROPPED, "what", RIGHT)
    text.append(f"\n{titles}", style="bold")
    for row, line in zip(rows, shown, strict=True):
        text.append(f"\n{line}", style=STYLES[row.state])
    if hidden > 0:
        text.append(f"\n{hidden} more")
    return text


def headline(rows: Sequence[Row]) -> str:
    """How many rows are in each state, and how long they all will take."""
    counts = Counter(map(attrgetter("state"), rows))
    text = ", ".join(f"{counts[state]} {state}" for state in TITLE if counts[state])
    left = seconds_left(rows)
    return text if left is None else f"{text}; about {duration(left)} left"


def seconds_left(rows: Sequence[Row]) -> float | None:
    """Until the steps of all rows are done, as many rows at once as now; None where unknown.

    A row without a step of its own takes as long as the others.
    """
    paces = [row.pace for row in rows if row.pace is not None]
    active, waiting = list[float](), list[float]()
    for row in rows:
        if row.state in (*ACTIVE, "queued", "waiting") and paces:
            pace = statistics.median(paces) if row.pace is None else row.pace
            left = max(0, row.max_steps - row.step) * pace
            (active if row.state in ACTIVE else waiting).append(left)
    if not active:
        return None
    return max(*active, (sum(active) + sum(waiting)) / len(active))


def failure_text(rows: Sequence[Row]) -> Text:
    """Why runs failed, in words, and below each error the logs of its runs; no line is broken."""
    logs: dict[str, list[str]] = {}
    for row in rows:
        failure = row.failure or RunDirectory(row.folder).failure()
        error, log = (failure.error, failure.log) if failure else ("unknown", row.log)
        logs.setdefault(error, []).append(f"{row.key[:8]} {row.label}: {log}")
    text = Text()
    for error, lines in logs.items():
        count = "" if len(lines) == 1 else f"{len(lines)} "
        text.append(f"{count}failed: {error}\n", style=STYLES["failed"])
        text.append("".join(f"  {line}\n" for line in lines))
    text.right_crop(1)
    return text


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
