"""Writes the numbers of a report for other programs and papers: CSV, JSON, LaTeX, Markdown."""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from analysis.figures.style import written
from analysis.report.results import Answer
from analysis.report.sentences import code_versions, findings, points, share_text
from analysis.stats.aggregate import Summary
from analysis.stats.intervals import Estimate

FORMAT = "efficient_rl report 1"  # changes when a reader of the JSON would have to
HEADER = (
    "configuration",
    "trained parameters",
    "accuracy [95%\N{NO-BREAK SPACE}interval]",
    "interquartile mean",
    "gain (points)",
    "greedy accuracy",
    "reward at the end",
    "mean reward",
    "peak memory (MiB)",
    "training (s)",
    "tokens",
    "seeds",
    "Pareto front",
)
MARKDOWN = re.compile(r"[\\`*|<&#~]|\](?=[(\[])|(?<!\w)_|_(?!\w)")  # first_k and [1%, 2%] may stay as they are
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {c: f"\\{c}" for c in "&%$#_{}"}


def table_row(answer: Answer, summary: Summary) -> tuple[tuple[str, float | str], ...]:
    """The cells of one configuration in the order of HEADER, each with the value that it is sorted by."""
    active = round(summary.mean_active_params)
    at_once = "" if active == summary.trainable_params else f", {active:,} at a time"
    interval = "one seed" if summary.accuracy_low is None else f"{summary.accuracy_low:.1%}, {summary.accuracy_high:.1%}"
    area = answer.reward_areas.get((summary.label, summary.setting), Estimate(float("nan")))
    tokens = summary.costs["tokens"].value
    return (
        (summary.name, summary.name),
        (f"{summary.trainable_params:,} ({share_text(summary.share)}{at_once})", summary.trainable_params),
        (f"{summary.accuracy:.1%} [{interval}]", summary.accuracy),
        (f"{summary.robust_accuracy.value:.1%}", summary.robust_accuracy.value),
        (points(summary.gain.value), summary.gain.value),
        (f"{summary.greedy_accuracy:.1%}", summary.greedy_accuracy),
        (f"{summary.reward:.3f}", summary.reward),
        (f"{area.value:.3f}" if isfinite(area.value) else "", area.value if isfinite(area.value) else -1.0),
        (f"{summary.peak_memory_bytes / 2**20:,.0f}", summary.peak_memory_bytes),
        (f"{summary.train_seconds:,.1f}", summary.train_seconds),
        (written(tokens, "count"), tokens),
        (str(summary.seeds), summary.seeds),
        ("yes" if summary.name in answer.front else "", int(summary.name in answer.front)),
    )


def to_csv(answer: Answer) -> str:
    """Every number of every summary, unrounded, one line each; empty where there is no value."""
    return _csv([_flat(answer, summary) for summary in answer.summaries])


def differences_csv(answer: Answer) -> str:
    """Every pair that was compared, one line each; only the header's first names where there is none."""
    rows = [_unnested({**asdict(each), "decided": each.decided}) for each in answer.differences]
    return _csv(rows) if rows else "first,second\n"


def to_json(answer: Answer) -> str:
    """All numbers behind the report, with the data of the figures; not-finite ones are null."""
    sweep = answer.sweep
    content = {
        "format": FORMAT,
        "sweep": sweep.name,
        "question": sweep.question,
        "command": sweep.command,
        "created": sweep.created,
        "code_versions": code_versions(sweep),
        "runs": {"all": len(sweep.runs), "finished": len(sweep.finished)},
        "summaries": [_flat(answer, summary) for summary in answer.summaries],
        "differences": [{**asdict(each), "decided": each.decided} for each in answer.differences],
        "prices": [asdict(each) for each in answer.prices],
        "across_settings": [asdict(each) for each in answer.across],
        "fits": {name: asdict(fit) for name, fit in answer.fits.items()},
        "hypervolumes": dict(answer.hypervolumes),
        "search": None if answer.searched is None else answer.searched.content,
        "figures": [asdict(figure) for figure in answer.figures],
    }
    return json.dumps(finite(content), indent=1, allow_nan=False) + "\n"


def to_latex(answer: Answer) -> str:
    """A tabular for booktabs: configuration, trained parameters, accuracy, gain, memory, time, seeds."""
    head = ["configuration", "trained", "accuracy", r"95\% interval", "gain", "memory", "time", "seeds"]
    rows = [
        [
            _latex(summary.name) + (r"\,$\star$" if summary.name in answer.front else ""),
            _latex(written(summary.trainable_params, "count")),
            rf"{100 * summary.accuracy:.1f}\%",
            "--" if summary.accuracy_low is None else rf"[{100 * summary.accuracy_low:.1f}, {_high(summary):.1f}]",
            f"${points(summary.gain.value)}$",
            _latex(written(summary.peak_memory_bytes, "bytes")),
            _latex(written(summary.train_seconds, "seconds")),
            str(summary.seeds),
        ]
        for summary in answer.summaries
    ]
    body = " \\\\\n".join(" & ".join(row) for row in rows)
    return (
        "% needs \\usepackage{booktabs}; a star marks the Pareto front of trained parameters\n"
        "\\begin{tabular}{lrrrrrrr}\n\\toprule\n"
        f"{' & '.join(head)} \\\\\n\\midrule\n{body} \\\\\n\\bottomrule\n\\end{{tabular}}\n"
    )


def to_markdown(answer: Answer) -> str:
    """The report with the plots beside it as files."""
    rows = [tuple(text for text, _ in table_row(answer, summary)) for summary in answer.summaries]
    plots = [f"![{figure.title}]({figure.name}.png)\n\n{_markdown(figure.caption)}" for figure in answer.figures]
    parts = [
        f"# {_markdown(answer.sweep.name)}",
        *([_markdown(answer.sweep.question)] if answer.sweep.question else []),
        "\n".join(f"- {_markdown(sentence)}" for sentence in findings(answer)),
        _markdown_table(HEADER, rows),
        *_markdown_search(answer),
        *plots,
        f"Sweep of {date_text(answer)}, code version {_markdown(', '.join(code_versions(answer.sweep)))}. To make it again:",
        "\n".join(f"    {' '.join(line.split())}" for line in reproduction(answer)),
    ]
    return "\n\n".join(parts) + "\n"


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(_markdown(cell) for cell in row)} |" for row in (head, *rows)]
    lines.insert(1, f"| {' | '.join(['---', *['---:'] * (len(head) - 1)])} |")
    return "\n".join(lines)


def _markdown_search(answer: Answer) -> list[str]:
    """The table of the search, if there was one, with its title and caption."""
    if answer.searched is None or not answer.searched.table.rows:
        return []
    table = answer.searched.table
    rows = [[text for text, _ in row] for row in table.rows]
    return [f"## {_markdown(table.title)}", _markdown_table(table.head, rows), _markdown(table.caption)]


def reproduction(answer: Answer) -> list[str]:
    """The commands that give the same report, from the code on."""
    lines = []
    for version in code_versions(answer.sweep):
        commit, _, changes = version.partition("-dirty-")
        if re.fullmatch(r"[0-9a-f]{7,40}", commit):
            lines.append(f"git checkout {commit}")
        if changes:
            lines.append(f"git apply outputs/code/{version}/changes.diff")
    return [
        *lines,
        "pip install -c constraints.txt -e .",
        answer.sweep.command,
        f"python -m analysis.report sweep={answer.sweep.name}",
    ]


def date_text(answer: Answer) -> str:
    """When the sweep was started."""
    return f"{datetime.fromtimestamp(answer.sweep.created, UTC):%Y-%m-%d %H:%M} UTC"


def finite(value: Any) -> Any:
    """The same with None for numbers that JSON has no word for."""
    match value:
        case dict():
            return {key: finite(each) for key, each in value.items()}
        case list() | tuple():
            return [finite(each) for each in value]
        case float():
            return value if isfinite(value) else None
        case _:
            return value


def _flat(answer: Answer, summary: Summary) -> dict[str, Any]:
    """One level: an estimate becomes a value and two ends."""
    values = asdict(summary)
    costs = values.pop("costs")
    area = answer.reward_areas.get((summary.label, summary.setting))
    more = {"reward_area": None if area is None else asdict(area), "on_front": summary.name in answer.front}
    return _unnested({**values, **costs, **more})


def _unnested(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= {name if part == "value" else f"{name}_{part}": each for part, each in value.items()}
        else:
            flat[name] = value
    return flat


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    names = dict.fromkeys(name for row in rows for name in row)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(names), lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _high(summary: Summary) -> float:
    return 100 * (summary.accuracy if summary.accuracy_high is None else summary.accuracy_high)


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))


def _markdown(text: str) -> str:
    """The text on one line, with what Markdown would read as its own made harmless."""
    return MARKDOWN.sub(r"\\\g<0>", " ".join(text.split()))
