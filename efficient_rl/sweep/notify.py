"""Unattended sweeps: detects stalled runs, notifies a shell command or URL of failures and of the end."""

import http.client
import json
import logging
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from efficient_rl.launch.base import Handle, Launcher
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.state import RunState
from efficient_rl.sweep.display import Row, duration
from efficient_rl.sweep.watch import Watch

logger = logging.getLogger(__name__)
LOOK_SECONDS = 5.0
NOTIFY_SECONDS = 30


class Supervisor:
    """Watches the runs of one sweep as `watch` says."""

    def __init__(self, launcher: Launcher, watch: Watch, sweep: str, console: Console) -> None:
        self._launcher = launcher
        self._watch = watch
        self._sweep = sweep
        self._console = console
        self._looked = 0.0
        self._stalled: dict[str, float] = {}  # the sign of life at which a run was last reported

    def look(self, rows: Mapping[str, Row], handles: Mapping[str, Handle]) -> None:
        """Report, and restart if asked, every run whose last sign of life is older than the bound."""
        minutes = self._watch.stall_minutes
        if minutes is None or time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        for key, handle in handles.items():
            sign = RunDirectory(rows[key].folder).last_heartbeat()
            if handle.state is not RunState.RUNNING or sign is None or sign == self._stalled.get(key):
                continue
            if time.time() - sign > 60 * minutes:
                self._stalled[key] = sign
                self._report(rows[key], handle, time.time() - sign)

    def _report(self, row: Row, handle: Handle, seconds: float) -> None:
        why = f"stalled: no new step for {duration(seconds)}"
        self._tell("stalled", run=row.folder.name, what=row.label, quiet_seconds=round(seconds))
        again = self._watch.requeue_stalled and self._launcher.requeue(handle, why)
        text = f"{row.folder.name[:8]} {row.label}: {why}{'; it starts again' if again else ''}"
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)

    def note_end(self, row: Row) -> None:
        """Tell of a run that failed for good."""
        if row.state == "failed":
            error = row.failure.error if row.failure else "unknown"
            self._tell("run_failed", run=row.folder.name, what=row.label, error=error, log=row.log)

    def note_sweep(self, rows: Sequence[Row]) -> None:
        """Tell of the end of the sweep."""
        counts = {state: sum(row.state == state for row in rows) for state in sorted({row.state for row in rows})}
        self._tell("sweep_ended", runs=counts)

    def _tell(self, event: str, **details: Any) -> None:
        if self._watch.notify is not None:
            notify(self._watch.notify, {"event": event, "sweep": self._sweep, **details})


def notify(target: str, message: Mapping[str, Any]) -> None:
    """POST the message as JSON where the target is a URL; else run it as a shell command that reads the JSON from its input.

    What goes wrong is logged: a sweep does not end because nobody listens.
    """
    text = json.dumps(message).encode()
    try:
        if target.startswith(("http://", "https://")):
            request = urllib.request.Request(target, data=text, headers={"Content-Type": "application/json"}, method="POST")
            urllib.request.urlopen(request, timeout=NOTIFY_SECONDS).close()
        else:
            subprocess.run(target, shell=True, input=text, timeout=NOTIFY_SECONDS, check=True, capture_output=True)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError, subprocess.SubprocessError) as error:
        logger.warning("watch.notify failed for %s: %s", message["event"], error)
