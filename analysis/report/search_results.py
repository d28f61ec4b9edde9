"""Reads what a search said of itself (`search.json`): what it found, and what it cost, arm by arm where arms were tuned."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.data.load import DAMAGED, ReportError, SweepData
from analysis.figures.data import Figure, Line, Lines, metric_words
from analysis.figures.style import written
from analysis.stats.aggregate import group_runs

FILE = "search.json"
MOST_ROWS = 20
Cell = tuple[str, float | str]  # what is shown, and what it is sorted by


@dataclass(frozen=True)
class Table:
    """Rows of cells under a head."""

    title: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Searched:
    """A search in sentences, a table and figures; `content` is all that it wrote."""

    content: Mapping[str, Any]
    sentences: Sequence[str]
    table: Table
    figures: Sequence[Figure]


def read_search(folder: Path, sweep: SweepData) -> Searched | None:
    """What lies in the folder of a sweep; None where that was no search, ReportError where the file is damaged."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return _of_arms(content, sweep) if "arms" in content else _of_trials(content)
    except DAMAGED as error:
        raise ReportError(f"damaged: {path} ({error!r}); the command of the search writes it anew") from error


def _of_arms(content: Mapping[str, Any], sweep: SweepData) -> Searched:
    arms = content["arms"]
    ((objective, _),) = content["objective"].items()
    title, unit = metric_words(objective)
    labels = {run.hash: group.label for group in group_runs(sweep.runs) for run in group.runs}
    names = [labels.get(arm["test"][0], arm["arm"]) for arm in arms]
    rows = tuple(_arm_cells(name, arm, unit) for name, arm in zip(names, arms, strict=True))
    head = ("arm", "learning rates tried", "best", "its centre", title, "finished", "failed", "training (s)", "tokens")
    caption = f"What tuning cost each arm, and its best learning rate by {title} on the validation split."
    return Searched(
        content, _of_tuning(names, arms), Table("Equal tuning", caption, head, rows), _curves(names, arms, title, unit)
    )


def _arm_cells(name: str, arm: Mapping[str, Any], unit: str) -> tuple[Cell, ...]:
    best, spent = arm["best"], arm["spent"]
    return (
        (name, name),
        (f"{arm['low']:g} to {arm['high']:g}", arm["low"]),
        (f"{best['learning_rate']:.3g}" + (" (edge)" if best["at_edge"] else ""), best["learning_rate"]),
        (f"{arm['centre']:.3g}", arm["centre"]),
        (written(best["value"], unit), best["value"]),
        (str(arm["trials"]), arm["trials"]),
        (str(arm["failed"]), arm["failed"]),
        (f"{spent['train_seconds']:,.1f}", spent["train_seconds"]),
        (written(spent["tokens"], "count"), spent["tokens"]),
    )


def _of_tuning(names: Sequence[str], arms: Sequence[Mapping[str, Any]]) -> list[str]:
    counts = sorted({arm["trials"] for arm in arms})
    each = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    found = [
        f"The learning rate of every configuration was chosen among {each} finished trials on the validation split; all of "
        f"them together took {_cost([arm['spent'] for arm in arms])}."
    ]
    if len(counts) > 1:
        found.append("Trials failed, so the arms were not tuned equally: the command of the sweep tries those again.")
    if edges := [name for name, arm in zip(names, arms, strict=True) if arm["best"]["at_edge"]]:
        found.append(
            f"The best learning rate lies at the edge of what was tried, so a better one may lie beyond: {', '.join(edges)}."
        )
    return found


def _curves(names: Sequence[str], arms: Sequence[Mapping[str, Any]], title: str, unit: str) -> list[Figure]:
    """What every arm reached, by multiples of its own centre; nothing where the arms did not try the same multiples."""
    tried = [
        {float(f"{trial['learning_rate'] / arm['centre']:.2g}"): float(trial["value"]) for trial in arm["tried"]}
        for arm in arms
    ]
    multiples = sorted({multiple for each in tried for multiple in each})
    most = max(arm["trials"] + arm["failed"] for arm in arms)
    if len(multiples) < 2 or len(multiples) > most:
        return []
    lines = tuple(
        Line(name, tuple(float(multiples.index(key)) for key in sorted(each)), tuple(each[key] for key in sorted(each)))
        for name, each in zip(names, tried, strict=True)
    )
    caption = "One run of each learning rate on the validation split; the highest of each was tested."
    ticks = tuple(f"{multiple:g}" for multiple in multiples)
    panel = Lines("learning rate, in multiples of each configuration's centre", title, unit, lines, ticks)
    return [Figure("tuning", "Tuning of the learning rate", caption, {"": panel})]


def _of_trials(content: Mapping[str, Any]) -> Searched:
    objectives = list(content["objectives"])
    by_number = {trial["number"]: trial for trial in content["trials"]}
    front = sorted((by_number[number] for number in content["front"]), key=lambda trial: trial["values"], reverse=True)
    words = [metric_words(name) for name in objectives]
    rows = tuple(
        (
            (str(trial["number"]), trial["number"]),
            (trial["hash"][:8], trial["hash"]),
            (_params_text(trial["params"]), _params_text(trial["params"])),
            *((written(value, unit), value) for value, (_, unit) in zip(trial["values"], words, strict=True)),
        )
        for trial in front[:MOST_ROWS]
    )
    title = "The best trial" if len(objectives) == 1 else "The front of the search"
    caption = f"{len(front)} of {len(by_number)} trials" + (
        f", the first {MOST_ROWS} shown." if len(front) > MOST_ROWS else "."
    )
    head = ("trial", "run", "values", *(name for name, _ in words))
    counts = ", ".join(f"{count} {state}" for state, count in content["counts"].items() if count)
    said = f"The search's trials ({counts or 'none'}) took {_cost([content['spent']])}."
    return Searched(content, [said], Table(title, caption, head, rows), [])


def _params_text(params: Mapping[str, Any]) -> str:
    shown = {key: f"{value:.3g}" if isinstance(value, float) else str(value) for key, value in params.items()}
    return " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in shown.items()) or "the only point"


def _cost(spent: Sequence[Mapping[str, float]]) -> str:
    seconds, tokens = (sum(each[key] for each in spent) for key in ("train_seconds", "tokens"))
    return f"{written(seconds, 'seconds')} of training and {written(tokens, 'count')} tokens"
