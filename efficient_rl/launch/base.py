"""What launchers share: their protocol, the handle of a job, how an exit code settles it."""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from efficient_rl.config.run_options import SHARDINGS
from efficient_rl.config.schema import Component
from efficient_rl.errors import require, require_known
from efficient_rl.launch.cgroups import oom_kills
from efficient_rl.launch.worker import DISK_FULL, EXIT_DISK_FULL, EXIT_INTERRUPTED, EXIT_NOT_MINE, Job
from efficient_rl.rundir.result import Cause, Failure
from efficient_rl.rundir.state import RunState


@dataclass(eq=False)
class Handle:
    """One job of a launcher: `note` says where it runs or why it waits, `failure` why it failed."""

    job: Job
    state: RunState = RunState.WAITING
    note: str = ""
    failure: Failure | None = None


class Launcher(Protocol):
    """Starts jobs and reports how they ended; `local.LocalLauncher` is one.

    `detaches`: its jobs outlive the process that launched them. `detach`: return once they are
    launched. A launcher may say `trains=False`, that it loads no models, or `in_process=True`.
    `sharding`: what the processes of one run share (`config.run_options`).
    `gpus_per_run`: GPUs that one run occupies. `slots`: how many runs may run at once.
    """

    detaches: bool
    detach: bool
    sharding: str

    @property
    def gpus_per_run(self) -> float: ...

    @property
    def slots(self) -> int: ...

    def launch(self, jobs: Sequence[Job]) -> list[Handle]:
        """Start the jobs, now or as soon as there is room."""

    def attach(self, jobs: Sequence[Job]) -> list[Handle]:
        """Handles of those jobs that an earlier process launched and that have not ended."""

    def poll(self, timeout: float = 0) -> list[Handle]:
        """The handles whose jobs ended since the last call, after at most `timeout` seconds."""

    def requeue(self, handle: Handle, why: str) -> bool:
        """Kill a stalled job and start it again from its last checkpoint; whether it starts again.

        After `Job.retries` restarts it does not: `poll` then returns it as failed because of `why`.
        """

    def cancel(self, handle: Handle) -> None:
        """End one job after a checkpoint; `poll` returns it, stopped or already finished."""

    def stop(self) -> None:
        """Drop the waiting jobs; let the running ones write a checkpoint and end."""

    def leave(self) -> None:
        """Forget the jobs and let them run on."""


def build_launcher(settings: Mapping[str, Any]) -> Launcher:
    """The launcher of a configuration's group; ConfigError for settings out of range."""
    arguments = dict(settings)
    launcher: Launcher = Component("launcher", arguments.pop("_target_"), arguments).build()
    return launcher


def check_processes(processes: Any, sharding: Any) -> None:
    """Check how many processes train a run together, and what they share of it."""
    whole = type(processes) is int and processes >= 1
    require(whole, "launcher.processes_per_run", processes, "must be a whole number of at least 1")
    require_known("launcher.sharding", sharding, SHARDINGS)


def settle(handle: Handle, exit_code: int | None, out_of_memory: bool = False, given_up: str | None = None) -> None:
    """Set how a job ended whose process has exited; records a failure that the process could not.

    `out_of_memory`: the kernel killed it for lack of memory. `given_up`: why the launcher killed it
    for good.
    """
    directory = handle.job.directory
    handle.failure = None
    if directory.result() is not None:
        handle.state = RunState.FINISHED
    elif exit_code == EXIT_NOT_MINE or directory.state() is RunState.RUNNING:
        handle.state = RunState.ELSEWHERE  # also if the fork server died and its forks live on
    elif exit_code == EXIT_INTERRUPTED:
        handle.state = RunState.STOPPED
    else:
        handle.state, handle.failure = RunState.FAILED, directory.failure()
        if handle.failure is None and exit_code is not None:
            handle.failure = _record(handle.job, *_cause(exit_code, out_of_memory, given_up))


def _cause(exit_code: int, out_of_memory: bool, given_up: str | None) -> tuple[Cause, str]:
    if given_up is not None:
        return "stalled", given_up
    if out_of_memory:
        return "out_of_memory", "out of memory: the kernel killed the process, its job or this machine has no more"
    if exit_code == EXIT_DISK_FULL:
        return "error", DISK_FULL
    if exit_code >= 0:
        return "killed", f"the process ended by exit status {exit_code}"
    name = signal.Signals(-exit_code).name
    unsure = name == "SIGKILL" and oom_kills() is None
    return "killed", f"the process ended by {name}" + (" (out of memory, perhaps)" if unsure else "")


def _record(job: Job, cause: Cause, error: str) -> Failure:
    directory = job.directory
    failure = Failure(directory.newest_attempt() or 0, error, str(job.folder / "log.txt"), cause)
    try:
        directory.record_failure(failure)
    except OSError as problem:  # a full disk kills runs without a message
        failure = replace(failure, error=f"{error}; {problem.strerror}")
    return failure
