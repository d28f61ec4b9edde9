"""Sends metrics, parameters and tags; what a store refuses of them does not hold back the rest."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from efficient_rl.errors import first_line
from efficient_rl.tracking.names import name_tags, stored_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

METRICS_A_CALL, PARAMS_A_CALL = 1000, 100
MAX_CHARACTERS = {"params": 6000, "tags": 5000}
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")  # other errors are the store's own
Point = tuple[str, float, int, int]  # metric, value, milliseconds, step


class Sender:
    """Sends to the runs of a store. `refused` collects what it does not take, and why."""

    def __init__(self, client: "MlflowClient", refused: list[str]) -> None:
        self._client = client
        self._refused = refused

    def metrics(self, run_id: str, points: Iterable[Point]) -> None:
        """Send points; one that the store already has changes nothing."""
        from mlflow.entities import Metric

        metrics, names = [], set[str]()
        for name, value, stamp, step in points:
            names.add(name)
            try:
                metrics.append(Metric(stored_name(name), float(value), stamp, step))
            except OverflowError as error:
                self._refuse(run_id, name, error)
        self._send_all(run_id, "metrics", metrics, METRICS_A_CALL)
        self.tags(run_id, name_tags(names))

    def params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Send parameters, once a run: the store refuses another value."""
        from mlflow.entities import Param

        longest = MAX_CHARACTERS["params"]
        listed = [Param(stored_name(key), shown(value, longest)) for key, value in params.items()]
        self._send_all(run_id, "params", listed, PARAMS_A_CALL)
        self.tags(run_id, name_tags(params))

    def tags(self, run_id: str, tags: Mapping[str, Any]) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        listed = [RunTag(key, shown(value, MAX_CHARACTERS["tags"])) for key, value in tags.items()]
        self._send_all(run_id, "tags", listed, PARAMS_A_CALL)

    def _send_all(self, run_id: str, kind: str, items: Sequence[Any], size: int) -> None:
        for start in range(0, len(items), size):
            self._send(run_id, kind, items[start : start + size])

    def _send(self, run_id: str, kind: str, items: Sequence[Any]) -> None:
        """Send a batch; where it is refused, its halves, down to the items that are to blame."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.log_batch(run_id, **{kind: items})
        except MlflowException as error:
            deleted = self._client.get_run(run_id).info.lifecycle_stage == "deleted"
            if deleted or error.error_code not in REFUSALS:
                raise
            if len(items) == 1:
                self._refuse(run_id, f"{kind[:-1]} {items[0].key}", error)
                return
            half = len(items) // 2
            self._send(run_id, kind, items[:half])
            self._send(run_id, kind, items[half:])

    def _refuse(self, run_id: str, what: str, error: Exception) -> None:
        self._refused.append(f"{what} of run {run_id}: {first_line(error)}")


def shown(value: Any, characters: int) -> str:
    """The value as a text that every database takes, cut where it is too long."""
    text = str(value).encode(errors="backslashreplace").decode().replace("\0", "\\0")
    return text[:characters]
