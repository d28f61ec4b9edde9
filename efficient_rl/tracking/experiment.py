"""One sweep in MLflow: an experiment with one parent run, under which the sweep's runs nest.

Runs and experiments that were deleted in the store are restored; those that are gone are made anew.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efficient_rl.metrics import METRICS
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.result import RunResult
from efficient_rl.tracking.client import database_path, open_client
from efficient_rl.tracking.names import read_name
from efficient_rl.tracking.sender import MAX_CHARACTERS, Point, Sender, shown

if TYPE_CHECKING:
    from mlflow.entities import Run

KIND = {"mlflow.experimentKind": "custom_model_development"}  # its page for training, not agents
PARENT = "mlflow.parentRunId"
COMPLETIONS = "completions.json"
SHOWN_AS_TABLE = {"path": COMPLETIONS, "type": "table"}
MAX_NAME = 250  # characters, in a database that counts them
RUNS_A_PAGE = 1000
ACTIVE = "SELECT run_uuid FROM runs WHERE experiment_id = ? AND lifecycle_stage = 'active'"
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
    """The experiment of a sweep, found or created; raises MLflow's errors if the store is away.

    `refused` collects what the store does not take, and why.
    """

    def __init__(self, uri: str, sweep: str, command: str, refused: list[str]) -> None:
        self._client = open_client(uri)
        self._sender = Sender(self._client, refused)
        self._sweep = sweep
        self._held: set[str] = set()  # runs that the store was found to have
        self.id = self._find_or_create(uri)
        self.parent = self._open_parent(command)

    def child(self, run: TrackedRun) -> str:
        """The id of the run in the store, created with its parameters where it is missing."""
        found = self._find_run(self._identity(run))
        if found is None:
            shown_too = {"strategy": run.params.get("strategy.name", ""), "sweep": self._sweep}
            tags = self._identity(run) | {PARENT: self.parent} | shown_too
            run_id, known = self._new_run(run.name, tags), set[str]()
        else:
            self._revive(found)
            run_id = str(found.info.run_id)
            known = {read_name(key, found.data.tags) for key in found.data.params}
        lacking = {key: value for key, value in run.params.items() if key not in known}
        self._sender.params(run_id, lacking)
        self._held.add(run_id)
        return run_id

    def has_run(self, run_id: str) -> bool:
        """Whether the store has the run, restored where it was deleted; asked once."""
        if run_id not in self._held:
            run = self._get_run(run_id)
            if run is None:
                return False
            self._revive(run)
            self._held.add(run_id)
        return True

    def reopen(self, run_id: str) -> None:
        """Mark a run as running again."""
        self._client.update_run(run_id, status="RUNNING")

    def keep_running(self) -> None:
        """Mark the parent as running, whatever another command that was stopped has made of it."""
        if self._client.get_run(self.parent).info.status != "RUNNING":
            self.reopen(self.parent)

    def log_rows(self, run_id: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Send metric lines; a point that the store already has changes nothing."""
        points: list[Point] = []
        for row in rows:
            step, stamp = row["step"], int(row["time"] * 1000)
            points += [(key, value, stamp, step) for key, value in row["metrics"].items()]
        self._sender.metrics(run_id, points)

    def log_end(self, run_id: str, run: TrackedRun, status: str, code: Path) -> None:
        """Send the final figures, the failure if there was one; end the run; send its files.

        `code` is the folder with the code versions of results.
        """
        result, failure = RunDirectory(run.folder).result(), RunDirectory(run.folder).failure()
        files = [run.folder / name for name in ("config.yaml", "result.json", "log.txt")]
        if result is not None:
            self._log_result(run_id, result)
            version = code / result.code_version
            files += [version / "changes.diff", version / "packages.txt"]
        if failure is not None:
            self._sender.tags(run_id, {"failure": failure.error})
        self._client.set_terminated(run_id, status)
        for path in files:
            if path.is_file() and path.stat().st_size:
                self._client.log_artifact(run_id, str(path))
        if completions := _table(run.folder / "completions.jsonl"):
            # Not log_table, which adds the rows to those that an earlier end has sent.
            self._client.log_dict(run_id, completions, COMPLETIONS)
            self._sender.tags(run_id, {"mlflow.loggedArtifacts": json.dumps([SHOWN_AS_TABLE])})

    def close(self, status: str) -> None:
        """End the parent run."""
        self._client.set_terminated(self.parent, status)

    def _find_or_create(self, uri: str) -> str:
        found = self._client.get_experiment_by_name(self._sweep)
        if found is None:
            artifacts = _artifact_folder(uri, self._sweep)
            return str(self._client.create_experiment(self._sweep, artifacts, KIND))
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _open_parent(self, command: str) -> str:
        found = self._find_run({"sweep_parent": self._sweep})
        if found is None:
            tags = {"sweep_parent": self._sweep, "command": command, "mlflow.note.content": f"`{command}`"}
            return self._new_run(self._sweep, tags)
        if found.info.lifecycle_stage == "deleted":
            self._client.restore_run(found.info.run_id)
        self.reopen(found.info.run_id)
        return str(found.info.run_id)

    def _find_run(self, tags: Mapping[str, str]) -> "Run | None":
        """The run with these tags, rather one that was not deleted."""
        from mlflow.entities import ViewType

        condition = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY):
            found = self._client.search_runs([self.id], condition, view, max_results=1)
            if found:
                return found[0]
        return None

    def _get_run(self, run_id: str) -> "Run | None":
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _revive(self, child: "Run") -> None:
        """Restore a deleted run, and put one whose parent is gone under the new one."""
        if child.info.lifecycle_stage == "deleted":
            self._client.restore_run(child.info.run_id)
        if child.data.tags.get(PARENT) != self.parent:
            self._client.set_tag(child.info.run_id, PARENT, self.parent)

    def _new_run(self, name: str, tags: Mapping[str, Any]) -> str:
        texts = {key: shown(value, MAX_CHARACTERS["tags"]) for key, value in tags.items()}
        run = self._client.create_run(self.id, run_name=shown(name, MAX_NAME), tags=texts)
        return str(run.info.run_id)

    def _identity(self, run: TrackedRun) -> dict[str, str]:
        """The tags that identify the run; `repetition` counts the results that `force` replaced."""
        earlier = run.folder / "earlier"
        repetition = len(list(earlier.iterdir())) if earlier.is_dir() else 0
        return {"config_hash": run.folder.name, "repetition": str(repetition)}

    def _log_result(self, run_id: str, result: RunResult) -> None:
        step, stamp = result.steps, int(result.finished_at * 1000)
        figures = {key: METRICS[key].value(result) for key in SENT_AT_THE_END}
        self._sender.metrics(run_id, [(key, value, stamp, step) for key, value in figures.items()])
        commit = result.code_version.split("-")[0]
        tags = {"code_version": result.code_version, "mlflow.source.git.commit": commit}
        for tag, right in (("right", result.right), ("right_before", result.right_before)):
            counts = json.dumps(right)
            if right and len(counts) <= MAX_CHARACTERS["tags"]:
                tags[tag] = counts
        self._sender.tags(run_id, tags)


def active_runs(uri: str, experiment: str) -> set[str]:
    """The runs of an experiment that the store shows; a local database is asked without MLflow."""
    database = database_path(uri)
    if database is not None:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            return {row[0] for row in connection.execute(ACTIVE, (experiment,))}
    client, token, found = open_client(uri), None, set[str]()
    while True:
        page = client.search_runs([experiment], max_results=RUNS_A_PAGE, page_token=token)
        found |= {run.info.run_id for run in page}
        token = page.token
        if not token:
            return found


def _table(path: Path) -> dict[str, list[Any]]:
    """The rows of a JSON lines file as MLflow keeps tables; an unreadable last line is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        with suppress(ValueError):
            rows.append(json.loads(line))
    if not rows:
        return {}
    columns = list(rows[0])
    return {"columns": columns, "data": [[row.get(key) for key in columns] for row in rows]}


def _artifact_folder(uri: str, sweep: str) -> str | None:
    """Beside a local database; a server decides for itself."""
    database = database_path(uri)
    return None if database is None else (database.parent / "mlartifacts" / sweep).as_uri()
