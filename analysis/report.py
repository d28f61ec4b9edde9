"""The command line `python -m analysis.report`: writes the report of a sweep and prints where it is."""

import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.aggregate import reward_curves, summarize
from analysis.findings import findings
from analysis.load import ReportError, SweepData, load_sweep, suggest
from analysis.pareto import pareto_front
from analysis.plots import draw_pareto, draw_reward_curves, plain
from analysis.render import Report, to_csv, to_html, to_markdown

USAGE = """usage: python -m analysis.report [sweep=NAME] [output=outputs] [reports=reports]

Writes the report of a sweep to REPORTS/NAME: report.html (one file to send around), report.md, results.csv,
pareto.png and reward_curves.png. Without sweep=NAME: of the newest sweep. Runs that are not finished are counted.
"""
WINDOWS = 20  # a reward curve is smoothed over one of so many parts of its steps
PNG_DPI = 150
PANEL_INCHES = (9.0, 5.0)
T = TypeVar("T")


@dataclass(frozen=True)
class Arguments:
    """What the command line says; `sweep` is None for the newest."""

    sweep: str | None = None
    output: str = "outputs"
    reports: str = "reports"


def main(arguments: Sequence[str]) -> int:
    """Run the command line; 1 if it cannot be done, with the reason on standard error."""
    if {"--help", "-h"} & set(arguments):
        print(USAGE, end="")
        return 0
    try:
        wanted = parse_arguments(arguments)
        paths = write_report(load_sweep(Path(wanted.output), wanted.sweep), Path(wanted.reports))
    except (ReportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path in paths:
        print(path)
    return 0


def parse_arguments(arguments: Sequence[str]) -> Arguments:
    """The arguments in their key=value form; ReportError names an unknown key and lists the valid ones."""
    valid = [field.name for field in fields(Arguments)]
    values: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in valid:
            raise ReportError(f"unknown key {key!r}; {suggest(key, valid)}")
        if not equals or not value:
            raise ReportError(f"{argument!r} has no value; write {key}=VALUE")
        values[key] = value
    return Arguments(**values)


def write_report(sweep: SweepData, reports: Path) -> list[Path]:
    """Write all files of the report into `reports`/<sweep>, each whole or not at all, and return their paths.

    ReportError where no run of the sweep is finished.
    """
    if not sweep.finished:
        raise ReportError(f"no run of sweep {sweep.name!r} is finished (0 of {len(sweep.runs)}); to go on: {sweep.command}")
    report, figures = build_report(sweep)
    images = {name: _image(figure, "svg") for name, figure in figures.items()}
    contents = {
        "report.html": to_html(report, images).encode(),
        "report.md": to_markdown(report).encode(),
        "results.csv": to_csv(report).encode(),
        **{f"{name}.png": _image(figure, "png") for name, figure in figures.items()},
    }
    folder = reports / sweep.name
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        _write_whole(folder / name, content)
    return [folder / name for name in contents]


def build_report(sweep: SweepData) -> tuple[Report, dict[str, Figure]]:
    """The numbers, sentences and plots of a sweep with at least one finished run."""
    summaries = summarize(sweep.runs)
    shortest = min((len(run.rewards) for run in sweep.runs if run.rewards), default=0)
    curves = reward_curves(sweep.runs, window=max(1, shortest // WINDOWS))
    settings = list(dict.fromkeys(summary.setting for summary in summaries))
    summaries_of = {setting: [s for s in summaries if s.setting == setting] for setting in settings}
    curves_of = {setting: [c for c in curves if c.setting == setting] for setting in settings}
    front = frozenset(summary.name for setting in settings for summary in pareto_front(summaries_of[setting]))
    figures = {"pareto": _draw(draw_pareto, summaries_of), "reward_curves": _draw(draw_reward_curves, curves_of)}
    return Report(sweep, summaries, front, findings(sweep, summaries)), figures


def _draw(draw: Callable[[Axes, list[T]], None], panels: Mapping[str, list[T]]) -> Figure:
    """A figure with one panel for each setting, one below the other."""
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width, height * len(panels)), facecolor="white")
    FigureCanvasAgg(figure)
    # The panels have their final places before anything is drawn: labels are placed by pixels.
    margin = 0.6 / (height * len(panels))
    figure.subplots_adjust(left=0.1, right=0.97, bottom=margin, top=1 - margin, hspace=0.27)
    for ax, (setting, drawn) in zip(figure.subplots(len(panels), squeeze=False).flat, panels.items(), strict=True):
        ax.set_title(plain(setting), loc="left", fontsize=10)
        draw(ax, drawn)
    return figure


def _image(figure: Figure, kind: str) -> bytes:
    stream = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else None  # the same numbers give the same bytes
    with matplotlib.rc_context({"svg.hashsalt": "analysis"}):
        figure.savefig(stream, format=kind, dpi=PNG_DPI, bbox_inches="tight", metadata=metadata)
    return stream.getvalue()


def _write_whole(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
