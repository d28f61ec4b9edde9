"""Collects run directories into MLflow: the only file that knows it. The directories are the truth, the store may be away.

A sweep is one experiment with one parent run; its runs nest under it. Every point is sent once: how
far a metrics file was sent is kept beside it, and a point that was sent just before a crash is the
same row again, which the store ignores.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from efficient_rl.metrics import METRICS
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.state import RunState

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)
METRICS_A_CALL = 1000
PARAMS_A_CALL = 100
MAX_PARAM_CHARACTERS = 6000
EVALUATIONS = {"right": "evaluation", "right_before": "evaluation_before"}  # tag of a run -> part of its result
SENT_AT_THE_END = (  # metrics of a result that one sorts runs by; the others are in the log already
    "accuracy",
    "accuracy_before",
    "accuracy_gain",
    "greedy_accuracy",
    "problems",
    "samples",
    "memory/total_peak_bytes",
    "time/train_seconds",
    "time/total_seconds",
)
LIBRARY_SETTINGS = {  # a store that is away must not hold a sweep up, and nothing but our own lines is printed
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
# The page of an experiment with its charts; sorted by a metric, because the UI folds nested runs away otherwise.
CHARTS = "/#/experiments/{experiment}/runs?compareRunsMode=CHART&orderByKey=metrics.%60accuracy%60&orderByAsc=false"
DEFAULT_URI = "sqlite:///mlflow.db"
STATUSES = {  # MLflow's word for the state of a run directory
    RunState.FINISHED: "FINISHED",
    RunState.RUNNING: "RUNNING",
    RunState.FAILED: "FAILED",
    RunState.WAITING: "KILLED",
}


@dataclass(frozen=True)
class TrackedRun:
    """One run of the sweep as the store shall show it."""

    folder: Path
    name: str
    params: Mapping[str, Any]


@dataclass
class _Sent:
    """How far a run directory has been sent to one experiment."""

    run_id: str
    offset: int = 0
    attempt: int = 0
    status: str = "RUNNING"
    store: str = ""  # which database file it was, so that a new one under the same name is seen


def resolve_uri(uri: str | None) -> str | None:
    """The absolute tracking URI: the given one, else MLFLOW_TRACKING_URI, else a database here; None for `none`."""
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    if chosen == "none":
        return None
    if chosen.startswith("sqlite:///") and not chosen.startswith("sqlite:////"):
        return f"sqlite:///{Path(chosen.removeprefix('sqlite:///')).resolve()}"
    return chosen if urlsplit(chosen).scheme else Path(chosen).resolve().as_uri()


def open_client(uri: str) -> "MlflowClient":
    """MLflow's client, quiet, and impatient with a store that is away."""
    for name, value in LIBRARY_SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def attach(uri: str, sweep: str, folder: Path) -> str | None:
    """Log a folder's files as artifacts of the sweep's parent run, under `report`; None, or why that was not possible."""
    database = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not database.exists():
        return f"there is no database {database}"
    try:
        client = open_client(uri)
        experiment = client.get_experiment_by_name(sweep)
        conditions = f"tags.sweep_parent = '{sweep}'"
        found = client.search_runs([experiment.experiment_id], conditions, max_results=1) if experiment is not None else []
        if not found:
            return f"{uri} does not know the sweep {sweep}"
        client.log_artifacts(found[0].info.run_id, str(folder), "report")
    except Exception as error:  # noqa: BLE001 the store may fail in any way; the report's files are written already
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return None


class Collector:
    """Sends the runs of one sweep to one store. Not for several threads; several processes may, they take turns."""

    def __init__(self, uri: str, sweep: str, command: str, outputs: Path) -> None:
        self.uri = uri
        self._sweep = sweep
        self._command = command
        self._outputs = outputs
        self._key = f"{sweep}-{hashlib.sha256(uri.encode()).hexdigest()[:8]}"
        self._client: MlflowClient | None = None
        self._complete: dict[Path, int] = {}  # which runs have nothing left to send, until they are touched again
        self._known: set[str] = set()  # runs that the store was found to have
        self._experiment = ""
        self._parent = ""

    def is_sent(self, run: TrackedRun) -> bool:
        """Whether the store has everything of a run, without asking it."""
        sent = self._sent(run)
        record = RunDirectory(run.folder)
        return sent is not None and sent.status == _status(record) != "RUNNING" and sent.offset >= _size(run.folder)

    def sync(self, runs: Iterable[TrackedRun]) -> None:
        """Send what the store lacks. Raises what MLflow raises where the store cannot be reached."""
        for run in runs:
            touched = _touched(run.folder)
            if touched is not None and touched != self._complete.get(run.folder) and _has_news(run, self._sent(run)):
                try:
                    (run.folder / "tracking").mkdir(exist_ok=True)
                    with FileLock(run.folder / "tracking" / f"{self._key}.lock", timeout=0):
                        self._send(self._opened(), run)
                except Timeout:
                    logger.debug("another process sends %s", run.folder.name)
            if touched is not None and self.is_sent(run):
                self._complete[run.folder] = touched

    def close(self, finished: bool) -> None:
        """Mark the parent run as ended, if this process ever opened it."""
        if self._client is not None:
            self._client.set_terminated(self._parent, "FINISHED" if finished else "KILLED")

    def _opened(self) -> "MlflowClient":
        if self._client is None:
            self._outputs.mkdir(parents=True, exist_ok=True)
            with FileLock(_store_lock(self.uri, self._outputs)):  # the first use by several processes breaks a database
                client = open_client(self.uri)
                self._experiment = self._find_experiment(client)
                self._parent = self._find_run(client, f"tags.sweep_parent = '{self._sweep}'") or self._new_parent(client)
            self._client = client
            _write_whole(self._outputs / "sweeps" / self._sweep / "charts.txt", CHARTS.format(experiment=self._experiment))
        return self._client

    def _find_experiment(self, client: "MlflowClient") -> str:
        experiment = client.get_experiment_by_name(self._sweep)
        if experiment is not None:
            if experiment.lifecycle_stage == "deleted":
                client.restore_experiment(experiment.experiment_id)
            return str(experiment.experiment_id)
        place = _artifact_folder(self.uri, self._sweep)
        kind = {"mlflow.experimentKind": "custom_model_development"}  # the UI's page for training, not for agents
        return str(client.create_experiment(self._sweep, artifact_location=place, tags=kind))

    def _find_run(self, client: "MlflowClient", condition: str) -> str | None:
        found = client.search_runs([self._experiment], condition, max_results=1)
        return str(found[0].info.run_id) if found else None

    def _new_parent(self, client: "MlflowClient") -> str:
        tags = {"sweep_parent": self._sweep, "command": self._command, "mlflow.note.content": f"`{self._command}`"}
        return str(client.create_run(self._experiment, run_name=self._sweep, tags=tags).info.run_id)

    def _send(self, client: "MlflowClient", run: TrackedRun) -> None:
        sent = self._sent(run)
        if sent is None or not self._has_run(client, sent.run_id):
            sent = _Sent(self._find_child(client, run) or self._new_child(client, run), store=_identity(self.uri))
        self._remember(run, sent)
        record = RunDirectory(run.folder)
        status = _status(record)
        attempt = record.newest_attempt() or 0
        if status == "RUNNING" and sent.status != "RUNNING":
            client.update_run(sent.run_id, status="RUNNING")
        rows = list(record.metrics(sent.offset))
        for batch in _batches(rows):
            client.log_batch(sent.run_id, metrics=batch)
        sent.offset = max([sent.offset, *(row["end"] for row in rows)])
        self._remember(run, sent)
        if status != "RUNNING" and (sent.status, sent.attempt) != (status, attempt):
            self._send_end(client, run, record, sent.run_id)
            client.set_terminated(sent.run_id, status)
            sent.offset = _size(run.folder)
        sent.status, sent.attempt = status, attempt
        self._remember(run, sent)

    def _has_run(self, client: "MlflowClient", run_id: str) -> bool:
        """Whether the store still knows the run; it is asked once."""
        if run_id not in self._known:
            from mlflow.exceptions import MlflowException

            try:
                client.get_run(run_id)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return False
            self._known.add(run_id)
        return True

    def _find_child(self, client: "MlflowClient", run: TrackedRun) -> str | None:
        tags = {"config_hash": run.folder.name, "repetition": _repetition(run.folder), "mlflow.parentRunId": self._parent}
        return self._find_run(client, " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items()))

    def _new_child(self, client: "MlflowClient", run: TrackedRun) -> str:
        tags = {
            "config_hash": run.folder.name,
            "repetition": _repetition(run.folder),
            "mlflow.parentRunId": self._parent,
            "strategy": str(run.params.get("strategy.name", "")),
            "sweep": self._sweep,
        }
        run_id = str(client.create_run(self._experiment, run_name=run.name, tags=tags).info.run_id)
        from mlflow.entities import Param

        params = [Param(key, str(value)[:MAX_PARAM_CHARACTERS]) for key, value in run.params.items()]
        for start in range(0, len(params), PARAMS_A_CALL):
            client.log_batch(run_id, params=params[start : start + PARAMS_A_CALL])
        return run_id

    def _send_end(self, client: "MlflowClient", run: TrackedRun, record: RunDirectory, run_id: str) -> None:
        """The final figures, the failure if there was one, and the files worth keeping."""
        from mlflow.entities import Metric, RunTag

        result, failure = record.result(), record.failure()
        tags, metrics = [], []
        if result is not None:
            stamp = int(result.finished_at * 1000)
            metrics = [Metric(key, METRICS[key].value(result), stamp, result.steps) for key in SENT_AT_THE_END]
            commit = result.code_version.split("-")[0]
            tags = [RunTag("code_version", result.code_version), RunTag("mlflow.source.git.commit", commit)]
            counts = {tag: json.dumps(getattr(result, part).get("right")) for tag, part in EVALUATIONS.items()}
            tags += [
                RunTag(tag, text) for tag, text in counts.items() if text != "null" and len(text) <= MAX_PARAM_CHARACTERS
            ]
            for name in ("changes.diff", "packages.txt"):
                path = self._outputs / "code" / result.code_version / name
                if path.is_file() and path.stat().st_size:
                    client.log_artifact(run_id, str(path))
        if failure is not None:
            tags.append(RunTag("failure", failure.error[:MAX_PARAM_CHARACTERS]))
        client.log_batch(run_id, metrics=metrics, tags=tags)
        for name in ("config.yaml", "result.json", "log.txt"):
            if (run.folder / name).is_file():
                client.log_artifact(run_id, str(run.folder / name))
        table = _columns(run.folder / "completions.jsonl")
        if table:
            client.log_table(run_id, data=table, artifact_file="completions.json")

    def _state_path(self, run: TrackedRun) -> Path:
        return run.folder / "tracking" / f"{self._key}.json"

    def _sent(self, run: TrackedRun) -> _Sent | None:
        try:
            sent = _Sent(**json.loads(self._state_path(run).read_text()))
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
            return None
        return sent if sent.store == _identity(self.uri) else None

    def _remember(self, run: TrackedRun, sent: _Sent) -> None:
        _write_whole(self._state_path(run), json.dumps(asdict(sent)))


def store_trouble(uri: str) -> tuple[str, str] | None:
    """What keeps a store from taking runs, and what mends it; None where nothing does, or it is still to be made."""
    for name, value in LIBRARY_SETTINGS.items():
        os.environ.setdefault(name, value)
    if uri.startswith(("http://", "https://")):
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            MlflowClient(uri).search_experiments(max_results=1)
        except MlflowException as error:
            return str(error).splitlines()[0][
                :200
            ], "mlflow server --backend-store-uri ... on that host, or tracking.uri=..."
        return None
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return None
    import sqlalchemy
    from mlflow.exceptions import MlflowException
    from mlflow.store.db.utils import _verify_schema

    try:
        engine = sqlalchemy.create_engine(uri)
        try:
            _verify_schema(engine)
        finally:
            engine.dispose()
    except MlflowException as error:
        return str(error).splitlines()[0][:200], f"mlflow db upgrade {uri}"
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        return str(error).splitlines()[0][:200], "tracking.uri=<a store that answers>, or tracking=none"
    return None


def _write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(path)


def _status(record: RunDirectory) -> str:
    return STATUSES[record.state()]


def _touched(folder: Path) -> int | None:
    """When the run was last claimed, None before the first time."""
    try:
        return (folder / "attempts").stat().st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return None


def _has_news(run: TrackedRun, sent: _Sent | None) -> bool:
    if sent is None:
        return True
    return _size(run.folder) > sent.offset or _status(RunDirectory(run.folder)) != sent.status


def _size(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.stat().st_size if path.is_file() else 0


def _repetition(folder: Path) -> str:
    """How many earlier results of this run were set aside by `force`."""
    earlier = folder / "earlier"
    return str(len(list(earlier.iterdir()))) if earlier.is_dir() else "0"


def _batches(rows: Sequence[Mapping[str, Any]]) -> Iterable[list[Any]]:
    from mlflow.entities import Metric

    points = [
        Metric(key, value, int(row["time"] * 1000), row["step"]) for row in rows for key, value in row["metrics"].items()
    ]
    return [points[start : start + METRICS_A_CALL] for start in range(0, len(points), METRICS_A_CALL)]


def _columns(path: Path) -> dict[str, list[Any]]:
    """The rows of a JSON lines file as columns; an unreadable last line is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return {key: [row.get(key) for row in rows] for key in (rows[0] if rows else {})}


def _store_lock(uri: str, outputs: Path) -> Path:
    """Where processes that open the same store meet: beside a local database, else in the output folder."""
    if uri.startswith("sqlite:///"):
        return Path(uri.removeprefix("sqlite:///") + ".lock")
    return outputs / "tracking.lock"


def _identity(uri: str) -> str:
    """Tells a local database from another that took its place; "" for a server, and where there is none."""
    path = Path(uri.removeprefix("sqlite:///"))
    return str(path.stat().st_ino) if uri.startswith("sqlite:///") and path.exists() else ""


def _artifact_folder(uri: str, sweep: str) -> str | None:
    """Beside a local database; a server decides for itself."""
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts" / sweep).as_uri()


def sync_until(collector: Collector, runs: Sequence[TrackedRun], seconds: float, complete: bool | None = None) -> str | None:
    """Send everything that is left, trying again for `seconds`; the last error's first line where that was not enough.

    `complete` ends the parent run too: as finished, or as killed where it is False.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            collector.sync(runs)
            if complete is not None:
                collector.close(complete)
            return None
        except Exception as error:  # noqa: BLE001 the store may fail in any way; training and results do not depend on it
            if time.monotonic() > deadline:
                return str(error).splitlines()[0] if str(error) else type(error).__name__
            time.sleep(0.5)
