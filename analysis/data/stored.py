"""Reads a sweep from the tracking store, with as much of its runs as was sent."""

import ast
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import nan
from operator import attrgetter
from typing import Any, TypeVar

from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from analysis.data.load import Run, Series, SweepData, is_series, make_series
from efficient_rl.errors import ConfigError, did_you_mean
from efficient_rl.rundir.result import EVALUATED, RunResult
from efficient_rl.rundir.totals import totals
from efficient_rl.sweep.manifest import EXAMPLE
from efficient_rl.tracking.client import database_path
from efficient_rl.tracking.database import DatabaseStore, Store, StoredRun
from efficient_rl.tracking.server import ServerStore

SQL_SCHEMES, SERVER_SCHEMES = ("sqlite", "postgresql"), ("http", "https")
LITERAL_ERRORS = (ValueError, SyntaxError, RecursionError, MemoryError)
ACTIVE_PARAMS, MEMORY, LEVELS = "params/active", "memory/", "eval/accuracy_difficulty_"
Value = TypeVar("Value")


def load_stored(uri: str, name: str | None) -> SweepData:
    """The sweep `name` of the store, or its newest; ConfigError if it or the store is missing."""
    scheme = uri.partition("://")[0].partition("+")[0]
    if scheme in SERVER_SCHEMES:
        return _load(ServerStore(uri), uri, name)
    if scheme not in SQL_SCHEMES:
        valid = ", ".join(SQL_SCHEMES + SERVER_SCHEMES)
        raise ConfigError(f"{uri} cannot be read; use {valid}, or the run directories")
    database = database_path(uri)
    if database is not None and not database.exists():
        raise ConfigError(f"no database {database}; make one with: {EXAMPLE}")
    try:
        with create_engine(uri).connect() as connection:
            return _load(DatabaseStore(connection), uri, name)
    except SQLAlchemyError as error:
        raise ConfigError(f"{uri} cannot be read: {str(error).splitlines()[0]}") from error


def _load(store: Store, uri: str, name: str | None) -> SweepData:
    found = store.sweeps()
    names = set(map(attrgetter("name"), found))
    if not found:
        raise ConfigError(f"no sweep in {uri}; make one with: {EXAMPLE}")
    if name is not None and name not in names:
        raise ConfigError(f"unknown sweep {name!r}; {did_you_mean(name, names)}")
    wanted = [sweep for sweep in found if name in (None, sweep.name)]
    sweep = max(wanted, key=attrgetter("created", "name"))
    runs = _newest_repetitions(store.runs(sweep))
    finished = [run for run in runs if run.status == "FINISHED"]
    points: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    ids = list(map(attrgetter("run_id"), finished))
    for run_id, key, step, value in store.histories(ids, _wanted_keys(finished)):
        points[run_id][key].append((step, value))
    read = tuple(_run(run, points.pop(run.run_id, {})) for run in runs)
    return SweepData(sweep.name, sweep.created, sweep.command, None, read)


def _newest_repetitions(runs: Iterable[StoredRun]) -> list[StoredRun]:
    """Of the runs that `force` repeated the last one."""
    ordered = sorted(runs, key=attrgetter("key", "repetition"))
    return list({run.key: run for run in ordered}.values())


def _wanted_keys(runs: Sequence[StoredRun]) -> list[str]:
    known: set[str] = set().union(*map(attrgetter("latest_metrics"), runs))
    known.discard("memory/total_peak_bytes")
    wanted = (LEVELS, MEMORY, ACTIVE_PARAMS)
    return sorted(key for key in known if is_series(key) or key.startswith(wanted))


def _run(run: StoredRun, points: Mapping[str, list[tuple[int, float]]]) -> Run:
    params = {key: _value(value) for key, value in run.params.items()}
    if run.status != "FINISHED" or "accuracy" not in run.latest_metrics:
        return Run(run.key, params)
    series = {key: make_series(pairs) for key, pairs in points.items()}
    kept = {key: series[key] for key in filter(is_series, series)}
    return Run(run.key, params, _result(run, params, series), kept)


def _result(run: StoredRun, params: Mapping[str, Any], series: Mapping[str, Series]) -> RunResult:
    """The result put together from its metrics; 0 and nan for what the store was not sent."""
    last, (before, after) = run.latest_metrics, _evaluations(run, series)
    lines = ({key: value} for key, each in series.items() for value in each.values.tolist())
    return RunResult(
        config_hash=run.key,
        model=str(params.get("model.name", "")),
        strategy=str(params.get("strategy.name", "")),
        seed=int(params.get("seed", 0)),
        trainable_params=int(last["params/trainable"]),
        total_params=int(last["params/total"]),
        accuracy=last["accuracy"],
        accuracy_before=last["accuracy_before"],
        evaluation=after,
        evaluation_before=before,
        total_seconds=last.get("time/total_seconds", 0.0),
        steps=int(params.get("grpo.max_steps", 0)),
        code_version=run.tags.get("code_version", "unknown"),
        attempt=0,
        finished_at=0.0,
        **vars(totals(lines)),
    )


def _evaluations(run: StoredRun, series: Mapping[str, Series]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The evaluations before and after training, in the shape of a result."""
    last, levels = run.latest_metrics, _between(series, LEVELS, "")
    before: dict[str, Any] = dict.fromkeys(EVALUATED, nan)
    before["right"] = json.loads(run.tags.get("right_before", "[]"))
    before["by_difficulty"] = {name: float(each.values[0]) for name, each in levels.items()}
    after = before | {name: last[name] for name in EVALUATED & last.keys()}
    after["standard_error"] = last["eval/standard_error"]
    after["problems"] = int(last.get("problems", _value(run.params.get("eval.problems", "0"))))
    after["samples"] = int(last.get("samples", 0))
    after["right"] = json.loads(run.tags.get("right", "[]"))
    after["by_difficulty"] = {name: float(each.values[-1]) for name, each in levels.items()}
    sets = _between(last, "eval/", "/accuracy")
    after["sets"] = {name: {"accuracy": accuracy} for name, accuracy in sets.items()}
    return before, after


def _between(items: Mapping[str, Value], prefix: str, suffix: str) -> dict[str, Value]:
    """What begins and ends so, by the name between."""
    pattern = re.compile(f"{prefix}(.+){suffix}")
    matches = map(pattern.fullmatch, items)
    return {match[1]: items[match[0]] for match in matches if match}


def _value(written: str) -> Any:
    """Restores a parameter that the store holds as text; reads literals, executes nothing."""
    try:
        return ast.literal_eval(written)
    except LITERAL_ERRORS:
        return written
