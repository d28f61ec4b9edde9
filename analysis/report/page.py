"""Writes the report as one self-contained HTML file whose script draws the figures."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

from analysis.figures.accuracy import named_labels
from analysis.figures.data import Figure
from analysis.figures.numbers import points_text
from analysis.figures.style import Style, styles
from analysis.report.export import date_text, plain_data, reproduction, summary_table
from analysis.report.results import Results
from analysis.report.sentences import sentences_of
from analysis.report.table import Cell, Table
from analysis.stats.comparisons import Difference

MOST_PAIRS = 100
# The page loads nothing from other hosts.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
PAIRS_HEAD = (
    *("pair", "difference in accuracy", "p", "p after Holm", "chance to be better in a run"),
    *("common seeds", "decided"),
)


def to_html(results: Results) -> str:
    """The page; it is light or dark as the reader's system is."""
    sweep = results.sweep
    question = f'<p class="question">{escape(sweep.question)}</p>' if sweep.question else ""
    sentences = (f"<li>{escape(sentence)}</li>" for sentence in sentences_of(results))
    paretos = [figure for figure in results.figures if figure.name.startswith("pareto")]
    others = results.figures[len(paretos) :]
    body = f"""<h1>{escape(sweep.name)}</h1>
{question}
<ul>
{"".join(sentences)}
</ul>
{_tabs(paretos)}
{"".join(map(section, paretos[:1]))}{"".join(map(_hidden_section, paretos[1:]))}
{_table(summary_table(results))}
{_pairs(results.differences)}
{_search(results)}
{"".join(map(section, others))}
<footer>
<p>Sweep of {date_text(results)}, code version {escape(", ".join(sweep.code_versions))}. To make it again:</p>
<pre><code>{escape(chr(10).join(reproduction(results)))}</code></pre>
</footer>"""
    looks = styles(named_labels(results.summaries))
    return document(sweep.name, body, results.figures, looks)


def document(title: str, body: str, figures: Sequence[Figure], looks: Mapping[str, Style]) -> str:
    """A whole page with the script that draws the figures into their sections; `looks` by label."""
    room = files("analysis.report")
    code, css = (room / "page.js").read_text("utf-8"), (room / "page.css").read_text("utf-8")
    content = plain_data({"figures": list(figures), "styles": looks})
    data = json.dumps(content, allow_nan=False, separators=(",", ":"))
    harmless = data.replace("<", "\\u003c")  # in HTML
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<meta http-equiv="Content-Security-Policy" content="{POLICY}" />
<title>{escape(title)}</title>
<style>
{css}
</style>
</head>
<body>
{body}
<div id="tip" role="status" hidden=""></div>
<noscript><p>The figures need JavaScript; they are beside this file as PNG and PDF.</p></noscript>
<script type="application/json" id="data">{harmless}</script>
<script>
{code}
</script>
</body>
</html>
"""


def section(figure: Figure, attributes: str = "") -> str:
    """Where the script draws the figure."""
    return (
        f'<section data-figure="{figure.name}"{attributes}>'
        f'<h2>{escape(figure.title)}</h2><div class="body"></div>'
        f'<p class="caption">{escape(figure.caption)}</p></section>\n'
    )


def _hidden_section(figure: Figure) -> str:
    return section(figure, ' hidden=""')


def _tabs(figures: Sequence[Figure]) -> str:
    """A button for each figure, the first pressed; nothing for a single one."""
    if len(figures) < 2:
        return ""
    buttons, pressed = "", "true"
    for figure in figures:
        title = escape(figure.title.removeprefix("Accuracy against "))
        attributes = f'type="button" data-shows="{figure.name}" aria-pressed="{pressed}"'
        buttons += f"<button {attributes}>{title}</button>"
        pressed = "false"
    return f'<div class="tabs">{buttons}</div>'


def _pairs(differences: Sequence[Difference]) -> str:
    """All pairs, the clearest first; the rest of a long list is in the CSV."""
    if not differences:
        return ""
    ordered = sorted(differences, key=lambda each: (each.p, each.first, each.second))
    table = Table(PAIRS_HEAD, tuple(map(_pair_row, ordered[:MOST_PAIRS])))
    title = "All pairs on common seeds"
    if len(ordered) > MOST_PAIRS:
        title += f" ({MOST_PAIRS} of {len(ordered)}; all are in differences.csv)"
    return f"<details><summary>{title}</summary>{_table(table)}</details>"


def _pair_row(each: Difference) -> tuple[Cell, ...]:
    name = f"{each.first} less {each.second}"
    if each.setting:
        name += f", {each.setting}"
    return (
        (name, name),
        (points_text(each.accuracy), 100 * each.accuracy.value),
        (f"{each.p:.3g}", each.p),
        (f"{each.holm_p:.3g}", each.holm_p),
        (f"{each.improvement.value:.0%}", each.improvement.value),
        (str(each.seeds), each.seeds),
        ("yes", 1) if each.decided else ("no", 0),
    )


def _search(results: Results) -> str:
    """What the search of the runs found and cost; nothing where there was none."""
    if results.search is None or not results.search.table.rows:
        return ""
    table = results.search.table
    caption = f'<p class="caption">{escape(table.caption)}</p>'
    return f"<h2>{escape(table.title)}</h2>{_table(table)}{caption}"


def _table(table: Table) -> str:
    rows = ""
    for index, row in enumerate(table.rows):
        front = ' class="front"' if index in table.marked else ""
        rows += f"<tr{front}>{''.join(map(_cell, row))}</tr>\n"
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.head)
    body = f"<thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody>"
    return f'<div class="table"><table class="sortable">{body}</table></div>'


def _cell(cell: Cell) -> str:
    text, value = cell
    return f'<td data-value="{escape(str(value))}">{escape(text)}</td>'
