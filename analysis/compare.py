"""The command line `python -m analysis.compare A B`: two sweeps, or two versions of the code."""

import json
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, filterfalse
from math import nan
from operator import itemgetter, methodcaller
from pathlib import Path

from rich.console import Console
from rich.text import Text

from analysis.data.load import DAMAGED, Run, load_sweep, on_one_clock
from analysis.figures.numbers import points_text
from analysis.report.export import csv_text, json_text, write_files
from analysis.stats.aggregate import MEASURE, Group, group_runs, values_of
from analysis.stats.comparisons import Difference, common_results, compare, corrected
from analysis.stats.intervals import Estimate, Stratum, mean
from efficient_rl.cli import DONE, command_line, parse_settings, print_table
from efficient_rl.errors import ConfigError, did_you_mean
from efficient_rl.rundir.result import RunResult
from efficient_rl.sweep.manifest import read_manifests, sweep_names

USAGE = """usage: python -m analysis.compare A B [output=outputs] [other=OUTPUT] [reports=reports]

Prints B minus A in held-out accuracy for each configuration on common seeds, with 95% intervals and Holm's correction.
A and B are names of sweeps or prefixes of code versions (commits). A version takes its runs from all sweeps, including
results archived by force=true. other=OUTPUT reads B from another output folder. Parameters without a common value are
compared; configurations are matched by all others. Also writes REPORTS/A-against-B.json and .csv.
"""
KEYS = ("output", "other", "reports")
CSV_HEAD = (
    *("configuration", "difference", "low", "high", "p", "holm_p", "seeds"),
    *("seconds_ratio", "memory_ratio"),
)
VERSION_CHARACTERS = 7  # fewer of a commit are no name


@dataclass(frozen=True)
class Change:
    """One configuration in A and in B: B less A in accuracy, and B's costs as multiples of A's."""

    label: str
    difference: Difference
    seconds_ratio: float
    memory_ratio: float


@dataclass(frozen=True)
class Comparison:
    """All matched configurations; `apart` are the parameters that differ throughout, in A and B.

    `clock` is what the seconds are: CPU time, or of the wall clock.
    """

    changes: Sequence[Change]
    overall: Estimate
    apart: Mapping[str, tuple[list[str], list[str]]]
    unmatched: int
    clock: str


@command_line(USAGE, failures=(OSError,))
def main(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit status."""
    names = [argument for argument in arguments if "=" not in argument]
    given = parse_settings(list(filterfalse(names.__contains__, arguments)), KEYS)
    if len(names) != 2:
        remedy = "use python -m analysis.compare A B"
        raise ConfigError(f"{len(names)} names given and two are compared; {remedy}")
    output = given.get("output", "outputs")
    first = named_runs(Path(output), names[0])
    second = named_runs(Path(given.get("other", output)), names[1])
    comparison = compare_runs(first, second)
    paths = write(comparison, names, Path(given.get("reports", "reports")))
    show(comparison, names)
    print(*paths, sep="\n")
    return DONE


def named_runs(outputs: Path, name: str) -> list[Run]:
    """The finished runs of a sweep, or of a version of the code; ConfigError without any."""
    known = sweep_names(outputs)
    if name in known:
        runs = load_sweep(outputs, name).finished
    elif len(name) >= VERSION_CHARACTERS:
        runs = list(_of_version(outputs, name))
    else:
        raise ConfigError(f"unknown sweep {name!r} in {outputs}; {did_you_mean(name, known)}")
    if not runs:
        listed = ", ".join(known)
        raise ConfigError(f"no finished run of {name!r} in {outputs}; sweeps: {listed}")
    return runs


def compare_runs(first: Sequence[Run], second: Sequence[Run]) -> Comparison:
    """Match the configurations and compare them; ConfigError where none has two common seeds."""
    apart = _apart(first, second)
    labels = {group.runs[0].identity(apart): group.label for group in group_runs(second)}
    both, clock = on_one_clock([*first, *second])
    first, second = both[: len(first)], both[len(first) :]
    ours, theirs = _by_identity(first, apart), _by_identity(second, apart)
    pairs = []
    for identity in sorted(ours.keys() & theirs.keys(), key=lambda key: (labels[key], key)):
        old, new = (Group(labels[identity], "", tuple(side[identity])) for side in (ours, theirs))
        difference = compare(new, old)
        if difference is not None:
            pairs.append((difference, *common_results(old, new)))
    if not pairs:
        raise ConfigError(
            f"no configuration is in both ({len(ours)} and {len(theirs)}) on two common seeds; "
            "compare sweeps that share configurations and seeds"
        )
    family = corrected(list(map(itemgetter(0), pairs)))
    changes, strata = [], []
    for each, (_, before, after) in zip(family, pairs, strict=True):
        seconds = _ratio(before, after, "train_seconds")
        memory = _ratio(before, after, "highest_peak_bytes")
        changes.append(Change(each.first, each, seconds, memory))
        strata.append(Stratum(values_of(after, "accuracy") - values_of(before, "accuracy")))
    return Comparison(changes, mean(strata), apart, len(ours.keys() ^ theirs.keys()), clock)


def show(comparison: Comparison, names: Sequence[str]) -> None:
    """Print the table, and what it says."""
    console = Console()
    for key, values in comparison.apart.items():
        both = zip(values, names, strict=True)
        said = (f"{', '.join(own) or 'not there'} in {name}" for own, name in both)
        console.print(Text(f"{key}: {', '.join(said)}"))
    columns, rows = ("accuracy", "p after Holm", "seeds", comparison.clock, "memory"), []
    for change in comparison.changes:
        each = change.difference
        ratios = f"x{change.seconds_ratio:.2f}", f"x{change.memory_ratio:.2f}"
        tested = points_text(each.accuracy), f"{each.holm_p:.3g}", str(each.seeds)
        rows.append((change.label, *tested, *ratios))
    title, titles = f"{names[1]} less {names[0]}", ("configuration", *columns)
    print_table(console, title, titles, rows, columns[:0:-1], "configuration", columns)
    for sentence in sentences(comparison, names):
        console.print(Text(sentence))


def sentences(comparison: Comparison, names: Sequence[str]) -> list[str]:
    """What the numbers say, and what they leave open."""
    total = len(comparison.changes)
    found: dict[str, list[str]] = {"more accurate": [], "less accurate": [], "open": []}
    for change in comparison.changes:
        better = "more accurate" if change.difference.accuracy.value > 0 else "less accurate"
        found[better if change.difference.decided else "open"].append(change.label)
    still_open, said = found.pop("open"), []
    for word, labels in found.items():
        if labels:
            where = f"in {len(labels)} of {total} configurations: {'; '.join(labels)}"
            said.append(f"{names[1]} is {word} {where}.")
    if still_open:
        said.append(f"The data do not decide in {len(still_open)} of {total} configurations.")
    said.append(f"Over all of them: {points_text(comparison.overall)}, an interval over seeds.")
    measured = ", ".join(filter(methodcaller("startswith", MEASURE), comparison.apart))
    if measured:
        differ = "so accuracies may differ for that alone"
        said.append(f"The two were not measured alike, {differ}: {measured}.")
    if comparison.unmatched:
        alone = "configurations are in one of the two only and take no part"
        said.append(f"{comparison.unmatched} {alone}.")
    return said


def write(comparison: Comparison, names: Sequence[str], reports: Path) -> list[Path]:
    """The comparison for other programs, as JSON and CSV."""
    content = {"first": names[0], "second": names[1], **vars(comparison)}
    content["sentences"] = sentences(comparison, names)
    stem = f"{names[0]}-against-{names[1]}"
    rows = csv_text(list(map(_csv_row, comparison.changes)))
    return write_files(reports, {f"{stem}.json": json_text(content), f"{stem}.csv": rows})


def _of_version(outputs: Path, version: str) -> Iterator[Run]:
    """Runs of all sweeps whose result that code made, among them results that were set aside."""
    listed = chain.from_iterable(manifest.runs for manifest in read_manifests(outputs))
    for key, params in {run.hash: run.params for run in listed}.items():
        folder = outputs / "runs" / key
        earlier = sorted(folder.glob("earlier/*/result.json"), reverse=True)
        for path in (folder / "result.json", *earlier):
            result = _read(path)
            if result and result.config_hash == key and result.code_version.startswith(version):
                yield Run(key, params, result)
                break


def _read(path: Path) -> RunResult | None:
    try:
        return RunResult(**json.loads(path.read_text()))
    except DAMAGED:
        return None


def _apart(first: Sequence[Run], second: Sequence[Run]) -> dict[str, tuple[list[str], list[str]]]:
    """The parameters that have no value in common among the runs that have them."""
    old, new = _values(first), _values(second)
    found = {}
    for key in sorted((old.keys() | new.keys()) - {"seed"}):
        if not old[key] & new[key]:
            found[key] = (sorted(old[key]), sorted(new[key]))
    return found


def _values(runs: Sequence[Run]) -> dict[str, set[str]]:
    """Every parameter's values among the runs, as text."""
    values = defaultdict(set)
    for run in runs:
        for key, value in run.params.items():
            values[key].add(repr(value))
    return values


def _by_identity(runs: Sequence[Run], apart: Collection[str]) -> dict[str, list[Run]]:
    members = defaultdict(list)
    for run in runs:
        members[run.identity(apart)].append(run)
    return members


def _ratio(old: Sequence[RunResult], new: Sequence[RunResult], name: str) -> float:
    """Mean cost, new by old; nan where the old one is nothing."""
    before, after = values_of(old, name).mean(), values_of(new, name).mean()
    return float(after / before) if before else nan


def _csv_row(change: Change) -> dict[str, object]:
    each = change.difference
    values = each.accuracy.value, each.accuracy.low, each.accuracy.high, each.p, each.holm_p, each.seeds
    ratios = change.seconds_ratio, change.memory_ratio
    return dict(zip(CSV_HEAD, (change.label, *values, *ratios), strict=True))


if __name__ == "__main__":
    sys.exit(main())
