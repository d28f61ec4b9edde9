"""The processes that work on one run together: how they find each other, agree between steps, and end together.

Nothing here imports torch before `Team.join` finds that there are several processes.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from efficient_rl.distributed.rendezvous import meet

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

T = TypeVar("T")
COLLECTIVE_SECONDS = 1800.0  # how much longer one process may take than the others between two exchanges
BEAT_SECONDS = 1.0
SILENT_SECONDS = 120.0  # a process without a sign of life for so long is taken for dead
GRACE_SECONDS = 5.0  # within which a process finds out by itself that another has ended, or hears why
FAILED, SEEN = "failed", "seen"
GONE = "process 0 of this run ended without a word; its exit status says how (a signal, out of memory)"


class MateLost(RuntimeError):
    """Another process of this run failed or is gone, and this one ends with it; `exit_code` is the other's, if it told."""

    def __init__(self, text: str, exit_code: int | None = None) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Team:
    """The processes of one run, of which this is number `rank` of `size`.

    `any`, `share`, `gather`, `wait` and `leave` return once all have called them, in the same
    order.
    """

    def __init__(self, rank: int = 0, size: int = 1, connect: "Callable[[], Store] | None" = None) -> None:
        self.rank, self.size = rank, size
        self._store = connect() if connect is not None else None
        self._connect = connect
        self._ending = threading.Event()
        self._lost: MateLost | None = None
        self._watch: threading.Thread | None = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that owns the run directory."""
        return self.rank == 0

    @classmethod
    def join(cls, environment: Mapping[str, str] = os.environ) -> "Team":
        """The team that the environment names (`launch.processes`), once all are there; a team of one without it.

        Raises NoMeeting where the others do not come.
        """
        size = int(environment.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        import torch
        from torch import distributed
        from torch._C._distributed_c10d import PrefixStore

        rank, backend = int(environment["RANK"]), "gloo"
        server, connect = meet(environment)
        if torch.cuda.is_available():
            torch.cuda.set_device(int(environment["LOCAL_RANK"]) % torch.cuda.device_count())
            backend = "cpu:gloo,cuda:nccl"
        distributed.init_process_group(
            backend,
            store=PrefixStore("group", server),
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=COLLECTIVE_SECONDS),
        )
        return cls(rank, size, connect)

    # Agreeing

    def any(self, *wishes: bool) -> list[bool]:
        """Of every wish, whether any process has it."""
        if self.size == 1:
            return list(wishes)
        import torch
        from torch import distributed

        flags = torch.tensor(wishes, dtype=torch.int32)
        distributed.all_reduce(flags, distributed.ReduceOp.MAX)
        return [bool(flag) for flag in flags.tolist()]

    def share(self, value: T) -> T:
        """Rank 0's value; what the others give does not matter."""
        if self.size == 1:
            return value
        import torch
        from torch import distributed

        values = [value]
        distributed.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def gather(self, value: T) -> list[T]:
        """Every process's value, by rank."""
        if self.size == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Go on once all have come here."""
        self.any(False)

    # Ending together

    def watch(self, on_loss: Callable[[MateLost], None]) -> None:
        """Give signs of life, and call `on_loss`, in a thread, when another process has failed or gives none.

        A process that waits for another in an exchange, perhaps on a GPU, cannot be woken;
        `on_loss` should end it.
        """
        if self.size > 1:
            self._watch = threading.Thread(target=self._look_out, args=(on_loss,), daemon=True)
            self._watch.start()

    def tell(self, error: BaseException, exit_code: int) -> None:
        """Let the others know that this process ends, and why. The first who tells is heard."""
        self._ending.set()
        if self._store is None or isinstance(error, MateLost):
            return
        try:
            words = json.dumps({"rank": self.rank, "error": _words(error), "exit_code": exit_code})
            self._store.compare_set(FAILED, "", words)
            deadline = time.monotonic() + GRACE_SECONDS
            while self.is_main and time.monotonic() < deadline and self._store.add(SEEN, 0) < self.size - 1:
                time.sleep(0.1)  # what the others read ends with this process
        except RuntimeError:
            return  # rank 0 has gone before, and everyone with it

    def explain(self, error: Exception) -> Exception:
        """The error to report: where an exchange broke because another process ended, that one's."""
        if self._store is None or not _is_broken_exchange(error):
            return error
        deadline = time.monotonic() + GRACE_SECONDS
        try:
            while self._lost is None and time.monotonic() < deadline:
                if self._store.check([FAILED]):
                    return self._told(self._store)
                time.sleep(0.1)
        except RuntimeError:
            return self._lost or MateLost(GONE)
        return self._lost or MateLost(
            f"another of the {self.size} processes of this run ended without a word ({_words(error)}); "
            "its exit status says how (a signal, out of memory)"
        )

    def leave(self) -> None:
        """The work is done, or given up together."""
        if self.size == 1:
            return
        from torch import distributed

        self._ending.set()
        if self._watch is not None:
            self._watch.join()
        self.wait()
        distributed.destroy_process_group()

    def _look_out(self, on_loss: Callable[[MateLost], None]) -> None:
        assert self._connect is not None
        try:
            store, beats = self._connect(), _Beats(self.size)  # a connection of its own: the other may wait
            while self._lost is None and not self._ending.wait(BEAT_SECONDS):
                store.add(f"beat/{self.rank}", 1)
                if store.check([FAILED]):
                    self._told(store)
                elif self.is_main:
                    self._lost = beats.silent(store)
        except RuntimeError:
            self._lost = MateLost(GONE)
        if self._lost is not None and not self._ending.wait(GRACE_SECONDS):
            on_loss(self._lost)

    def _told(self, store: "Store") -> MateLost:
        words = json.loads(store.get(FAILED))
        self._lost = MateLost(f"process {words['rank']} of {self.size}: {words['error']}", words["exit_code"])
        store.add(SEEN, 1)
        return self._lost


ALONE = Team()


class _Beats:
    """When rank 0 last saw each of the others give a sign of life, by its own clock."""

    def __init__(self, size: int) -> None:
        self._last = {rank: (0, time.monotonic()) for rank in range(1, size)}

    def silent(self, store: "Store") -> MateLost | None:
        """The loss of the first that has been silent for too long."""
        now = time.monotonic()
        for rank, (count, since) in self._last.items():
            counted = store.add(f"beat/{rank}", 0)
            if counted != count:
                self._last[rank] = (counted, now)
            elif now - since > SILENT_SECONDS:
                return MateLost(f"process {rank} gave no sign of life for {SILENT_SECONDS:.0f} s")
        return None


def _words(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _is_broken_exchange(error: Exception) -> bool:
    """Whether this is what torch.distributed raises when a process at the other end is gone."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
