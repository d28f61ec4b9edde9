"""Summarizes a search: best run or front, and its cost, as a table and `search.json`."""

import json
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from efficient_rl.cli import print_table
from efficient_rl.files import write_atomic
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.search.trials import HASH, INFEASIBLE, REPEAT
from efficient_rl.sweep.labels import label_params

SHOWN = 20
FEWEST_TRIALS = 4  # to say which parameters mattered


def spent(folders: Sequence[Path]) -> dict[str, float]:
    """What runs cost, finished or not: seconds of training and tokens, from what they logged."""
    seconds = tokens = 0.0
    for folder in folders:
        most = 0.0
        for row in RunDirectory(folder).metrics():
            seconds += row["metrics"].get("time/step_seconds", 0.0)
            most = max(most, row["metrics"].get("train/tokens", 0.0))
        tokens += most
    return {"train_seconds": seconds, "tokens": tokens}


def summarize(study: optuna.Study, runs: Path) -> dict[str, Any]:
    """The trials with states, values and runs, the front (or the best), and the total cost."""
    rows, folders = [], set()
    counts = dict.fromkeys([state.name.lower() for state in TrialState], 0) | {"repeats": 0, "unfit": 0}
    for trial in study.get_trials(deepcopy=False):
        counts["unfit"] += INFEASIBLE in trial.user_attrs
        if HASH in trial.user_attrs:
            rows.append(row := _row(trial))
            folders.add(runs / row["hash"])
            counts[row["state"] if row["repeat_of"] is None else "repeats"] += 1
    directions = [direction.name.lower() for direction in study.directions]
    return {
        "objectives": dict(zip(study.metric_names or [], directions, strict=True)),
        "trials": rows,
        "counts": counts,
        "front": sorted(map(attrgetter("number"), front(study))),
        "spent": spent(sorted(folders)),
    }


def front(study: optuna.Study) -> list[FrozenTrial]:
    """The feasible trials that no other dominates; the best one with a single objective."""
    return [trial for trial in study.best_trials if REPEAT not in trial.user_attrs]


def importances(study: optuna.Study) -> dict[str, dict[str, float]]:
    """For each objective the share of its variance that each parameter explains, the largest first.

    By fANOVA (Hutter et al. 2014), over parameters common to all trials, for objectives that vary.
    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    trials = [trial for trial in done if REPEAT not in trial.user_attrs]
    if len(trials) < FEWEST_TRIALS:
        return {}
    varied = []
    for name in sorted(set(trials[0].params).intersection(*map(attrgetter("params"), trials))):
        if len({str(trial.params[name]) for trial in trials}) > 1:
            varied.append(name)
    found = {}
    for index, name in enumerate(study.metric_names or []):
        if varied and len({trial.values[index] for trial in trials}) > 1:
            forest = FanovaImportanceEvaluator(seed=0)
            target = partial(_value, index)
            with suppress(RuntimeError):  # the values differ by rounding only: no variance to explain
                found[name] = get_param_importances(study, evaluator=forest, params=varied, target=target)
    return found


def _value(index: int, trial: FrozenTrial) -> float:
    return float(trial.values[index])


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write `search.json`."""
    write_atomic(folder / "search.json", json.dumps(summary, indent=1))


def show_summary(study: optuna.Study, summary: dict[str, Any], console: Console) -> None:
    """The front as a table, and one line on the trials."""
    names = list(study.metric_names or [])
    found = sorted(front(study), key=attrgetter("values"), reverse=True)
    if found:
        title = "best" if len(names) == 1 else f"front of {len(found)} runs"
        rows = []
        for trial in found[:SHOWN]:
            what = trial.user_attrs[HASH][:8], label_params(trial.params)
            rows.append((str(trial.number), *what, *map(_text, trial.values)))
        drop, right = ("run", "trial", *names[:0:-1]), ("trial", *names)
        print_table(console, title, ("trial", "run", "what", *names), rows, drop, "what", right)
    counts = ", ".join(f"{count} {state}" for state, count in summary["counts"].items() if count)
    console.print(f"trials: {counts or 'none'}", highlight=False, soft_wrap=True)


def _text(value: float) -> str:
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _row(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "hash": trial.user_attrs[HASH],
        "repeat_of": trial.user_attrs.get(REPEAT),
        "params": trial.params,
        "values": trial.values if trial.state == TrialState.COMPLETE else None,
        "constraints": trial.constraints,
    }
