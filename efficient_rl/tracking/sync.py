"""Syncs the tracking store during a sweep: a thread, and a last sync at the end."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from efficient_rl.errors import first_line
from efficient_rl.tracking.collector import Collector
from efficient_rl.tracking.experiment import TrackedRun

logger = logging.getLogger(__name__)
SYNC_SECONDS = 5.0
LAST_SYNC_SECONDS = 20.0
JOIN_SECONDS = 60.0
RETRY_SECONDS = 0.5


@dataclass
class LastSync:
    """Whether the sweep is complete (None: running), and why the store lacks something.

    `refused`: what it will never take, and why.
    """

    complete: bool | None = None
    error: str | None = None
    refused: Sequence[str] = ()


@contextmanager
def synced(collector: Collector | None, runs: Sequence[TrackedRun]) -> Iterator[LastSync]:
    """Send news of `runs`, which may grow, every few seconds, and at the end what is left.

    Set `complete` within the context and read `error` after it. Without a collector nothing
    happens.
    """
    last = LastSync()
    if collector is None:
        yield last
        return
    ended = threading.Event()
    thread = threading.Thread(target=_sync_repeatedly, args=(collector, runs, ended), daemon=True)
    thread.start()
    try:
        yield last
    finally:
        ended.set()
        thread.join(timeout=JOIN_SECONDS)
    last.error = sync_until(collector, runs, LAST_SYNC_SECONDS, last.complete)
    last.refused = list(dict.fromkeys(collector.refused))


def sync_until(
    collector: Collector,
    runs: Sequence[TrackedRun],
    seconds: float,
    complete: bool | None = None,
) -> str | None:
    """Send all that is left, retrying for `seconds`; the last error where that is not enough.

    `complete` ends the parent run too: as finished, or as killed where it is False.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            collector.sync(runs)
            if complete is not None:
                collector.close(complete)
            return None
        except Exception as error:  # noqa: BLE001 the store may fail in any way, training continues
            if time.monotonic() > deadline:
                return first_line(error)
            time.sleep(RETRY_SECONDS)


def _sync_repeatedly(
    collector: Collector,
    runs: Sequence[TrackedRun],
    ended: threading.Event,
) -> None:
    while not ended.wait(SYNC_SECONDS):
        if error := sync_until(collector, runs, seconds=0):  # the last sync reports it, if it stays
            logger.debug("tracking: %s", error)
