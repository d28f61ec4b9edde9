"""One sweep in MLflow: an experiment with one parent run, under which the sweep's runs nest."""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efficient_rl.metrics import METRICS
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.result import RunResult
from efficient_rl.tracking.client import database_path, open_client

METRICS_A_CALL = 1000
PARAMS_A_CALL = 100
MAX_PARAM_CHARACTERS = 6000
KIND = {"mlflow.experimentKind": "custom_model_development"}  # its page for training, not agents
SENT_AT_THE_END = (  # metrics of a result that one sorts runs by; the others are in the log already
    "accuracy", "accuracy_before", "accuracy_gain", "greedy_accuracy", "problems", "samples",
    "memory/total_peak_bytes", "time/train_seconds", "time/total_seconds",
)  # fmt: skip


@dataclass(frozen=True)
class TrackedRun:
    """One run of the sweep as the store shall show it."""

    folder: Path
    name: str
    params: Mapping[str, Any]


class Experiment:
    """The experiment of a sweep, found or created; raises MLflow's errors if the store is away."""

    def __init__(self, uri: str, sweep: str, command: str) -> None:
        self._client = open_client(uri)
        self._sweep = sweep
        self._known: set[str] = set()  # runs that the store was found to have
        self.id = self._find_or_create(uri)
        self._parent = self._find_run({"sweep_parent": sweep}) or self._new_parent(command)

    def child(self, run: TrackedRun) -> str:
        """The id of the run in the store, created with its parameters where it is missing."""
        return self._find_run(self._identity(run)) or self._new_child(run)

    def has_run(self, run_id: str) -> bool:
        """Whether the store still has the run; queried once."""
        if run_id not in self._known:
            from mlflow.exceptions import MlflowException

            try:
                self._client.get_run(run_id)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return False
            self._known.add(run_id)
        return True

    def reopen(self, run_id: str) -> None:
        """Mark a run as running again."""
        self._client.update_run(run_id, status="RUNNING")

    def log_rows(self, run_id: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Send metric lines; a point that the store already has changes nothing."""
        from mlflow.entities import Metric

        points = []
        for row in rows:
            step, stamp = row["step"], int(row["time"] * 1000)
            points += [Metric(key, value, stamp, step) for key, value in row["metrics"].items()]
        for batch in _batches(points, METRICS_A_CALL):
            self._client.log_batch(run_id, metrics=batch)

    def log_end(self, run_id: str, run: TrackedRun, status: str, code: Path) -> None:
        """Send the final figures, the failure if there was one, and files; end the run.

        `code` is the folder with the code versions of results.
        """
        result, failure = RunDirectory(run.folder).result(), RunDirectory(run.folder).failure()
        files = [run.folder / name for name in ("config.yaml", "result.json", "log.txt")]
        if result is not None:
            self._log_result(run_id, result)
            version = code / result.code_version
            files += [version / "changes.diff", version / "packages.txt"]
        if failure is not None:
            self._client.set_tag(run_id, "failure", failure.error[:MAX_PARAM_CHARACTERS])
        for path in files:
            if path.is_file() and path.stat().st_size:
                self._client.log_artifact(run_id, str(path))
        if completions := _columns(run.folder / "completions.jsonl"):
            self._client.log_table(run_id, data=completions, artifact_file="completions.json")
        self._client.set_terminated(run_id, status)

    def close(self, finished: bool) -> None:
        """End the parent run: as finished, or as killed."""
        self._client.set_terminated(self._parent, "FINISHED" if finished else "KILLED")

    def _find_or_create(self, uri: str) -> str:
        found = self._client.get_experiment_by_name(self._sweep)
        if found is None:
            artifacts = _artifact_folder(uri, self._sweep)
            return str(self._client.create_experiment(self._sweep, artifacts, KIND))
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _find_run(self, tags: Mapping[str, str]) -> str | None:
        condition = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        found = self._client.search_runs([self.id], condition, max_results=1)
        return str(found[0].info.run_id) if found else None

    def _new_parent(self, command: str) -> str:
        tags = {"sweep_parent": self._sweep, "command": command}
        return self._new_run(self._sweep, tags | {"mlflow.note.content": f"`{command}`"})

    def _new_run(self, name: str, tags: Mapping[str, str]) -> str:
        return str(self._client.create_run(self.id, run_name=name, tags=tags).info.run_id)

    def _new_child(self, run: TrackedRun) -> str:
        from mlflow.entities import Param

        shown = {"strategy": str(run.params.get("strategy.name", "")), "sweep": self._sweep}
        run_id = self._new_run(run.name, self._identity(run) | shown)
        texts = ((key, str(value)[:MAX_PARAM_CHARACTERS]) for key, value in run.params.items())
        params = list(itertools.starmap(Param, texts))
        for batch in _batches(params, PARAMS_A_CALL):
            self._client.log_batch(run_id, params=batch)
        return run_id

    def _identity(self, run: TrackedRun) -> dict[str, str]:
        """The tags that identify the run; `repetition` counts the results that `force` replaced."""
        earlier = run.folder / "earlier"
        repetition = len(list(earlier.iterdir())) if earlier.is_dir() else 0
        tags = {"config_hash": run.folder.name, "repetition": str(repetition)}
        return tags | {"mlflow.parentRunId": self._parent}

    def _log_result(self, run_id: str, result: RunResult) -> None:
        from mlflow.entities import Metric, RunTag

        step, stamp = result.steps, int(result.finished_at * 1000)
        figures = {key: METRICS[key].value(result) for key in SENT_AT_THE_END}
        metrics = [Metric(key, value, stamp, step) for key, value in figures.items()]
        commit = result.code_version.split("-")[0]
        tags = {"code_version": result.code_version, "mlflow.source.git.commit": commit}
        for tag, right in (("right", result.right), ("right_before", result.right_before)):
            counts = json.dumps(right)
            if right and len(counts) <= MAX_PARAM_CHARACTERS:
                tags[tag] = counts
        listed = list(itertools.starmap(RunTag, tags.items()))
        self._client.log_batch(run_id, metrics=metrics, tags=listed)


def _batches(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _columns(path: Path) -> dict[str, list[Any]]:
    """The rows of a JSON lines file as columns; an unreadable last line is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        with suppress(ValueError):
            rows.append(json.loads(line))
    return {key: [row.get(key) for row in rows] for key in (rows[0] if rows else ())}


def _artifact_folder(uri: str, sweep: str) -> str | None:
    """Beside a local database; a server decides for itself."""
    database = database_path(uri)
    return None if database is None else (database.parent / "mlartifacts" / sweep).as_uri()
