"""The processes of a run find each other at the ports of their job, whatever else listens there."""

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from efficient_rl.distributed.rendezvous import (
    FIRST_PORT,
    LAST_PORT,
    PORTS_TRIED,
    RendezvousError,
    connect_store,
    distributed_environment,
    master_port,
)
from efficient_rl.errors import ConfigError

JOB = "4711_3.0"


def environment(rank: int, port: int, job: str = JOB) -> dict[str, str]:
    return distributed_environment(rank, 2, rank, 2, "localhost", job) | {"MASTER_PORT": str(port)}


@pytest.fixture
def port() -> int:
    """A port that is free now, with free ones after it."""
    while True:
        with ExitStack() as stack, socket.socket() as first:
            first.bind(("", 0))
            port = int(first.getsockname()[1])
            try:
                for offset in range(1, PORTS_TRIED):
                    stack.enter_context(socket.socket()).bind(("", port + offset))
            except OSError:
                continue
        break
    return port


def met(port: int) -> bool:
    """Whether both processes of the job meet, starting from that port."""
    with ThreadPoolExecutor() as pool:
        second = pool.submit(connect_store, environment(1, port), 20.0)
        server, _ = connect_store(environment(0, port))
        client, connect = second.result()
        client.set("word", "heard")
        return bool(server.get("word") == connect().get("word") == b"heard")


def test_the_same_job_meets_at_the_same_port_and_others_elsewhere() -> None:
    ports = {key: master_port(key) for key in map(str, range(2000))}
    assert ports == {key: master_port(key) for key in ports}
    assert all(FIRST_PORT <= port <= LAST_PORT for port in ports.values())
    assert len(set(ports.values())) > 1900
    assert (master_port("1"), master_port("2")) == (ports["1"], ports["2"])


def test_the_environment_is_what_torch_reads() -> None:
    assert distributed_environment(5, 8, 1, 4, "node7", JOB) == {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "node7",
        "MASTER_PORT": str(master_port(JOB)),
        "EFFICIENT_RL_JOB": JOB,
    }


@pytest.mark.parametrize("numbers", [(2, 2, 0, 1), (-1, 2, 0, 1), (0, 2, 1, 1), (0, 2, 0, 3)])
def test_impossible_numbers_of_processes_are_refused(numbers: tuple[int, int, int, int]) -> None:
    with pytest.raises(ConfigError, match=r"must lie in|exceeds"):
        distributed_environment(*numbers, "node7", JOB)


def test_a_job_without_a_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="names no job"):
        distributed_environment(0, 2, 0, 2, "node7", "")


def test_two_processes_meet(port: int) -> None:
    assert met(port)


def test_they_meet_at_the_next_port_where_something_else_listens(port: int) -> None:
    with socket.socket() as other:
        other.bind(("", port))
        other.listen()
        assert met(port)


def test_they_meet_each_other_and_not_another_job_at_their_port(port: int) -> None:
    server, _ = connect_store(environment(0, port, "another job"))
    assert met(port)
    assert server.num_keys() <= 2  # its own name, and nothing of ours


def test_without_a_free_port_or_a_process_0_they_say_so(port: int) -> None:
    with pytest.raises(RendezvousError, match="did not answer at localhost"):
        connect_store(environment(1, port), seconds=0.5)
    with ExitStack() as stack:
        for offset in range(PORTS_TRIED):
            other = stack.enter_context(socket.socket())
            other.bind(("", port + offset))
            other.listen()
        with pytest.raises(RendezvousError, match="all taken"):
            connect_store(environment(0, port))
