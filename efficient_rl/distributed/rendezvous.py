"""How the processes of one run find each other: environment variables, and a store of rank 0."""

import functools
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from efficient_rl.errors import require

if TYPE_CHECKING:
    from torch.distributed import Store, TCPStore

JOB_VARIABLE = "EFFICIENT_RL_JOB"
JOB_KEY = "job"
FIRST_PORT, LAST_PORT = 20000, 59999
PORTS_TRIED = 4
JOIN_SECONDS = 600.0  # nodes start at different times, and cold file systems take minutes
ANSWER_SECONDS = 3.0


class RendezvousError(RuntimeError):
    """The processes of a run did not find each other."""


def master_port(job_key: str) -> int:
    """The port at which the processes of a job meet, by its key.

    Two jobs of one machine get the same one in 1 of 40,000 cases, and something else may listen
    there: `connect_store` tries the next ones too, and recognizes its own job by the key.
    """
    digest = hashlib.sha256(job_key.encode()).digest()
    return FIRST_PORT + int.from_bytes(digest[:8]) % (LAST_PORT + 1 - FIRST_PORT)


def distributed_environment(
    rank: int, world_size: int, local_rank: int, local_world_size: int, address: str, job_key: str
) -> dict[str, str]:
    """The environment variables of process `rank` of `world_size`, as torch.distributed reads them.

    `local_rank` counts the `local_world_size` processes on its machine; `address` is that of the
    machine of rank 0; `job_key` names the start of the run (cluster job, index, attempt), so that
    another start meets elsewhere.
    """
    require(0 <= rank < world_size, "rank", rank, f"must lie in 0 to {world_size - 1}")
    local_bound = f"must lie in 0 to {local_world_size - 1}"
    require(0 <= local_rank < local_world_size, "local_rank", local_rank, local_bound)
    fits = local_world_size <= world_size
    require(fits, "local_world_size", local_world_size, f"exceeds world_size={world_size}")
    require(bool(job_key), "job_key", job_key, "names no job; give the job id, or hash and attempt")
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(local_world_size),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(master_port(job_key)),
        JOB_VARIABLE: job_key,
    }


def connect_store(
    environment: Mapping[str, str],
    seconds: float = JOIN_SECONDS,
) -> "tuple[Store, Callable[[], Store]]":
    """The store that the processes of the job share, served by rank 0, and how to connect to it.

    It listens at MASTER_PORT or, where something else listens there, at the next port that is free;
    the others try the same ones and take the one where their own job answers. Raises
    RendezvousError with what was tried.
    """
    first, job = int(environment["MASTER_PORT"]), environment.get(JOB_VARIABLE, "")
    ports, address = range(first, first + PORTS_TRIED), environment["MASTER_ADDR"]
    if environment["RANK"] == "0":
        address, store = "localhost", _serve(ports)
        store.set(JOB_KEY, job)
    else:
        store = _find(address, ports, job, seconds)
    return store, functools.partial(_connect, address, store.port)


def _serve(ports: range) -> "TCPStore":
    from torch.distributed import DistNetworkError, TCPStore

    for port in ports:
        if not _listens("localhost", port):
            with suppress(DistNetworkError):  # another process bound it first
                return TCPStore("localhost", port, is_master=True, wait_for_workers=False)
    raise RendezvousError(
        f"ports {ports.start} to {ports.stop - 1} of this machine are all taken; "
        "start the run again, which gives its job other ones"
    )


def _find(address: str, ports: range, job: str, seconds: float) -> "TCPStore":
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for port in ports:
            store = _answering(address, port, job)
            if store is not None:
                return store
        time.sleep(0.2)
    raise RendezvousError(
        f"rank 0 did not answer at {address}, ports {ports.start} to {ports.stop - 1}, "
        f"within {seconds:.0f} s; its log says whether it started, and a firewall may stand "
        "between the machines"
    )


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


def _answering(address: str, port: int, job: str) -> "TCPStore | None":
    """A connection to the store there, or None where this job does not listen."""
    if not _listens(address, port):
        return None
    found: list[TCPStore] = []

    def ask() -> None:
        with suppress(RuntimeError):
            store = _connect(address, port, ANSWER_SECONDS)
            if store.get(JOB_KEY).decode() == job:
                found.append(store)

    # A thread, because torch waits for ever where something listens and never answers.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ANSWER_SECONDS)
    for store in found:
        store.set_timeout(timedelta(seconds=JOIN_SECONDS))
        return store
    return None


def _connect(address: str, port: int, seconds: float = JOIN_SECONDS) -> "TCPStore":
    from torch.distributed import TCPStore

    timeout = timedelta(seconds=seconds)
    return TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timeout)
