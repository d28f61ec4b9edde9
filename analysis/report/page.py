"""Writes the report as one HTML file that needs no other: its figures are drawn by the script inside it."""

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files

from analysis.figures.accuracy import in_points, named_labels
from analysis.figures.data import Figure
from analysis.figures.style import Style, styles
from analysis.report.export import HEADER, date_text, finite, reproduction, table_row
from analysis.report.results import Answer
from analysis.report.sentences import code_versions, findings, points_text

MOST_PAIRS = 100
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"  # nothing from elsewhere


def to_html(answer: Answer) -> str:
    """The page; it is light or dark as the reader's system is."""
    sweep = answer.sweep
    paretos = [figure for figure in answer.figures if figure.name.startswith("pareto")]
    others = [figure for figure in answer.figures if figure not in paretos]
    body = f"""<h1>{html.escape(sweep.name)}</h1>
{f'<p class="question">{html.escape(sweep.question)}</p>' if sweep.question else ""}
<ul>
{"".join(f"<li>{html.escape(sentence)}</li>" for sentence in findings(answer))}
</ul>
{_tabs(paretos)}
{"".join(section(figure, hidden=index > 0) for index, figure in enumerate(paretos))}
{_table(answer)}
{_pairs(answer)}
{_searched(answer)}
{"".join(section(figure) for figure in others)}
<footer>
<p>Sweep of {date_text(answer)}, code version {html.escape(", ".join(code_versions(sweep)))}. To make it again:</p>
<pre><code>{html.escape(chr(10).join(reproduction(answer)))}</code></pre>
</footer>"""
    return document(sweep.name, body, answer.figures, styles(named_labels(answer.summaries)))


def document(title: str, body: str, figures: Sequence[Figure], looks: Mapping[str, Style]) -> str:
    """A whole page with the script that draws the figures into their sections of the body; `looks` by label."""
    code, look = ((files("analysis.report") / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    content = {
        "figures": [asdict(figure) for figure in figures],
        "styles": {name: asdict(each) for name, each in looks.items()},
    }
    data = json.dumps(finite(content), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")  # harmless in HTML
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<meta http-equiv="Content-Security-Policy" content="{POLICY}" />
<title>{html.escape(title)}</title>
<style>
{look}
</style>
</head>
<body>
{body}
<div id="tip" role="status" hidden=""></div>
<noscript><p>The figures need JavaScript; they are beside this file as PNG and PDF.</p></noscript>
<script type="application/json" id="data">{data}</script>
<script>
{code}
</script>
</body>
</html>
"""


def _tabs(figures: Sequence[Figure]) -> str:
    if len(figures) < 2:
        return ""
    buttons = "".join(
        f'<button type="button" data-shows="{figure.name}" aria-pressed="{str(index == 0).lower()}">'
        f"{html.escape(figure.title.removeprefix('Accuracy against '))}</button>"
        for index, figure in enumerate(figures)
    )
    return f'<div class="tabs">{buttons}</div>'


def section(figure: Figure, hidden: bool = False) -> str:
    """Where the script draws the figure."""
    away = ' hidden=""' if hidden else ""
    return (
        f'<section data-figure="{figure.name}"{away}>'
        f'<h2>{html.escape(figure.title)}</h2><div class="body"></div>'
        f'<p class="caption">{html.escape(figure.caption)}</p></section>\n'
    )


def _table(answer: Answer) -> str:
    rows = []
    for summary in answer.summaries:
        mark = ' class="front"' if summary.name in answer.front else ""
        rows.append(f"<tr{mark}>{_cells(table_row(answer, summary))}</tr>\n")
    return _as_table(HEADER, "".join(rows))


def _pairs(answer: Answer) -> str:
    """All pairs, the clearest first; the rest of a long list is in the CSV."""
    if not answer.differences:
        return ""
    ordered = sorted(answer.differences, key=lambda each: (each.p, each.first, each.second))[:MOST_PAIRS]
    rows = ""
    for each in ordered:
        name = f"{each.first} less {each.second}" + (f", {each.setting}" if each.setting else "")
        cells: list[tuple[str, float | str]] = [
            (name, name),
            (points_text(each.accuracy), in_points(each.accuracy).value),
            (f"{each.p:.3g}", each.p),
            (f"{each.holm_p:.3g}", each.holm_p),
            (f"{each.improvement.value:.0%}", each.improvement.value),
            (str(each.seeds), each.seeds),
            ("yes" if each.decided else "no", int(each.decided)),
        ]
        rows += f"<tr>{_cells(cells)}</tr>\n"
    head = ("pair", "difference in accuracy", "p", "p after Holm", "chance to be better in a run", "common seeds", "decided")
    more = (
        f" ({MOST_PAIRS} of {len(answer.differences)}; all are in differences.csv)"
        if len(ordered) < len(answer.differences)
        else ""
    )
    return f"<details><summary>All pairs on common seeds{more}</summary>{_as_table(head, rows)}</details>"


def _searched(answer: Answer) -> str:
    """What the search of the runs found and cost; nothing where there was none."""
    if answer.searched is None or not answer.searched.table.rows:
        return ""
    table = answer.searched.table
    rows = "".join(f"<tr>{_cells(row)}</tr>\n" for row in table.rows)
    caption = f'<p class="caption">{html.escape(table.caption)}</p>'
    return f"<h2>{html.escape(table.title)}</h2>{_as_table(table.head, rows)}{caption}"


def _cells(cells: Iterable[tuple[str, float | str]]) -> str:
    """What is shown of each, and what it is sorted by."""
    return "".join(f'<td data-value="{html.escape(str(value))}">{html.escape(text)}</td>' for text, value in cells)


def _as_table(head: Sequence[str], rows: str) -> str:
    cells = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in head)
    return f'<div class="table"><table class="sortable"><thead><tr>{cells}</tr></thead><tbody>\n{rows}</tbody></table></div>'
