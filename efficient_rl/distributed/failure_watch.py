"""Detects that another process of a run has failed or died: heartbeats and error reports.

Everything passes through the store that rank 0 serves, so rank 0's death is noticed by the broken
connection, that of another rank by rank 0, which misses its heartbeat.
"""

import json
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import Store

HEARTBEAT_SECONDS = 1.0
SILENT_SECONDS = 120.0  # a process without a heartbeat for so long is taken for dead
GRACE_SECONDS = 5.0  # for a process to notice by itself that another has ended, or to read why
FAILURE, READERS = "failed", "seen"  # keys of the store
HEARTBEAT = "beat/{rank}"
UNREPORTED = "{who} exited without reporting an error; see its exit status"


class PeerFailed(RuntimeError):
    """Another process of this run failed or died; `exit_code` is the one it reported."""

    def __init__(self, text: str, exit_code: int | None = None) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class FailureWatch:
    """Rank `rank`'s view of the `size` processes; `connect` makes a connection to their store."""

    def __init__(self, rank: int, size: int, connect: "Callable[[], Store]") -> None:
        self._rank, self._size, self._connect = rank, size, connect
        self._store = connect()
        self._ending = threading.Event()
        self._failure: PeerFailed | None = None
        self._thread: threading.Thread | None = None

    def start(self, on_failure: Callable[[PeerFailed], None]) -> None:
        """In a thread, send heartbeats and call `on_failure` when another process fails or dies.

        A process that waits for another in a collective, perhaps on a GPU, cannot be woken;
        `on_failure` should end it.
        """
        self._thread = threading.Thread(target=self._run, args=(on_failure,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread: this process is about to leave."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()

    def report(self, error: BaseException, exit_code: int) -> None:
        """Let the others know why this process ends. The first report counts."""
        self._ending.set()
        if isinstance(error, PeerFailed):
            return
        report = json.dumps({"rank": self._rank, "error": _summary(error), "exit_code": exit_code})
        try:
            self._store.compare_set(FAILURE, "", report)
            deadline = time.monotonic() + GRACE_SECONDS
            # The store ends with rank 0, so rank 0 waits until the others have read the report.
            while self._rank == 0 and time.monotonic() < deadline:
                if self._store.add(READERS, 0) >= self._size - 1:
                    return
                time.sleep(0.1)
        except RuntimeError:
            return  # rank 0 has gone before, and every process ends because of that

    def root_cause(self, error: Exception) -> Exception:
        """The error to report: if a collective broke because another process ended, that one's."""
        if not _is_broken_collective(error):
            return error
        deadline = time.monotonic() + GRACE_SECONDS
        try:
            while self._failure is None and time.monotonic() < deadline:
                self._read_failure(self._store)
                time.sleep(0.1)
        except RuntimeError:
            return self._failure or PeerFailed(UNREPORTED.format(who="rank 0"))
        other = f"another of the {self._size} processes ({_summary(error)})"
        return self._failure or PeerFailed(UNREPORTED.format(who=other))

    def _run(self, on_failure: Callable[[PeerFailed], None]) -> None:
        try:
            # A connection of its own: the main thread may wait in a collective on the other.
            store, heartbeats = self._connect(), _Heartbeats(self._size)
            while self._failure is None and not self._ending.wait(HEARTBEAT_SECONDS):
                store.add(HEARTBEAT.format(rank=self._rank), 1)
                self._read_failure(store)
                if self._failure is None and self._rank == 0:
                    self._failure = heartbeats.missing(store)
        except RuntimeError:
            self._failure = PeerFailed(UNREPORTED.format(who="rank 0"))
        if self._failure is not None and not self._ending.wait(GRACE_SECONDS):
            on_failure(self._failure)

    def _read_failure(self, store: "Store") -> None:
        if store.check([FAILURE]):
            report = json.loads(store.get(FAILURE))
            text = f"process {report['rank']} of {self._size}: {report['error']}"
            self._failure = PeerFailed(text, report["exit_code"])
            store.add(READERS, 1)


class _Heartbeats:
    """When rank 0 last saw each of the others' heartbeat counters move, by its own clock."""

    def __init__(self, size: int) -> None:
        self._last = {rank: (0, time.monotonic()) for rank in range(1, size)}

    def missing(self, store: "Store") -> PeerFailed | None:
        """The failure of the first that has sent none for too long."""
        now = time.monotonic()
        for rank, (count, since) in self._last.items():
            counted = store.add(HEARTBEAT.format(rank=rank), 0)
            if counted != count:
                self._last[rank] = (counted, now)
            elif now - since > SILENT_SECONDS:
                return PeerFailed(f"rank {rank} sent no heartbeat for {SILENT_SECONDS:.0f} s")
        return None


def _summary(error: BaseException) -> str:
    first, *_ = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {first}"


def _is_broken_collective(error: Exception) -> bool:
    """Whether this is what torch.distributed raises when a process at the other end is gone."""
    from torch.distributed import DistError

    gloo = isinstance(error, RuntimeError) and "gloo" in str(error)
    return gloo or isinstance(error, DistError)
