"""Writes the same report three ways: CSV for other programs, Markdown for a repository, HTML as one file to send around."""

import base64
import csv
import html
import io
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from analysis.aggregate import Summary
from analysis.findings import code_versions, points, share_text
from analysis.load import SweepData

HEADER = (
    "configuration",
    "trained parameters",
    "accuracy [95%\N{NO-BREAK SPACE}interval over seeds]",
    "± over problems (points)",
    "gain (points)",
    "greedy accuracy",
    "final reward",
    "peak memory (MiB)",
    "training (s)",
    "seeds",
    "Pareto front",
)
CAPTIONS = {
    "pareto": "Trained parameters against held-out accuracy: the mean over seeds with its 95% bootstrap interval. The line "
    "joins the configurations that no other beats in both.",
    "reward_curves": "Mean training reward, with the 95% bootstrap interval over seeds where there are several.",
}
Z = 1.959964  # of a two-sided 95% interval
MARKDOWN = re.compile(r"[\\`*|<&#~]|\](?=[(\[])|(?<!\w)_|_(?!\w)")  # first_k and [1%, 2%] may stay as they are
STYLE = """
:root { color-scheme: light dark; --ink: #1d1f23; --quiet: #5b616b; --paper: #ffffff; --line: #d9dce1; --mark: #eef4fb; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --quiet: #a2a9b4; --paper: #16181c; --line: #363a42; --mark: #1d2a3a; }
}
body { margin: 2.5rem auto; max-width: 78rem; padding: 0 1.25rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { margin-bottom: 0.25rem; overflow-wrap: anywhere; }
.question { margin-top: 0; font-size: 1.15rem; color: var(--quiet); }
li { margin: 0.25rem 0; }
.table { overflow-x: auto; margin: 2rem 0; }
table { width: 100%; border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.4rem 0.5rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { color: var(--quiet); font-weight: 600; white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { min-width: 13.5rem; text-align: left; white-space: normal; }
tr.front { background: var(--mark); }
figure { margin: 2rem 0; }
.card { padding: 1rem; border: 1px solid var(--line); border-radius: 0.5rem; background: #ffffff; text-align: center; }
.card img { max-width: 100%; vertical-align: middle; }
figcaption, footer { margin-top: 0.5rem; color: var(--quiet); font-size: 0.9rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
""".strip()


@dataclass(frozen=True)
class Report:
    """All that a report says; `front` holds the names of the summaries on the Pareto front of their setting."""

    sweep: SweepData
    summaries: Sequence[Summary]
    front: frozenset[str]
    sentences: Sequence[str]


def to_csv(report: Report) -> str:
    """Every field of every summary, unrounded, one line each; empty where there is no value."""
    rows = [{**asdict(s), "gain": s.gain, "on_front": s.name in report.front} for s in report.summaries]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def to_markdown(report: Report) -> str:
    """The report with the plots beside it as files."""
    rows = [HEADER, ("---", *["---:"] * (len(HEADER) - 1)), *(table_row(s, report.front) for s in report.summaries)]
    table = "\n".join(f"| {' | '.join(cell if row is rows[1] else _markdown(cell) for cell in row)} |" for row in rows)
    plots = "\n\n".join(f"![{name}]({name}.png)\n\n{caption}" for name, caption in CAPTIONS.items())
    parts = [
        f"# {_markdown(report.sweep.name)}",
        *([_markdown(report.sweep.question)] if report.sweep.question else []),
        "\n".join(f"- {_markdown(sentence)}" for sentence in report.sentences),
        table,
        plots,
        f"Sweep of {_date(report.sweep)}, code version {_markdown(', '.join(code_versions(report.sweep)))}, made by:",
        f"    {' '.join(report.sweep.command.split())}",
    ]
    return "\n\n".join(parts) + "\n"


def to_html(report: Report, images: dict[str, bytes]) -> str:
    """The report as one file that needs no other: `images` are SVG by the names of CAPTIONS."""
    sweep = report.sweep
    head = "".join(f"<th scope='col'>{html.escape(cell)}</th>" for cell in HEADER)
    figures = "\n".join(_figure(caption, images[name]) for name, caption in CAPTIONS.items())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<title>{html.escape(sweep.name)}</title>
<style>
{STYLE}
</style>
</head>
<body>
<h1>{html.escape(sweep.name)}</h1>
{f'<p class="question">{html.escape(sweep.question)}</p>' if sweep.question else ""}
<ul>
{"".join(f"<li>{html.escape(sentence)}</li>" for sentence in report.sentences)}
</ul>
<div class="table"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{"".join(_html_row(summary, report.front) for summary in report.summaries)}
</tbody>
</table></div>
{figures}
<footer>
<p>Sweep of {_date(sweep)}, code version {html.escape(", ".join(code_versions(sweep)))}, made by:</p>
<pre><code>{html.escape(sweep.command)}</code></pre>
</footer>
</body>
</html>
"""


def table_row(summary: Summary, front: frozenset[str]) -> tuple[str, ...]:
    """The cells of one configuration, in the order of HEADER."""
    active = round(summary.mean_active_params)
    at_once = "" if active == summary.trainable_params else f", {active:,} at a time"
    interval = "one seed" if summary.accuracy_low is None else f"{summary.accuracy_low:.1%}, {summary.accuracy_high:.1%}"
    return (
        summary.name,
        f"{summary.trainable_params:,} ({share_text(summary.share)}{at_once})",
        f"{summary.accuracy:.1%} [{interval}]",
        f"{100 * Z * summary.standard_error:.1f}",
        points(summary.gain),
        f"{summary.greedy_accuracy:.1%}",
        f"{summary.reward:.3f}",
        f"{summary.peak_memory_bytes / 2**20:,.0f}",
        f"{summary.train_seconds:,.1f}",
        str(summary.seeds),
        "yes" if summary.name in front else "",
    )


def _html_row(summary: Summary, front: frozenset[str]) -> str:
    cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in table_row(summary, front))
    mark = " class='front'" if summary.name in front else ""
    return f"<tr{mark}>{cells}</tr>\n"


def _figure(caption: str, svg: bytes) -> str:
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
    text = html.escape(caption)
    return f'<figure><div class="card"><img src="{source}" alt="{text}" /></div><figcaption>{text}</figcaption></figure>'


def _markdown(text: str) -> str:
    """The text on one line, with what Markdown would read as its own made harmless."""
    return MARKDOWN.sub(r"\\\g<0>", " ".join(text.split()))


def _date(sweep: SweepData) -> str:
    return f"{datetime.fromtimestamp(sweep.created, UTC):%Y-%m-%d %H:%M} UTC"
