"""`python -m analysis.report`: writes the report of a sweep and prints the paths."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.data.load import SweepData, load_sweep
from analysis.figures.accuracy import named_labels
from analysis.figures.draw import draw_files
from analysis.figures.style import styles
from analysis.report.export import differences_csv, to_csv, to_json, to_latex, to_markdown, write_files
from analysis.report.page import to_html
from analysis.report.results import compute_results
from analysis.report.search_results import SearchResults, search_results
from efficient_rl.cli import DONE, command_line, parse_settings
from efficient_rl.errors import ConfigError, require, require_known
from efficient_rl.tracking.client import resolve_uri
from efficient_rl.tracking.views import attach

USAGE = """usage: python -m analysis.report [sweep=NAME] [output=outputs] [reports=reports] [accuracy=0.5] [read=directories]
                                 [tracking=URI] [study=URL]

Writes the report of a sweep to REPORTS/NAME: report.html (one self-contained file), report.md, results.csv,
differences.csv, results.tex, report.json, and every figure as PNG and PDF. Without sweep=NAME: of the newest sweep. Runs
that are not finished are counted.

read=store reads the tracking store instead of the run directories. accuracy=0.5 adds the costs to reach 50%.
study=URL is the search.storage of a search that is still running. The files also become artifacts of the sweep's run in
the tracking store, if it has one; tracking=none turns that off.
"""
READ = ("directories", "store")
KEYS = ("accuracy", "output", "read", "reports", "study", "sweep", "tracking")


@command_line(USAGE, failures=(OSError,))
def main(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit status."""
    given = parse_settings(arguments, KEYS)
    target, uri = _target(given.get("accuracy")), resolve_uri(given.get("tracking"))
    outputs, reports = Path(given.get("output", "outputs")), Path(given.get("reports", "reports"))
    _check_writable(reports)
    sweep = _load(given.get("read", READ[0]), outputs, uri, given.get("sweep"))
    search = search_results(outputs / "sweeps" / sweep.name, sweep, given.get("study"))
    paths = write_report(sweep, reports, target, search)
    print(*paths, sep="\n")
    trouble = attach(uri, sweep.name, paths[0].parent) if uri is not None else None
    if trouble is not None:
        print(f"not in the tracking store: {trouble}", file=sys.stderr)
    return DONE


def write_report(
    sweep: SweepData,
    reports: Path,
    target: float | None = None,
    search: SearchResults | None = None,
) -> list[Path]:
    """Write all files of the report into `reports`/<sweep> and return their paths.

    `target` is the accuracy whose cost is asked for. ConfigError where no run is finished.
    """
    if not sweep.finished:
        progress = f"no run of sweep {sweep.name!r} is finished (0 of {len(sweep.runs)})"
        raise ConfigError(f"{progress}; to resume: {sweep.command}")
    results = compute_results(sweep, target, search)
    contents: dict[str, str | bytes] = {
        "report.html": to_html(results),
        "report.md": to_markdown(results),
        "results.csv": to_csv(results),
        "differences.csv": differences_csv(results),
        "results.tex": to_latex(results),
        "report.json": to_json(results),
    }
    images = draw_files(results.figures, styles(named_labels(results.summaries)))
    return write_files(reports / sweep.name, contents | images)


def _load(read: str, outputs: Path, uri: str | None, name: str | None) -> SweepData:
    """The sweep, from where `read` says; ConfigError where that is not possible."""
    require_known("read", read, READ)
    if read == READ[0]:
        try:
            return load_sweep(outputs, name)
        except OSError as error:
            raise ConfigError(f"output={str(outputs)!r} cannot be read ({error.strerror}); name another folder") from error
    if uri is None:
        remedy = "use tracking=sqlite:///mlflow.db"
        raise ConfigError(f"read=store needs a store and tracking=none names none; {remedy}")
    from analysis.data.stored import load_stored

    return load_stored(uri, name)


def _check_writable(reports: Path) -> None:
    """ConfigError where the folder of reports can neither be made nor be written to."""
    try:
        nearest = next(path for path in (reports, *reports.absolute().parents) if path.exists())
        writable = nearest.is_dir() and os.access(nearest, os.W_OK)
    except OSError:  # such as for a name that is too long
        writable = False
    require(writable, "reports", str(reports), "is no folder that can be written to; name another one")


def _target(accuracy: str | None) -> float | None:
    if accuracy is None:
        return None
    try:
        target = float(accuracy)
    except ValueError:
        target = -1.0
    if not 0.0 <= target <= 1.0:
        bound = "must be a share from 0 to 1, such as accuracy=0.5"
        raise ConfigError(f"accuracy={accuracy!r} {bound}")
    return target


if __name__ == "__main__":
    sys.exit(main())
