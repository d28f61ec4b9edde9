"""Where the processes of one run meet: a small store that rank 0 serves at a port of their job."""

import functools
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store, TCPStore

JOB_VARIABLE = "EFFICIENT_RL_JOB"
JOB_KEY = "job"
PORTS_TRIED = 4
JOIN_SECONDS = 600.0  # nodes of a job start at different times, and cold file systems take minutes to import
ANSWER_SECONDS = 3.0


class NoMeeting(RuntimeError):
    """The processes of a run did not find each other."""


def meet(environment: Mapping[str, str], seconds: float = JOIN_SECONDS) -> "tuple[Store, Callable[[], Store]]":
    """The store that all processes of the job share, served by rank 0, and a way to make further connections to it.

    It stands at MASTER_PORT or, where something else listens there, at the next port that is free;
    the others try the same ones and take the one where their own job answers. Raises NoMeeting with
    what was tried.
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
    from torch._C._distributed_c10d import TCPStore
    from torch.distributed import DistNetworkError

    for port in ports:
        if not _listens("localhost", port):
            with suppress(DistNetworkError):  # somebody was faster
                return TCPStore("localhost", port, is_master=True, wait_for_workers=False)
    raise NoMeeting(
        f"ports {ports.start} to {ports.stop - 1} of this machine are all taken; start the run again, which gives its job "
        "other ones"
    )


def _find(address: str, ports: range, job: str, seconds: float) -> "TCPStore":
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for port in ports:
            store = _answering(address, port, job)
            if store is not None:
                return store
        time.sleep(0.2)
    raise NoMeeting(
        f"process 0 of this run did not answer at {address}, ports {ports.start} to {ports.stop - 1}, within {seconds:.0f} "
        "s; its log says whether it started, and a firewall may stand between the machines"
    )


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


def _answering(address: str, port: int, job: str) -> "TCPStore | None":
    """A connection to the store there, or None where nobody listens or something other than this job does."""
    if not _listens(address, port):
        return None
    found: list[TCPStore] = []

    def ask() -> None:
        with suppress(RuntimeError):
            store = _connect(address, port, ANSWER_SECONDS)
            if store.get(JOB_KEY).decode() == job:
                found.append(store)

    asking = threading.Thread(target=ask, daemon=True)  # torch waits for ever where something listens and never answers
    asking.start()
    asking.join(ANSWER_SECONDS)
    for store in found:
        store.set_timeout(timedelta(seconds=JOIN_SECONDS))
        return store
    return None


def _connect(address: str, port: int, seconds: float = JOIN_SECONDS) -> "TCPStore":
    from torch._C._distributed_c10d import TCPStore

    return TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=seconds))
