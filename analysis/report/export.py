"""Writes the numbers of a report for other programs and papers: CSV, JSON, LaTeX, Markdown."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from itertools import chain
from math import isfinite, nan
from pathlib import Path
from typing import Any

from analysis.figures.data import Figure
from analysis.figures.numbers import percent_interval, points, share_text, written
from analysis.report.results import Results
from analysis.report.sentences import sentences_of
from analysis.report.table import Cell, Table
from analysis.stats.aggregate import Summary
from analysis.stats.comparisons import Difference
from analysis.stats.intervals import Estimate
from efficient_rl.files import write_atomic

FORMAT = "efficient_rl report 1"  # changes when a reader of the JSON would have to
HEAD = (
    *("configuration", "trained parameters", "accuracy [95%\N{NO-BREAK SPACE}interval]"),
    *("interquartile mean", "gain (points)", "greedy accuracy", "reward at the end", "mean reward"),
    *("peak memory (MiB)", "{clock} (s)", "tokens", "seeds", "Pareto front"),
)
# What Markdown would read as its own; first_k and [1%, 2%] may stay as they are.
MARKDOWN = re.compile(r"[\\`*|<&#~]|\](?=[(\[])|(?<!\w)_|_(?!\w)")
LATEX = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {character: f"\\{character}" for character in "&%$#_{}"}
)
LATEX_HEAD = r"configuration & trained & accuracy & 95\% interval & gain & memory & {clock} & seeds"


def summary_table(results: Results) -> Table:
    """Every configuration; those on the front of trained parameters are marked."""
    rows = tuple(_table_row(results, summary) for summary in results.summaries)
    on_front = (i for i, each in enumerate(results.summaries) if each.name in results.front)
    head = tuple(name.format(clock=results.clock) for name in HEAD)
    return Table(head, rows, marked=frozenset(on_front))


def to_csv(results: Results) -> str:
    """Every number of every summary, unrounded, one line each; empty where there is no value."""
    return csv_text(_flat(results))


def differences_csv(results: Results) -> str:
    """Every pair that was compared, one line each; only the header's first names without any."""
    rows = map(unnested, map(_difference_row, results.differences))
    return csv_text(list(rows)) or "first,second\n"


def to_json(results: Results) -> str:
    """All numbers behind the report, with the data of the figures; not-finite ones are null."""
    sweep, search = results.sweep, results.search
    return json_text(
        {
            "format": FORMAT,
            "sweep": sweep.name,
            "question": sweep.question,
            "command": sweep.command,
            "created": sweep.created,
            "code_versions": sweep.code_versions,
            "clock": results.clock,
            "runs": {"all": len(sweep.runs), "finished": len(sweep.finished)},
            "summaries": _flat(results),
            "differences": list(map(_difference_row, results.differences)),
            "prices": list(results.costs_to_target),
            "across_settings": list(results.across),
            "fits": results.fits,
            "hypervolumes": results.hypervolumes,
            "search": search.content if search is not None else None,
            "figures": list(results.figures),
        }
    )


def to_latex(results: Results) -> str:
    """A booktabs table: configuration, parameters, accuracy, gain, memory, time, seeds."""
    body = "".join(_latex_row(results, summary) for summary in results.summaries)
    return (
        "% needs \\usepackage{booktabs}; a star marks the Pareto front of trained parameters\n"
        "\\begin{tabular}{lrrrrrrr}\n\\toprule\n"
        f"{LATEX_HEAD.format(clock=results.clock)} \\\\\n\\midrule\n{body}\\bottomrule\n\\end{{tabular}}\n"
    )


def to_markdown(results: Results) -> str:
    """The report with the plots beside it as files."""
    sweep = results.sweep
    sentences = (f"- {_markdown(sentence)}" for sentence in sentences_of(results))
    versions = _markdown(", ".join(sweep.code_versions))
    commands = (f"    {' '.join(line.split())}" for line in reproduction(results))
    parts = [
        f"# {_markdown(sweep.name)}",
        _markdown(sweep.question or ""),
        "\n".join(sentences),
        _markdown_table(summary_table(results)),
        _markdown_search(results),
        *map(_markdown_figure, results.figures),
        f"Sweep of {date_text(results)}, code version {versions}. To make it again:",
        "\n".join(commands),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def reproduction(results: Results) -> list[str]:
    """The commands that give the same report, from the code on."""
    lines = []
    for version in results.sweep.code_versions:
        commit, _, changes = version.partition("-dirty-")
        if re.fullmatch(r"[0-9a-f]{7,40}", commit):
            lines.append(f"git checkout {commit}")
        if changes:
            lines.append(f"git apply outputs/code/{version}/changes.diff")
    install, report = "pip install -c constraints.txt -e .", "python -m analysis.report"
    return [*lines, install, results.sweep.command, f"{report} sweep={results.sweep.name}"]


def date_text(results: Results) -> str:
    """When the sweep was started."""
    return f"{datetime.fromtimestamp(results.sweep.created, UTC):%Y-%m-%d %H:%M} UTC"


def plain_data(value: Any) -> Any:
    """The same in JSON's own types; numbers that it has no word for become None."""
    match value:
        case float():
            return value if isfinite(value) else None
        case Mapping():
            return {key: plain_data(each) for key, each in value.items()}
        case list() | tuple():
            return list(map(plain_data, value))
        case _ if is_dataclass(value) and not isinstance(value, type):
            return plain_data(asdict(value))
        case _:
            return value


def json_text(content: Any) -> str:
    """The content as JSON for people."""
    return json.dumps(plain_data(content), indent=1, allow_nan=False) + "\n"


def write_files(folder: Path, contents: Mapping[str, str | bytes]) -> list[Path]:
    """Write every file whole or not at all; returns their paths."""
    for name, content in contents.items():
        write_atomic(folder / name, content)
    return [folder / name for name in contents]


def unnested(row: Mapping[str, Any]) -> dict[str, Any]:
    """One level: an estimate becomes a value and two ends."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Estimate):
            flat |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        else:
            flat[name] = value
    return flat


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows under all their names; "" without rows."""
    if not rows:
        return ""
    stream = io.StringIO()
    names = list(dict.fromkeys(chain.from_iterable(rows)))
    writer = csv.DictWriter(stream, names, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _table_row(results: Results, summary: Summary) -> tuple[Cell, ...]:
    """The cells of one configuration in the order of HEAD."""
    trained = f"{summary.trainable_params:,} ({share_text(summary.share)}"
    if round(summary.mean_active_params) != summary.trainable_params:
        trained += f", {round(summary.mean_active_params):,} at a time"
    interval = percent_interval(summary.accuracy_estimate) or " [one seed]"
    area = summary.reward_area or Estimate(nan)
    has_area, on_front = isfinite(area.value), summary.name in results.front
    tokens = summary.costs["tokens"].value
    return (
        (summary.name, summary.name),
        (f"{trained})", summary.trainable_params),
        (f"{summary.accuracy:.1%}{interval}", summary.accuracy),
        (f"{summary.robust_accuracy.value:.1%}", summary.robust_accuracy.value),
        (points(summary.gain.value), summary.gain.value),
        (f"{summary.greedy_accuracy:.1%}", summary.greedy_accuracy),
        (f"{summary.reward:.3f}", summary.reward),
        (f"{area.value:.3f}", area.value) if has_area else ("", -1.0),
        (f"{summary.peak_memory_bytes / 2**20:,.0f}", summary.peak_memory_bytes),
        (f"{summary.train_seconds:,.1f}", summary.train_seconds),
        (written(tokens, "count"), tokens),
        (str(summary.seeds), summary.seeds),
        ("yes", 1) if on_front else ("", 0),
    )


def _flat(results: Results) -> list[dict[str, Any]]:
    """Every number of every summary, each on one level."""
    rows = []
    for summary in results.summaries:
        values = dict(vars(summary))
        group, costs, area = values.pop("group"), values.pop("costs"), values.pop("reward_area")
        named = {"label": group.label, "setting": group.setting, "strategy": group.strategy}
        rest = {"reward_area": area, "clock": results.clock, "on_front": summary.name in results.front}
        rows.append(unnested({**named, **values, **costs, **rest}))
    return rows


def _difference_row(difference: Difference) -> dict[str, Any]:
    return {**vars(difference), "decided": difference.decided}


def _latex_row(results: Results, summary: Summary) -> str:
    star = r"\,$\star$" if summary.name in results.front else ""
    interval = percent_interval(summary.accuracy_estimate).replace("%", "").strip()
    cells = [
        _latex(summary.name) + star,
        _latex(written(summary.trainable_params, "count")),
        rf"{100 * summary.accuracy:.1f}\%",
        interval or "--",
        f"${points(summary.gain.value)}$",
        _latex(written(summary.peak_memory_bytes, "bytes")),
        _latex(written(summary.train_seconds, "seconds")),
        str(summary.seeds),
    ]
    return " & ".join(cells) + " \\\\\n"


def _markdown_table(table: Table) -> str:
    lines = []
    for cells in (table.head, *table.texts()):
        lines.append(f"| {' | '.join(map(_markdown, cells))} |")
    lines.insert(1, f"| --- |{' ---: |' * (len(table.head) - 1)}")
    return "\n".join(lines)


def _markdown_search(results: Results) -> str:
    """The table of the search, if there was one, with its title and caption."""
    if results.search is None or not results.search.table.rows:
        return ""
    table = results.search.table
    title, caption = _markdown(table.title), _markdown(table.caption)
    return f"## {title}\n\n{_markdown_table(table)}\n\n{caption}"


def _markdown_figure(figure: Figure) -> str:
    return f"![{figure.title}]({figure.name}.png)\n\n{_markdown(figure.caption)}"


def _latex(text: str) -> str:
    return " ".join(text.split()).translate(LATEX)


def _markdown(text: str) -> str:
    """The text on one line, with what Markdown would read as its own made harmless."""
    return MARKDOWN.sub(r"\\\g<0>", " ".join(text.split()))
