"""The command line `python -m analysis.claims`: what published claims come to under GRPO, on one page."""

import html
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.claims.evaluate import Judged, WeightChanges, changes_of, judge
from analysis.claims.figures import changed_figure, criterion, line_labels, margins, measured_text
from analysis.claims.spec import Claim, read_claims
from analysis.data.load import ReportError, Run, suggest, with_result
from analysis.figures.data import Figure
from analysis.figures.draw import draw_figure
from analysis.figures.style import styles
from analysis.report.__main__ import image, write_whole
from analysis.report.export import finite
from analysis.report.page import document, section
from efficient_rl.config.options import config_folder
from efficient_rl.errors import ConfigError
from efficient_rl.sweep.request import Request, read_request

if TYPE_CHECKING:
    from analysis.claims.weight_changes import Changes

USAGE = """usage: python -m analysis.claims [claims=NAME,...] [reports=reports] [override ...]

Judges the claims of sweeps/claims by the finished runs of their sweeps, and writes REPORTS/claims: claims.html, claims.md,
claims.json and the figures. claims=elsa,lisa: only these. Overrides are those of the sweeps: model=qwen2.5_0.5b judges
the runs of that model. The runs: make claims, or python -m efficient_rl.sweep sweep=claims/NAME for each.
"""
HOW = (
    "Every claim has a criterion that was written down before its runs. It holds where the whole 95% interval of every "
    "number lies within its bounds, does not hold where one lies outside, and is undecided otherwise, or with fewer than 5 "
    "seeds. Differences and ratios are of pairs with the same seed, and for accuracies on the same problems, over both."
)
SETTING = "Verdicts are about this model and this task at these settings. They are no verdicts on the publications."
HEAD = ("claim", "criterion", "measured [95% interval]", "seeds", "verdict")


def main(arguments: Sequence[str]) -> int:
    """Run the command line; 1 if it cannot be done, with the reason on standard error."""
    if {"--help", "-h"} & set(arguments):
        print(USAGE, end="")
        return 0
    try:
        values = dict(argument.split("=", 1) for argument in arguments if argument.startswith(("reports=", "claims=")))
        overrides = [argument for argument in arguments if not argument.startswith(("reports=", "claims="))]
        found = judge_all(_chosen(values.get("claims")), overrides)
        for path in write_page(found, Path(values.get("reports", "reports")) / "claims"):
            print(path)
    except (ReportError, ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def judge_all(claims: Sequence[Claim], overrides: Sequence[str]) -> "list[tuple[Judged, list[Changes]]]":
    """Every claim by the finished runs of its sweep, with the changed weights of its runs where a check asks for them."""
    found = []
    for claim in claims:
        request = read_request([f"sweep=claims/{claim.name}", *overrides], multirun=True)
        runs = _runs(request)
        bases = {run.config_hash: run.model.folder for run in request.runs if run.model.folder is not None}
        changes = changes_of(request.outputs, bases)
        judged = judge(claim, runs, changes)
        found.append((judged, _changes(claim, runs, changes)))
    return found


def write_page(found: "Sequence[tuple[Judged, list[Changes]]]", folder: Path) -> list[Path]:
    """Write all files, each whole or not at all, and return their paths."""
    judged = [each for each, _ in found]
    figures = [*margins(judged), *(changed_figure(each) for _, each in found if each)]
    contents = {
        "claims.html": _html(judged, figures).encode(),
        "claims.md": to_markdown(judged).encode(),
        "claims.json": json.dumps(finite(as_data(judged)), indent=1, allow_nan=False).encode(),
    }
    for figure in figures:
        canvas = draw_figure(figure, styles(line_labels(figure)))
        contents |= {f"{figure.name}.{kind}": image(canvas, kind) for kind in ("png", "pdf")}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_whole(folder / name, content)
    return [folder / name for name in contents]


def to_markdown(judged: Sequence[Judged]) -> str:
    """The page as one table, with a row for each check."""
    lines = ["# Published claims under GRPO", "", HOW, SETTING, "", _row(HEAD), _row(["---"] * len(HEAD))]
    for each in judged:
        what, verdict = f"**{each.claim.question}** {each.claim.said} ({each.claim.source})", f"**{each.verdict}**"
        for measured in each.measured:
            lines.append(_row([what, criterion(measured.check), measured_text(measured), str(measured.seeds), verdict]))
            what = verdict = ""
    return "\n".join([*lines, "", *(f"- {line}" for line in _missing(judged)), ""])


def as_data(judged: Sequence[Judged]) -> list[dict[str, object]]:
    """Everything for programs."""
    return [
        {
            **{key: getattr(each.claim, key) for key in ("name", "question", "source", "said")},
            "verdict": each.verdict,
            "seeds": each.seeds,
            "finished": each.finished,
            "runs": each.runs,
            "code_versions": each.code_versions,
            "checks": [
                {**asdict(measured), "criterion": criterion(measured.check), "measured": measured_text(measured)}
                for measured in each.measured
            ],
        }
        for each in judged
    ]


def _html(judged: Sequence[Judged], figures: Sequence[Figure]) -> str:
    rows = "".join(_html_row(each) for each in judged)
    head = "".join(f'<th scope="col">{name}</th>' for name in HEAD)
    missing = "".join(f"<li>{html.escape(line)}</li>" for line in _missing(judged))
    versions = sorted({version for each in judged for version in each.code_versions})
    body = f"""<h1>Published claims under GRPO</h1>
<p>{HOW}</p>
<p>{SETTING}</p>
<div class="table"><table class="claims"><thead><tr>{head}</tr></thead>
{rows}</table></div>
<ul>{missing}</ul>
{"".join(section(figure) for figure in figures)}
<footer><p>Code version {html.escape(", ".join(versions))}. To make it again: <code>make claims</code></p></footer>"""
    looks = styles(label for figure in figures for label in line_labels(figure))
    return document("Published claims under GRPO", body, figures, looks)


def _html_row(judged: Judged) -> str:
    """A row for each check, beside one cell for the claim and one for the verdict."""
    claim, rows = judged.claim, []
    span = f' rowspan="{len(judged.measured)}"'
    what = f"<b>{html.escape(claim.question)}</b><br />{html.escape(claim.said)}<br /><i>{html.escape(claim.source)}</i>"
    verdict = f'<b class="{judged.verdict.replace(" ", "-")}">{judged.verdict}</b>'
    for index, measured in enumerate(judged.measured):
        cells = [html.escape(criterion(measured.check)), html.escape(measured_text(measured)), str(measured.seeds)]
        own = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f"<tr><td{span}>{what}</td>{own}<td{span}>{verdict}</td></tr>\n" if index == 0 else f"<tr>{own}</tr>\n")
    return f"<tbody>{''.join(rows)}</tbody>\n"


def _missing(judged: Sequence[Judged]) -> list[str]:
    return [
        f"{each.claim.name}: {each.finished} of {each.runs} runs are finished; "
        f"python -m efficient_rl.sweep sweep=claims/{each.claim.name}"
        for each in judged
        if each.finished < each.runs
    ]


def _chosen(names: str | None) -> list[Claim]:
    claims = {claim.name: claim for claim in read_claims(config_folder("sweeps") / "claims")}
    chosen = list(claims) if names is None else names.split(",")
    if unknown := [name for name in chosen if name not in claims]:
        raise ReportError(f"unknown claim {unknown[0]!r}; {suggest(unknown[0], claims)}")
    return [claims[name] for name in chosen]


def _runs(request: Request) -> list[Run]:
    distinct: Mapping[str, Run] = {run.config_hash: Run(run.config_hash, run.flat()) for run in request.runs}
    return [with_result(run, request.outputs / "runs" / run.hash) for run in distinct.values()]


def _changes(claim: Claim, runs: Sequence[Run], changes: WeightChanges) -> "list[Changes]":
    asked = any(check.measure.startswith("changed") for check in claim.checks)
    return [changes(run.hash) for run in runs if run.result is not None] if asked else []


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
