"""Reads a tracking server, 100 runs and one metric a request; databases are read directly (store)."""

from collections.abc import Iterator, Sequence
from typing import Any

from analysis.data.load import ReportError
from analysis.data.store import StoredRun, StoredSweep

RUNS_A_REQUEST, POINTS_A_REQUEST = 100, 25_000  # the server gives no more
ENDPOINT = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"


class ServerStore:
    """An MLflow server, through MLflow's client. Raises ReportError where it does not answer."""

    def __init__(self, uri: str) -> None:
        from efficient_rl.tracking.client import open_client

        self._uri = uri
        self._client = open_client(uri)

    def sweeps(self) -> list[StoredSweep]:
        """All that were tracked."""
        found = [
            StoredSweep(run.data.tags["sweep_parent"], experiment, run.info.run_id, run.info.start_time / 1000, command)
            for experiment in self._experiments()
            for run in self._search(experiment, "tags.sweep_parent != ''")
            for command in [run.data.tags.get("command", "")]
        ]
        return found

    def runs(self, sweep: StoredSweep) -> list[StoredRun]:
        """The runs under a sweep's parent."""
        found = self._search(sweep.experiment, f"tags.`mlflow.parentRunId` = '{sweep.run_id}'")
        return [
            StoredRun(run.info.run_id, run.info.status, run.data.tags, run.data.params, run.data.metrics) for run in found
        ]

    def histories(self, run_ids: Sequence[str], keys: Sequence[str]) -> Iterator[tuple[str, str, int, float]]:
        """Every point of these metrics of these runs: run, metric, step, value."""
        for start in range(0, len(run_ids), RUNS_A_REQUEST):
            for key in keys:
                yield from self._history(run_ids[start : start + RUNS_A_REQUEST], key)

    def _history(self, run_ids: Sequence[str], key: str) -> Iterator[tuple[str, str, int, float]]:
        from mlflow.utils.credentials import get_default_host_creds
        from mlflow.utils.rest_utils import http_request, verify_rest_response

        answer = http_request(
            get_default_host_creds(self._uri),
            ENDPOINT,
            "GET",
            params=[("metric_key", key), *(("run_id", run_id) for run_id in run_ids)],
        )
        points = verify_rest_response(answer, ENDPOINT).json()["metrics"]
        if len(points) < POINTS_A_REQUEST:
            yield from ((point["run_id"], key, int(point["step"]), float(point["value"])) for point in points)
        elif len(run_ids) > 1:  # cut off: in halves
            yield from self._history(run_ids[: len(run_ids) // 2], key)
            yield from self._history(run_ids[len(run_ids) // 2 :], key)
        else:
            history = self._client.get_metric_history(run_ids[0], key)
            yield from ((run_ids[0], key, metric.step, metric.value) for metric in history)

    def _experiments(self) -> list[str]:
        from mlflow.exceptions import MlflowException

        try:
            return [experiment.experiment_id for experiment in _pages(self._client.search_experiments)]
        except MlflowException as error:
            raise ReportError(f"{self._uri} cannot be read: {str(error).splitlines()[0]}") from error

    def _search(self, experiment: str, condition: str) -> list[Any]:
        return _pages(lambda **page: self._client.search_runs([experiment], condition, **page))


def _pages(search: Any) -> list[Any]:
    found: list[Any] = []
    page = search()
    found += page
    while page.token:
        page = search(page_token=page.token)
        found += page
    return found
