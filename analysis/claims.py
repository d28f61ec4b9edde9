"""The command line `python -m analysis.claims`: what published claims come to under GRPO, on one page."""

import html
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.claim_files import Check, Claim, read_claims
from analysis.figure_data import Data, Figure, Intervals, Line, Lines
from analysis.findings import points_text
from analysis.load import ReportError, Run, suggest, with_result
from analysis.looks import styles, written
from analysis.page import document, section
from analysis.plots import draw_figure
from analysis.report import image, write_whole
from analysis.statistics import Estimate, means_of_columns
from analysis.tables import finite
from analysis.verdicts import Judged, Measured, WeightChanges, changes_of, judge
from efficient_rl.compose import ConfigError, config_folder
from efficient_rl.sweep import Request, read_request

if TYPE_CHECKING:
    from analysis.changes import Changes

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
    figures = [*margins(judged), *(_changed_figure(each) for _, each in found if each)]
    contents = {
        "claims.html": _html(judged, figures).encode(),
        "claims.md": to_markdown(judged).encode(),
        "claims.json": json.dumps(finite(as_data(judged)), indent=1, allow_nan=False).encode(),
    }
    for figure in figures:
        canvas = draw_figure(figure, styles(_labels(figure)))
        contents |= {f"{figure.name}.{kind}": image(canvas, kind) for kind in ("png", "pdf")}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_whole(folder / name, content)
    return [folder / name for name in contents]


def criterion(check: Check) -> str:
    """`accuracy: last quarter / full at least 0.9`."""
    operator = {"ratio": " / ", "difference": " - ", "value": ""}[check.kind]
    what = check.first + (operator + check.second if check.second is not None else "")
    bounds = [("at least", check.at_least), ("above", check.above), ("at most", check.at_most)]
    said = " and ".join(f"{word} {_text(check, bound)}" for word, bound in bounds if bound is not None)
    return f"{check.measure}: {what} {said}"


def measured_text(measured: Measured) -> str:
    """`0.94 [0.91, 0.97]`, `+1.2 points [-0.3, +2.7]` where it is a difference of accuracies."""
    estimate, check = measured.estimate, measured.check
    if estimate is None:
        return "not run"
    if check.kind == "difference" and _is_share(check):
        text = points_text(estimate)
    elif estimate.low is None or estimate.high is None:
        text = _text(check, estimate.value)
    else:
        text = f"{_text(check, estimate.value)} [{_text(check, estimate.low)}, {_text(check, estimate.high)}]"
    return f"{text} ({measured.note})" if measured.note else text


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


def margins(judged: Sequence[Judged]) -> list[Figure]:
    """How far every measured number is from its bound; right of the line it bears the claim out."""
    panels: dict[str, Data] = {}
    ratios = [
        row
        for each in judged
        for measured in each.measured
        if measured.check.kind == "ratio"
        for row in _rows(each, measured)
    ]
    others = [
        row
        for each in judged
        for measured in each.measured
        if measured.check.kind != "ratio"
        for row in _rows(each, measured)
    ]
    for name, unit, rows in (
        ("Ratios, in percent of the bound", "share", ratios),
        ("Accuracies and shares, in points", "points", others),
    ):
        if rows:
            labels, values, decided = zip(*rows, strict=True)
            panels[name] = Intervals("distance from the bound", unit, labels, values, decided)
    caption = (
        "Every number with its 95% interval against its bound: right of the line is as claimed. Filled where it is decided."
    )
    return [Figure("margins", "How far from what was claimed", caption, panels)] if panels else []


def _rows(judged: Judged, measured: Measured) -> list[tuple[str, Estimate, bool]]:
    check, estimate = measured.check, measured.estimate
    if estimate is None:
        return []
    arms = check.first if check.second is None else f"{check.first}{' / ' if check.kind == 'ratio' else ' - '}{check.second}"
    rows = []
    for bound, sign in zip(check.bounds, (1.0, -1.0), strict=True):
        if bound is not None:
            both = "" if None in check.bounds else ", at least" if sign > 0 else ", at most"
            place = _from(bound, sign, check.kind == "ratio")
            rows.append(
                (
                    f"{judged.claim.name}: {check.measure}, {arms}{both}",
                    _mapped(estimate, place, sign),
                    measured.verdict != "undecided",
                )
            )
    return rows


def _from(bound: float, sign: float, relative: bool) -> Callable[[float], float]:
    return lambda value: sign * (value / bound - 1.0) if relative else sign * 100 * (value - bound)


def _mapped(estimate: Estimate, place: Callable[[float], float], sign: float) -> Estimate:
    if estimate.low is None or estimate.high is None:
        return Estimate(place(estimate.value))
    low, high = (estimate.low, estimate.high) if sign > 0 else (estimate.high, estimate.low)
    return Estimate(place(estimate.value), place(low), place(high))


def _changed_figure(changes: "Sequence[Changes]") -> Figure:
    """Share of changed weights by block, in float32 and in bfloat16; one Changes a seed."""
    lines, names = [], tuple(changes[0].by_part(changes[0].counted))
    for label, pick in (("float32", "counted"), ("bfloat16", "rounded")):
        shares = np.array([list(each.by_part(getattr(each, pick)).values()) for each in changes])
        places = tuple(float(place) for place in range(len(names)))
        if len(changes) > 1:
            centre, low, high = (tuple(map(float, column)) for column in means_of_columns(shares))
            lines.append(Line(label, places, centre, low, high))
        else:
            lines.append(Line(label, places, tuple(map(float, shares[0]))))
    caption = (
        "Share of the weights that are others than before training, after full training. bfloat16: both were rounded to it "
        "before they were compared, which hides small steps."
    )
    return Figure(
        "changed_weights",
        "Which weights changed",
        caption,
        {"": Lines("part of the model", "changed", "share", tuple(lines), names)},
    )


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
    looks = styles(label for figure in figures for label in _labels(figure))
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


def _text(check: Check, value: float) -> str:
    """A bound or a value of the check with its unit."""
    if check.kind == "ratio":
        return f"{value:.3g}"
    if check.kind == "difference" and _is_share(check):
        return f"{100 * value:+g} points" if value else "0"
    return written(value, "seconds" if "seconds" in check.measure else "bytes" if "memory" in check.measure else "share")


def _is_share(check: Check) -> bool:
    return check.measure.startswith(("accuracy", "gain", "changed"))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _labels(figure: Figure) -> list[str]:
    return [line.label for data in figure.panels.values() if isinstance(data, Lines) for line in data.lines]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
