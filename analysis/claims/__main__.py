"""`python -m analysis.claims`: evaluates published claims under GRPO, on one page."""

import sys
from collections.abc import Iterable, Sequence
from html import escape
from itertools import filterfalse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.claims.evaluate import CheckResult, ClaimResult, changes_of, evaluate
from analysis.claims.figures import changed_figure, criterion, estimate_text, line_labels, margins
from analysis.claims.spec import Claim, read_claims
from analysis.data.load import Run, finished_runs, with_results
from analysis.figures.data import Figure
from analysis.figures.draw import draw_files
from analysis.figures.style import styles
from analysis.report.export import json_text, plain_data, write_files
from analysis.report.page import document, section
from efficient_rl.cli import DONE, command_line, parse_settings
from efficient_rl.config.options import config_folder
from efficient_rl.errors import ConfigError, did_you_mean
from efficient_rl.sweep.request import Request, read_request

if TYPE_CHECKING:
    from analysis.claims.weight_changes import WeightChanges

USAGE = """usage: python -m analysis.claims [claims=NAME,...] [reports=reports] [override ...]

Evaluates the claims of sweeps/claims on the finished runs of their sweeps, and writes REPORTS/claims: claims.html,
claims.md, claims.json and the figures. claims=elsa,lisa: only these. Overrides are those of the sweeps:
model=qwen2.5_0.5b evaluates the runs of that model. The runs: make claims, or
python -m efficient_rl.sweep sweep=claims/NAME for each.
"""
KEYS = ("claims", "reports")
TITLE = "Published claims under GRPO"
HOW = (
    "Every claim has a criterion that was written down before its runs. It holds where the whole 95% interval of every "
    "number lies within its bounds, does not hold where one lies outside, and is undecided otherwise, or with fewer than 5 "
    "seeds. Differences and ratios are of pairs with the same seed, and for accuracies on the same problems, over both."
)
SETTING = "Verdicts are about this model and this task at these settings. They are no verdicts on the publications."
HEAD = ("claim", "criterion", "measured [95% interval]", "seeds", "verdict")
PAGE = """<h1>{title}</h1>
<p>{how}</p>
<p>{setting}</p>
<div class="table"><table class="claims"><thead><tr>{head}</tr></thead>
{rows}</table></div>
<ul>{missing}</ul>
{sections}
<footer><p>Code version {versions}. To make it again: <code>make claims</code></p></footer>"""


@command_line(USAGE, failures=(OSError,))
def main(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit status."""
    own = [argument for argument in arguments if argument.partition("=")[0] in KEYS]
    given = parse_settings(own, KEYS)
    overrides = list(filterfalse(own.__contains__, arguments))
    found = evaluate_all(_chosen(given.get("claims")), overrides)
    print(*write_page(found, Path(given.get("reports", "reports")) / "claims"), sep="\n")
    return DONE


def evaluate_all(claims: Iterable[Claim], overrides: Sequence[str]) -> "list[tuple[ClaimResult, list[WeightChanges]]]":
    """Every claim by the finished runs of its sweep, with their changed weights where it asks."""
    found = []
    for claim in claims:
        request = read_request([f"sweep=claims/{claim.name}", *overrides], multirun=True)
        runs, bases = _runs(request), {}
        for run in request.runs:
            if run.model.folder is not None:
                bases[run.config_hash] = run.model.folder
        changes = changes_of(request.outputs, bases)
        counted = finished_runs(runs) if claim.needs_weights else []
        result = evaluate(claim, runs, changes)
        found.append((result, [changes(run.hash) for run in counted]))
    return found


def write_page(found: "Sequence[tuple[ClaimResult, list[WeightChanges]]]", folder: Path) -> list[Path]:
    """Write all files, each whole or not at all, and return their paths."""
    results, changes = zip(*found, strict=True)
    figures = [*margins(results), *map(changed_figure, filter(None, changes))]
    contents: dict[str, str | bytes] = {
        "claims.html": _html(results, figures),
        "claims.md": to_markdown(results),
        "claims.json": json_text(as_data(results)),
    }
    images = draw_files(figures, styles(line_labels(figures)))
    return write_files(folder, contents | images)


def to_markdown(results: Sequence[ClaimResult]) -> str:
    """The page as one table, with a row for each check."""
    lines = [f"# {TITLE}", "", HOW, SETTING, "", _row(HEAD), _row(["---"] * len(HEAD))]
    for each in results:
        claim, verdict = each.claim, f"**{each.verdict}**"
        what = f"**{claim.question}** {claim.said} ({claim.source})"
        for check in each.checks:
            lines.append(_row([what, *_cells(check), verdict]))
            what = verdict = ""
    missing = (f"- {line}" for line in _missing(results))
    return "\n".join([*lines, "", *missing, ""])


def as_data(results: Iterable[ClaimResult]) -> list[dict[str, Any]]:
    """Everything for programs, in JSON's own types."""
    data: list[dict[str, Any]] = plain_data(list(map(_claim_data, results)))
    return data


def _claim_data(result: ClaimResult) -> dict[str, Any]:
    said = {key: getattr(result.claim, key) for key in ("name", "question", "source", "said")}
    found = {key: getattr(result, key) for key in ("verdict", "seeds", "finished", "runs", "code_versions")}
    return said | found | {"checks": list(map(_check_data, result.checks))}


def _check_data(result: CheckResult) -> dict[str, Any]:
    said = {"criterion": criterion(result.check), "measured": estimate_text(result)}
    return {**vars(result), **said}


def _html(results: Sequence[ClaimResult], figures: Sequence[Figure]) -> str:
    versions = sorted(set().union(*(each.code_versions for each in results)))
    body = PAGE.format(
        title=TITLE,
        how=HOW,
        setting=SETTING,
        head="".join(f'<th scope="col">{name}</th>' for name in HEAD),
        rows="".join(map(_html_row, results)),
        missing="".join(f"<li>{escape(line)}</li>" for line in _missing(results)),
        sections="".join(map(section, figures)),
        versions=escape(", ".join(versions)),
    )
    return document(TITLE, body, figures, styles(line_labels(figures)))


def _html_row(result: ClaimResult) -> str:
    """A row for each check, beside one cell for the claim and one for the verdict."""
    claim, verdict = result.claim, result.verdict
    question, said, source = map(escape, (claim.question, claim.said, claim.source))
    span = f'<td rowspan="{len(result.checks)}">'
    before = f"{span}<b>{question}</b><br />{said}<br /><i>{source}</i></td>"
    after = f'{span}<b class="{verdict.replace(" ", "-")}">{verdict}</b></td>'
    rows = ""
    for check in result.checks:
        own = "".join(f"<td>{escape(cell)}</td>" for cell in _cells(check))
        rows += f"<tr>{before}{own}{after}</tr>\n"
        before = after = ""
    return f"<tbody>{rows}</tbody>\n"


def _cells(result: CheckResult) -> tuple[str, str, str]:
    return criterion(result.check), estimate_text(result), str(result.seeds)


def _missing(results: Iterable[ClaimResult]) -> list[str]:
    missing = []
    for each in results:
        if each.finished < each.runs:
            progress = f"{each.finished} of {each.runs} runs are finished"
            command = f"python -m efficient_rl.sweep sweep=claims/{each.claim.name}"
            missing.append(f"{each.claim.name}: {progress}; {command}")
    return missing


def _chosen(names: str | None) -> list[Claim]:
    """The claims of these names, by default all."""
    claims = {claim.name: claim for claim in read_claims(config_folder("sweeps") / "claims")}
    chosen = names.split(",") if names else list(claims)
    for name in chosen:
        if name not in claims:
            raise ConfigError(f"unknown claim {name!r}; {did_you_mean(name, claims)}")
    return list(map(claims.__getitem__, chosen))


def _runs(request: Request) -> list[Run]:
    distinct = {run.config_hash: Run(run.config_hash, run.flat()) for run in request.runs}
    return list(with_results(distinct.values(), request.outputs))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
