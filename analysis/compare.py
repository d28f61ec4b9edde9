"""The command line `python -m analysis.compare A B`: what differs between two sweeps, or two versions of the code."""

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.data.load import DAMAGED, ReportError, Result, Run, load_sweep, read_params, result_of, suggest
from analysis.report.export import finite
from analysis.report.sentences import points_text
from analysis.stats.aggregate import MEASURE, group_runs
from analysis.stats.comparisons import Difference, compare, corrected
from analysis.stats.intervals import Estimate, Stratum, mean
from efficient_rl.rundir.result import RunResult
from efficient_rl.sweep.manifest import sweep_names

USAGE = """usage: python -m analysis.compare A B [output=outputs] [other=OUTPUT] [reports=reports]

B less A in held-out accuracy, configuration by configuration on common seeds, with 95% intervals and Holm's correction.
A and B are names of sweeps, or the beginnings of code versions (commits), whose runs are then taken from all sweeps;
results that force=true set aside count too. other=OUTPUT reads B from another output folder. What differs throughout
between A and B is what is compared: configurations are matched by all the rest. Also writes REPORTS/A-against-B.json and
.csv.
"""
VERSION_CHARACTERS = 7  # fewer of a commit are no name


@dataclass(frozen=True)
class Change:
    """One configuration in A and in B: the difference in accuracy, B less A, and B's costs as multiples of A's."""

    label: str
    difference: Difference
    seconds_ratio: float
    memory_ratio: float


@dataclass(frozen=True)
class Comparison:
    """All matched configurations; `apart` are the parameters that differ throughout, with their values in A and in B."""

    changes: Sequence[Change]
    overall: Estimate
    apart: Mapping[str, tuple[list[str], list[str]]]
    unmatched: int


def main(arguments: Sequence[str]) -> int:
    """Run the command line; 1 if it cannot be done, with the reason on standard error."""
    if {"--help", "-h"} & set(arguments):
        print(USAGE, end="")
        return 0
    names = [argument for argument in arguments if "=" not in argument]
    settings = {"output": "outputs", "other": "", "reports": "reports"}
    try:
        for key, value in (argument.split("=", 1) for argument in arguments if "=" in argument):
            if key not in settings:
                raise ReportError(f"unknown key {key!r}; {suggest(key, settings)}")
            settings[key] = value
        if len(names) != 2:
            raise ReportError(f"{len(names)} names given and two are compared; use python -m analysis.compare A B")
        output = Path(settings["output"])
        first, second = named_runs(output, names[0]), named_runs(Path(settings["other"] or output), names[1])
        comparison = compare_runs(first, second)
        paths = write(comparison, names, Path(settings["reports"]))
    except (ReportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    show(comparison, names)
    for path in paths:
        print(path)
    return 0


def named_runs(outputs: Path, name: str) -> list[Run]:
    """The finished runs of a sweep, or of a version of the code; ReportError where there are none."""
    known = sweep_names(outputs)
    if name in known:
        runs = list(load_sweep(outputs, name).finished)
    elif len(name) >= VERSION_CHARACTERS:
        runs = _of_version(outputs, name)
    else:
        raise ReportError(f"unknown sweep {name!r} in {outputs}; {suggest(name, known)}")
    if not runs:
        raise ReportError(f"no finished run of {name!r} in {outputs}; sweeps: {', '.join(known)}")
    return runs


def compare_runs(first: Sequence[Run], second: Sequence[Run]) -> Comparison:
    """Match the configurations and compare them; ReportError where none is matched on two common seeds."""
    apart = _apart(first, second)
    ours, theirs = _by_identity(first, apart), _by_identity(second, apart)
    labels = {_identity(group.runs[0], apart): group.label for group in group_runs(second)}
    pairs = []
    for identity in ours.keys() & theirs.keys():
        old, new = _by_seed(ours[identity]), _by_seed(theirs[identity])
        difference = compare((labels[identity], new), (labels[identity], old))
        if difference is not None:
            pairs.append((difference, old, new))
    if not pairs:
        raise ReportError(
            f"no configuration is in both ({len(ours)} and {len(theirs)}) on two common seeds; "
            "compare sweeps that share configurations and seeds"
        )
    pairs.sort(key=lambda pair: pair[0].first)
    family = corrected([difference for difference, _, _ in pairs])
    changes = [
        Change(each.first, each, _ratio(old, new, "train_seconds"), _ratio(old, new, "peak_memory_bytes"))
        for each, (_, old, new) in zip(family, pairs, strict=True)
    ]
    gaps = [[new[seed].accuracy - old[seed].accuracy for seed in old.keys() & new.keys()] for _, old, new in pairs]
    overall = mean([Stratum(np.array(each)) for each in gaps])
    return Comparison(changes, overall, apart, len(ours.keys() ^ theirs.keys()))


def show(comparison: Comparison, names: Sequence[str]) -> None:
    """Print the table, and what it says."""
    console = Console()
    for key, (old, new) in comparison.apart.items():
        both = [f"{', '.join(values) or 'not there'} in {name}" for name, values in zip(names, (old, new), strict=True)]
        console.print(Text(f"{key}: {', '.join(both)}"))
    table = Table(title=Text(f"{names[1]} less {names[0]}"))
    for column in ("configuration", "accuracy", "p after Holm", "seeds", "time", "memory"):
        table.add_column(column, no_wrap=True, justify="left" if column == "configuration" else "right")
    for change in comparison.changes:
        each = change.difference
        ratios = [f"x{change.seconds_ratio:.2f}", f"x{change.memory_ratio:.2f}"]
        table.add_row(Text(change.label), Text(points_text(each.accuracy)), f"{each.holm_p:.3g}", str(each.seeds), *ratios)
    console.print(table)
    for sentence in sentences(comparison, names):
        console.print(Text(sentence))


def sentences(comparison: Comparison, names: Sequence[str]) -> list[str]:
    """What the numbers say, and what they leave open."""
    decided = [change for change in comparison.changes if change.difference.decided]
    better = [change.label for change in decided if change.difference.accuracy.value > 0]
    worse = [change.label for change in decided if change.difference.accuracy.value < 0]
    open_ = len(comparison.changes) - len(decided)
    found = [
        f"{names[1]} is {word} in {len(labels)} of {len(comparison.changes)} configurations: {'; '.join(labels)}."
        for word, labels in (("more accurate", better), ("less accurate", worse))
        if labels
    ]
    if open_:
        found.append(f"The data do not decide in {open_} of {len(comparison.changes)} configurations.")
    found.append(f"Over all of them: {points_text(comparison.overall)}, an interval over seeds.")
    measured = [key for key in comparison.apart if key.startswith(MEASURE)]
    if measured:
        found.append(f"The two were not measured alike, so accuracies may differ for that alone: {', '.join(measured)}.")
    if comparison.unmatched:
        found.append(f"{comparison.unmatched} configurations are in one of the two only and take no part.")
    return found


def write(comparison: Comparison, names: Sequence[str], reports: Path) -> list[Path]:
    """The comparison for other programs, as JSON and CSV."""
    reports.mkdir(parents=True, exist_ok=True)
    stem = f"{names[0]}-against-{names[1]}"
    content = {"first": names[0], "second": names[1], **asdict(comparison), "sentences": sentences(comparison, names)}
    stream = io.StringIO()
    head = ["configuration", "difference", "low", "high", "p", "holm_p", "seeds", "seconds_ratio", "memory_ratio"]
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(head)
    for change in comparison.changes:
        d = change.difference
        numbers = [d.accuracy.value, d.accuracy.low, d.accuracy.high, d.p, d.holm_p, d.seeds]
        writer.writerow([change.label, *numbers, change.seconds_ratio, change.memory_ratio])
    paths = [reports / f"{stem}.json", reports / f"{stem}.csv"]
    paths[0].write_text(json.dumps(finite(content), indent=1, allow_nan=False) + "\n")
    paths[1].write_text(stream.getvalue())
    return paths


def _of_version(outputs: Path, version: str) -> list[Run]:
    """Runs of all sweeps whose result that code made, among them results that were set aside."""
    found = []
    for key, params in read_params(outputs).items():
        folder = outputs / "runs" / key
        for path in [folder / "result.json", *sorted(folder.glob("earlier/*/result.json"), reverse=True)]:
            result = _read(path)
            if result is not None and result.config_hash == key and result.code_version.startswith(version):
                found.append(Run(key, params, result_of(result)))
                break
    return found


def _read(path: Path) -> RunResult | None:
    try:
        return RunResult(**json.loads(path.read_text()))
    except DAMAGED:
        return None


def _apart(first: Sequence[Run], second: Sequence[Run]) -> dict[str, tuple[list[str], list[str]]]:
    """The parameters that have no value in common among the runs that have them."""
    keys = {key for run in [*first, *second] for key in run.params} - {"seed"}
    found = {}
    for key in sorted(keys):
        old, new = ({repr(run.params[key]) for run in runs if key in run.params} for runs in (first, second))
        if not old & new:
            found[key] = (sorted(old), sorted(new))
    return found


def _identity(run: Run, apart: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in run.params.items() if key != "seed" and key not in apart}
    return json.dumps(kept, sort_keys=True, default=str)


def _by_identity(runs: Sequence[Run], apart: Mapping[str, Any]) -> dict[str, list[Run]]:
    members: dict[str, list[Run]] = {}
    for run in runs:
        members.setdefault(_identity(run, apart), []).append(run)
    return members


def _by_seed(runs: Sequence[Run]) -> dict[str, Result]:
    return {str(run.params.get("seed")): run.result for run in runs if run.result is not None}


def _ratio(old: Mapping[str, Result], new: Mapping[str, Result], name: str) -> float:
    """Mean cost on the common seeds, new by old; nan where the old one is nothing."""
    seeds = old.keys() & new.keys()
    before, after = (float(np.mean([getattr(side[seed], name) for seed in seeds])) for side in (old, new))
    return after / before if before else float("nan")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
