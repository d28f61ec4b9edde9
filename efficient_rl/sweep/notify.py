"""Notifies a webhook or a shell command of failed and stalled runs and of the end of a sweep."""

import http.client
import json
import logging
import subprocess
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from efficient_rl.sweep.display import Row

logger = logging.getLogger(__name__)
NOTIFY_SECONDS = 30
ERRORS = (urllib.error.URLError, http.client.HTTPException, OSError, ValueError, subprocess.SubprocessError)


@dataclass(frozen=True)
class Notifier:
    """Sends the events of one sweep to `target`: a URL, a shell command, or None."""

    target: str | None
    sweep: str

    def run_failed(self, row: Row) -> None:
        """A run failed for good."""
        error = row.failure.error if row.failure else "unknown"
        self._send("run_failed", run=row.folder.name, what=row.label, error=error, log=row.log)

    def run_stalled(self, row: Row, seconds: float) -> None:
        """Report a run without a new step for `seconds`."""
        self._send("stalled", run=row.folder.name, what=row.label, quiet_seconds=round(seconds))

    def sweep_ended(self, rows: Iterable[Row]) -> None:
        """The sweep has ended; how many runs are in which state."""
        counts = Counter(str(row.state) for row in rows)
        self._send("sweep_ended", runs=dict(sorted(counts.items())))

    def _send(self, event: str, **details: Any) -> None:
        if self.target is not None:
            notify(self.target, {"event": event, "sweep": self.sweep, **details})


def notify(target: str, message: Mapping[str, Any]) -> None:
    """POST the message as JSON to a URL, or pass it on stdin to the shell command `target`.

    Errors are logged; the sweep continues.
    """
    text = json.dumps(message).encode()
    try:
        if target.startswith(("http://", "https://")):
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(target, data=text, headers=headers, method="POST")
            urllib.request.urlopen(request, timeout=NOTIFY_SECONDS).close()
        else:
            subprocess.run(target, shell=True, input=text, timeout=NOTIFY_SECONDS, check=True, capture_output=True)
    except ERRORS as error:
        logger.warning("watch.notify failed for %s: %s", message["event"], error)
