"""The processes of one local run: forked from a warm server, with one exit code together."""

import functools
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

from efficient_rl.launch.worker import EXIT_DISK_FULL, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_NOT_MINE, Job
from efficient_rl.libraries import forget_process_group, quiet_libraries

EXIT_SERVER_LOST = 255  # multiprocessing's, for a fork whose end the lost server could not report
REPORTED = (0, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_NOT_MINE, EXIT_DISK_FULL)  # the process itself has said how it ended
GROUP_SECONDS = 60.0  # for the other processes of a run to record why they end
PRELOADED = ["efficient_rl.launch.forkserver_preload", "efficient_rl.launch.worker"]

Target = Callable[[Job, Mapping[str, str]], None]


class RunProcesses:
    """The processes that do one run together; several end together, however one of them ended."""

    def __init__(self, processes: list[ForkServerProcess]) -> None:
        self._processes = processes
        self._broken_since: float | None = None

    @classmethod
    def start(cls, target: Target, job: Job, environments: Iterable[Mapping[str, str]]) -> "RunProcesses":
        """Fork one process per environment; RuntimeError if the server cannot start."""
        return cls([fork(target, job, environment) for environment in environments])

    @property
    def alive(self) -> list[ForkServerProcess]:
        """Those that have not ended."""
        return [process for process in self._processes if process.exitcode is None]

    def poll(self) -> int | None:
        """The exit code of the run, None while a process lives: an unreported one, else the first.

        Minus the number of the signal that killed it. Once one has failed, the others have
        GROUP_SECONDS to end and say why; then they are killed.
        """
        codes = [process.exitcode for process in self._processes]
        ended = [code for code in codes if code is not None]
        if len(ended) == len(codes):
            unreported = [code for code in ended if code not in REPORTED]
            return next(filter(None, [*unreported, *ended]), 0)
        if any(ended):
            self._broken_since = self._broken_since or time.monotonic()
            if time.monotonic() - self._broken_since > GROUP_SECONDS:
                self.kill()
        return None

    def terminate(self) -> None:
        """Ask them to write a checkpoint and end."""
        for process in self.alive:
            process.terminate()

    def kill(self) -> None:
        for process in self.alive:
            process.kill()

    def join(self) -> None:
        for process in self._processes:
            process.join()

    def close(self) -> None:
        """Free what the ended processes held here."""
        for process in self._processes:
            process.close()


def fork(target: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Call the target in a process with the libraries loaded; RuntimeError if they cannot be."""
    # A cluster signals every process of a job, the server too, which must outlive that: it
    # inherits the blocked signals, and a worker unblocks those that it listens to.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2})
    try:
        process = _fork_server().Process(target=target, args=arguments)
        process.start()
    except EOFError as error:
        raise RuntimeError(
            "the process that runs are forked from could not load its libraries; "
            "`python -c 'import efficient_rl.launch.forkserver_preload'` shows why"
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return process


@functools.cache
def _fork_server() -> ForkServerContext:
    quiet_libraries()
    forget_process_group()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
