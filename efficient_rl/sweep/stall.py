"""Detects stalled runs: a run that should be running, and whose heartbeat is older than a bound."""

import time
from collections.abc import Mapping
from pathlib import Path

from efficient_rl.rundir.directory import RunDirectory

CHECK_SECONDS = 5.0


class StallMonitor:
    """Finds each stall once, by the heartbeat after which nothing came. `minutes` None: never."""

    def __init__(self, minutes: float | None) -> None:
        self._minutes = minutes
        self._checked = 0.0
        self._reported: dict[str, float] = {}  # by hash: the heartbeat at which a stall was last found

    def check(self, running: Mapping[str, Path]) -> dict[str, float]:
        """Newly stalled runs by hash, each with the seconds since its last heartbeat."""
        if self._minutes is None or time.monotonic() - self._checked < CHECK_SECONDS:
            return {}
        self._checked = time.monotonic()
        stalled = {}
        for key, folder in running.items():
            heartbeat = RunDirectory(folder).last_heartbeat()
            if heartbeat is None or heartbeat == self._reported.get(key):
                continue
            seconds = time.time() - heartbeat
            if seconds > 60 * self._minutes:
                self._reported[key] = heartbeat
                stalled[key] = seconds
        return stalled
