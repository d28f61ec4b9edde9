"""Reads sweeps back from a tracking server, one metric of 100 runs a request."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from efficient_rl.errors import ConfigError, first_line
from efficient_rl.tracking.client import open_client
from efficient_rl.tracking.database import Point, StoredRun, StoredSweep
from efficient_rl.tracking.names import read_name, stored_name

RUNS_A_REQUEST, POINTS_A_REQUEST = 100, 25_000  # the server gives no more
ENDPOINT = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"


class ServerStore:
    """An MLflow server, through MLflow's client. Raises ConfigError where it does not answer."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client = open_client(uri)

    def sweeps(self) -> list[StoredSweep]:
        found = []
        for experiment in self._experiments():
            for run in self._search(experiment, "tags.sweep_parent != ''"):
                tags, created = run.data.tags, run.info.start_time / 1000
                name, command = tags["sweep_parent"], tags.get("command", "")
                found.append(StoredSweep(name, experiment, run.info.run_id, created, command))
        return found

    def runs(self, sweep: StoredSweep) -> list[StoredRun]:
        condition = f"tags.`mlflow.parentRunId` = '{sweep.run_id}'"
        found = []
        for run in self._search(sweep.experiment, condition):
            info, data = run.info, run.data
            params, metrics = _named(data.params, data.tags), _named(data.metrics, data.tags)
            found.append(StoredRun(info.run_id, info.status, data.tags, params, metrics))
        return found

    def histories(self, run_ids: Sequence[str], keys: Sequence[str]) -> Iterator[Point]:
        for start in range(0, len(run_ids), RUNS_A_REQUEST):
            for key in keys:
                yield from self._history(run_ids[start : start + RUNS_A_REQUEST], key)

    def _history(self, run_ids: Sequence[str], key: str) -> Iterator[Point]:
        """Every point of the metric `key`, whose name in the store may be another."""
        from mlflow.utils.credentials import get_default_host_creds
        from mlflow.utils.rest_utils import http_request, verify_rest_response

        params = [("metric_key", stored_name(key)), *(("run_id", run_id) for run_id in run_ids)]
        host = get_default_host_creds(self._uri)
        answer = http_request(host, ENDPOINT, "GET", params=params)
        points = verify_rest_response(answer, ENDPOINT).json()["metrics"]
        if len(points) < POINTS_A_REQUEST:
            for point in points:
                yield point["run_id"], key, int(point["step"]), float(point["value"])
        elif len(run_ids) > 1:  # cut off: in halves
            half = len(run_ids) // 2
            yield from self._history(run_ids[:half], key)
            yield from self._history(run_ids[half:], key)
        else:
            for metric in self._client.get_metric_history(run_ids[0], stored_name(key)):
                yield run_ids[0], key, metric.step, metric.value

    def _experiments(self) -> list[str]:
        from mlflow.exceptions import MlflowException

        try:
            found = _pages(self._client.search_experiments)
        except MlflowException as error:
            raise ConfigError(f"{self._uri} cannot be read: {first_line(error)}") from error
        return [experiment.experiment_id for experiment in found]

    def _search(self, experiment: str, condition: str) -> list[Any]:
        return _pages(lambda **page: self._client.search_runs([experiment], condition, **page))


def _named(values: Mapping[str, Any], tags: Mapping[str, str]) -> dict[str, Any]:
    """The same values by the names that were sent."""
    return {read_name(key, tags): value for key, value in values.items()}


def _pages(search: Any) -> list[Any]:
    page = search()
    found = list(page)
    while page.token:
        page = search(page_token=page.token)
        found += page
    return found
