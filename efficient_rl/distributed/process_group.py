"""The processes that train one run together: their collectives, and how they end together.

Nothing here imports torch before `ProcessGroup.join` finds that there are several processes.
"""

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from efficient_rl.distributed.failure_watch import FailureWatch, PeerFailed
from efficient_rl.distributed.rendezvous import connect_store

T = TypeVar("T")
COLLECTIVE_SECONDS = 1800.0  # one process may take so much longer than another between two


class ProcessGroup:
    """The processes of one run, of which this is number `rank` of `size`.

    The collectives and `close` return once all processes have called them, in the same order.
    """

    def __init__(self, rank: int = 0, size: int = 1, failures: FailureWatch | None = None) -> None:
        self.rank, self.size = rank, size
        self._failures = failures

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes into the run directory."""
        return self.rank == 0

    @classmethod
    def join(cls, environment: Mapping[str, str] = os.environ) -> "ProcessGroup":
        """The group that `distributed_environment` describes, once all are there.

        Raises RendezvousError where the others do not come.
        """
        size = int(environment.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        import torch
        from torch import distributed

        rank, backend = int(environment["RANK"]), "gloo"
        server, connect = connect_store(environment)
        if torch.cuda.is_available():
            torch.cuda.set_device(int(environment["LOCAL_RANK"]) % torch.cuda.device_count())
            backend = "cpu:gloo,cuda:nccl"
        distributed.init_process_group(
            backend,
            store=distributed.PrefixStore("group", server),
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=COLLECTIVE_SECONDS),
        )
        return cls(rank, size, FailureWatch(rank, size, connect))

    def all_reduce_any(self, *flags: bool) -> list[bool]:
        """Of every flag, whether any process has set it."""
        if self.size == 1:
            return list(flags)
        import torch
        from torch import distributed

        reduced = torch.tensor(flags, dtype=torch.int32)
        distributed.all_reduce(reduced, distributed.ReduceOp.MAX)
        return list(map(bool, reduced.tolist()))

    def broadcast(self, value: T) -> T:
        """Rank 0's value; what the others give does not matter."""
        if self.size == 1:
            return value
        import torch
        from torch import distributed

        values = [value]
        distributed.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def all_gather(self, value: T) -> list[T]:
        """Every process's value, by rank."""
        if self.size == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Return once all have come here."""
        self.all_reduce_any(False)

    def watch(self, on_failure: Callable[[PeerFailed], None]) -> None:
        """Call `on_failure`, in a thread, when another process fails; see `FailureWatch`."""
        if self._failures is not None:
            self._failures.start(on_failure)

    def report_failure(self, error: BaseException, exit_code: int) -> None:
        """Let the other processes know why this one ends."""
        if self._failures is not None:
            self._failures.report(error, exit_code)

    def root_cause(self, error: Exception) -> Exception:
        """The error to report: if a collective broke because another process ended, that one's."""
        return error if self._failures is None else self._failures.root_cause(error)

    def close(self) -> None:
        """Leave together: the work is done, or given up by all."""
        if self._failures is None:
            return
        from torch import distributed

        self._failures.stop()
        self.barrier()
        distributed.destroy_process_group()


SINGLE_PROCESS = ProcessGroup()
