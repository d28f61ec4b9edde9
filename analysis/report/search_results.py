"""Reports what the search behind a sweep found and cost, by arm if arms were tuned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, repeat
from operator import itemgetter
from pathlib import Path
from typing import Any

from analysis.data.load import DAMAGED, SweepData
from analysis.data.search import FILE, read_search
from analysis.figures.data import Figure, metric_words
from analysis.figures.numbers import written
from analysis.figures.search import trial_figures, tuning_figures
from analysis.report.table import Table
from analysis.stats.aggregate import group_runs
from efficient_rl.errors import ConfigError
from efficient_rl.sweep.labels import label_params

MOST_ROWS = 20
TUNING_CAPTION = "What tuning cost each arm, and its best learning rate by {objective} on the validation split."
UNEQUAL = "Trials failed, so the arms were not tuned equally: the command of the sweep tries those again."
Row = Mapping[str, Any]


@dataclass(frozen=True)
class SearchResults:
    """A search in sentences, a table and figures; `content` is all that it wrote."""

    content: Mapping[str, Any]
    sentences: Sequence[str]
    table: Table
    figures: Sequence[Figure]


def search_results(folder: Path, sweep: SweepData, url: str | None = None) -> SearchResults | None:
    """The search in the folder of a sweep, or None; ConfigError where its file is damaged."""
    try:
        content = read_search(folder, url)
        if content is None:
            return None
        return _of_arms(content, sweep) if "arms" in content else _of_trials(content)
    except ConfigError:
        raise
    except DAMAGED as error:
        remedy = "the command of the search rewrites it"
        raise ConfigError(f"damaged: {folder / FILE} ({error!r}); {remedy}") from error


def _of_arms(content: Mapping[str, Any], sweep: SweepData) -> SearchResults:
    arms = content["arms"]
    (objective,) = content["objective"]
    title, unit = metric_words(objective)
    labels: dict[str, str] = {}
    for group in group_runs(sweep.runs):
        labels |= dict.fromkeys((run.hash for run in group.runs), group.label)
    names = [labels.get(arm["test"][0], arm["arm"]) for arm in arms]
    rows = tuple(map(_arm_cells, names, arms, repeat(unit)))
    head = (
        *("arm", "learning rates tried", "best", "its centre", title),
        *("finished", "failed", "training (s)", "tokens"),
    )
    table = Table(head, rows, "Equal tuning", TUNING_CAPTION.format(objective=title))
    figures = tuning_figures(names, arms, objective)
    return SearchResults(content, _tuning_sentences(names, arms), table, figures)


def _arm_cells(name: str, arm: Row, unit: str) -> tuple[tuple[str, float | str], ...]:
    best, spent = arm["best"], arm["spent"]
    edge = " (edge)" if best["at_edge"] else ""
    return (
        (name, name),
        (f"{arm['low']:g} to {arm['high']:g}", arm["low"]),
        (f"{best['learning_rate']:.3g}{edge}", best["learning_rate"]),
        (f"{arm['centre']:.3g}", arm["centre"]),
        (written(best["value"], unit), best["value"]),
        (str(arm["trials"]), arm["trials"]),
        (str(arm["failed"]), arm["failed"]),
        (f"{spent['train_seconds']:,.1f}", spent["train_seconds"]),
        (written(spent["tokens"], "count"), spent["tokens"]),
    )


def _tuning_sentences(names: Sequence[str], arms: Sequence[Row]) -> list[str]:
    counts = sorted(set(map(itemgetter("trials"), arms)))
    each = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    cost = _cost(list(map(itemgetter("spent"), arms)))
    sentences = [
        f"The learning rate of every configuration was chosen among {each} finished trials on the "
        f"validation split; all of them together took {cost}."
    ]
    if len(counts) > 1:
        sentences.append(UNEQUAL)
    edges = list(compress(names, (arm["best"]["at_edge"] for arm in arms)))
    if edges:
        sentences.append(
            f"The best learning rate lies at the edge of what was tried, so a better one may lie beyond: {', '.join(edges)}."
        )
    return sentences


def _of_trials(content: Mapping[str, Any]) -> SearchResults:
    words = list(map(metric_words, content["objectives"]))
    titles, units = zip(*words, strict=True)
    by_number = {trial["number"]: trial for trial in content["trials"]}
    front = sorted(map(by_number.__getitem__, content["front"]), key=itemgetter("values"), reverse=True)
    rows = tuple(_trial_cells(trial, units) for trial in front[:MOST_ROWS])
    caption = f"{len(front)} of {len(by_number)} trials"
    if len(front) > MOST_ROWS:
        caption += f", the first {MOST_ROWS} shown"
    title = "The best trial" if len(words) == 1 else "The front of the search"
    table = Table(("trial", "run", "values", *titles), rows, title, f"{caption}.")
    counts = ", ".join(f"{count} {state}" for state, count in content["counts"].items() if count)
    said = f"The search's trials ({counts or 'none'}) took {_cost([content['spent']])}."
    return SearchResults(content, [said], table, trial_figures(content))


def _trial_cells(trial: Row, units: Sequence[str]) -> tuple[tuple[str, float | str], ...]:
    params = label_params(trial["params"])
    texts = map(written, trial["values"], units)
    return (
        (str(trial["number"]), trial["number"]),
        (trial["hash"][:8], trial["hash"]),
        (params, params),
        *zip(texts, trial["values"], strict=True),
    )


def _cost(spent: Sequence[Mapping[str, float]]) -> str:
    seconds = written(sum(map(itemgetter("train_seconds"), spent)), "seconds")
    tokens = written(sum(map(itemgetter("tokens"), spent)), "count")
    return f"{seconds} of training and {tokens} tokens"
