"""What a launcher hands back for a job: where it stands, and how it ended."""

import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from efficient_rl.launch.cgroups import oom_kills
from efficient_rl.launch.worker import EXIT_INTERRUPTED, EXIT_NOT_MINE, Job
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.result import Cause, Failure

Stage = Literal["waiting", "queued", "running", "finished", "failed", "stopped", "elsewhere"]


@dataclass(eq=False)
class Handle:
    """One job of a launcher. `note` says where it runs, or why it waits; `failure` why it failed.

    Queued is with a cluster's scheduler; stopped wrote a checkpoint and can go on; elsewhere
    another process has the run.
    """

    job: Job
    stage: Stage = "waiting"
    note: str = ""
    failure: Failure | None = None

    @property
    def ended(self) -> bool:
        """Whether this launcher has nothing more to do for the job."""
        return self.stage in ("finished", "failed", "stopped", "elsewhere")


def settle(handle: Handle, exit_code: int | None, out_of_memory: bool = False, given_up: str | None = None) -> None:
    """Note how a job ended whose process ended with that code; a death without a word gets a failure note in the record.

    `out_of_memory`: the kernel killed it for lack of memory. `given_up`: why the launcher killed it
    for good.
    """
    record = RunDirectory(Path(handle.job.folder))
    handle.failure = None
    if record.result() is not None:
        handle.stage = "finished"
    elif exit_code == EXIT_NOT_MINE or record.state() == "running":
        handle.stage = "elsewhere"  # also where only the fork server died, and took the news of its forks with it
    elif exit_code == EXIT_INTERRUPTED:
        handle.stage = "stopped"
    else:
        handle.stage, handle.failure = "failed", record.failure()
        if handle.failure is None and exit_code is not None:
            handle.failure = _noted(record, *_death(exit_code, out_of_memory, given_up))


def _death(exit_code: int, out_of_memory: bool, given_up: str | None) -> tuple[Cause, str]:
    if given_up is not None:
        return "stalled", given_up
    if out_of_memory:
        return "out_of_memory", "out of memory: the kernel killed the process, its job or this machine has no more"
    how = _signal_name(exit_code) if exit_code < 0 else f"exit status {exit_code}"
    return "killed", f"the process ended by {how}"


def _noted(record: RunDirectory, cause: Cause, error: str) -> Failure:
    failure = Failure(record.newest_attempt() or 0, error, str(record.folder / "log.txt"), cause)
    try:
        record.record_failure(failure)
    except OSError as problem:  # a full disk ends runs without a word
        failure = replace(failure, error=f"{error}; {problem.strerror}")
    return failure


def _signal_name(code: int) -> str:
    name = signal.Signals(-code).name
    return f"{name} (out of memory, perhaps)" if name == "SIGKILL" and oom_kills() is None else name
