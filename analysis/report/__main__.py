"""The command line `python -m analysis.report`: writes the report of a sweep and prints where it is."""

import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure as Canvas

from analysis.data.load import ReportError, SweepData, load_sweep, suggest
from analysis.figures.accuracy import named_labels
from analysis.figures.draw import draw_figure
from analysis.figures.search import study_figures
from analysis.figures.style import styles
from analysis.report.export import differences_csv, to_csv, to_json, to_latex, to_markdown
from analysis.report.page import to_html
from analysis.report.results import Answer, analyse
from analysis.report.search_results import read_search
from efficient_rl.tracking.client import resolve_uri
from efficient_rl.tracking.views import attach

USAGE = """usage: python -m analysis.report [sweep=NAME] [output=outputs] [reports=reports] [accuracy=0.5] [read=directories]
                                 [tracking=URI] [study=URL]

Writes the report of a sweep to REPORTS/NAME: report.html (one interactive file to send around), report.md, results.csv,
differences.csv, results.tex, report.json, and every figure as PNG and PDF. Without sweep=NAME: of the newest sweep. Runs
that are not finished are counted.

read=store reads the tracking store instead of the run directories. accuracy=0.5 asks what it took to reach 50%.
study=URL is the search.storage of a search that was given one. The files also become artifacts of the sweep's run in the
tracking store, if that knows it; tracking=none turns that off.
"""
PNG_DPI = 150
READ = ("directories", "store")


@dataclass(frozen=True)
class Arguments:
    """What the command line says; `sweep` is None for the newest, `tracking` None for the default store."""

    sweep: str | None = None
    output: str = "outputs"
    reports: str = "reports"
    accuracy: str | None = None
    read: str = READ[0]
    tracking: str | None = None
    study: str | None = None


def main(arguments: Sequence[str]) -> int:
    """Run the command line; 1 if it cannot be done, with the reason on standard error."""
    if {"--help", "-h"} & set(arguments):
        print(USAGE, end="")
        return 0
    try:
        wanted = parse_arguments(arguments)
        uri = resolve_uri(wanted.tracking)
        sweep = load(wanted, uri)
        folder = Path(wanted.output) / "sweeps" / sweep.name
        paths = write_report(sweep, Path(wanted.reports), _target(wanted), folder, wanted.study)
    except (ReportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path in paths:
        print(path)
    trouble = attach(uri, sweep.name, paths[0].parent) if uri is not None else None
    if trouble is not None:
        print(f"not in the tracking store: {trouble}", file=sys.stderr)
    return 0


def load(wanted: Arguments, uri: str | None) -> SweepData:
    """The sweep, from where the arguments say. ReportError where that is not possible."""
    if wanted.read == "directories":
        return load_sweep(Path(wanted.output), wanted.sweep)
    if uri is None:
        raise ReportError("read=store needs a store and tracking=none names none; use tracking=sqlite:///mlflow.db")
    from analysis.data.store import load_stored

    return load_stored(uri, wanted.sweep)


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
    if values.get("read", READ[0]) not in READ:
        raise ReportError(f"read={values['read']!r} is not known; {suggest(values['read'], READ)}")
    return Arguments(**values)


def write_report(
    sweep: SweepData,
    reports: Path,
    target: float | None = None,
    study_folder: Path | None = None,
    study_url: str | None = None,
) -> list[Path]:
    """Write all files of the report into `reports`/<sweep>, each whole or not at all, and return their paths.

    `study_folder` may hold an Optuna study and what its search said of itself; `study_url` is the
    database that holds the study instead. ReportError where no run of the sweep is finished.
    """
    if not sweep.finished:
        raise ReportError(f"no run of sweep {sweep.name!r} is finished (0 of {len(sweep.runs)}); to go on: {sweep.command}")
    answer = analyse(sweep, target)
    if study_folder is not None:
        searched = read_search(study_folder, sweep)
        own = [] if searched is None else searched.figures
        answer = replace(answer, figures=[*answer.figures, *own, *study_figures(study_folder, study_url)], searched=searched)
    contents = {
        "report.html": to_html(answer).encode(),
        "report.md": to_markdown(answer).encode(),
        "results.csv": to_csv(answer).encode(),
        "differences.csv": differences_csv(answer).encode(),
        "results.tex": to_latex(answer).encode(),
        "report.json": to_json(answer).encode(),
        **_images(answer),
    }
    folder = reports / sweep.name
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_whole(folder / name, content)
    return [folder / name for name in contents]


def _images(answer: Answer) -> dict[str, bytes]:
    """Every figure twice, by file name."""
    looks = styles(named_labels(answer.summaries))
    images: dict[str, bytes] = {}
    for figure in answer.figures:
        canvas = draw_figure(figure, looks)
        images |= {f"{figure.name}.{kind}": image(canvas, kind) for kind in ("png", "pdf")}
    return images


def image(canvas: Canvas, kind: str) -> bytes:
    """The drawing as a file of the kind `png` or `pdf`."""
    stream = io.BytesIO()
    metadata = {"CreationDate": None} if kind == "pdf" else None  # the same numbers give the same bytes
    with matplotlib.rc_context({"pdf.fonttype": 42}):  # text stays text
        canvas.savefig(stream, format=kind, dpi=PNG_DPI, bbox_inches="tight", metadata=metadata)
    return stream.getvalue()


def _target(wanted: Arguments) -> float | None:
    if wanted.accuracy is None:
        return None
    try:
        target = float(wanted.accuracy)
    except ValueError:
        target = -1.0
    if not 0.0 <= target <= 1.0:
        raise ReportError(f"accuracy={wanted.accuracy!r} must be a share from 0 to 1, such as accuracy=0.5")
    return target


def write_whole(path: Path, content: bytes) -> None:
    """Write the file so that nobody ever sees half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
