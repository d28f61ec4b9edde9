"""Classifies the state of a run, from its directory and its job in Slurm."""

import time
from dataclasses import dataclass
from typing import Self

from efficient_rl.launch.slurm.commands import VANISHED, JobState
from efficient_rl.launch.slurm.retries import RETRIED, ending
from efficient_rl.rundir.directory import HEARTBEAT_SECONDS, RunDirectory
from efficient_rl.rundir.process import Owner
from efficient_rl.rundir.result import Failure
from efficient_rl.rundir.state import RunState

FRESH_SECONDS = 60.0  # a heartbeat this young outweighs an accounting that lags behind


@dataclass(frozen=True)
class RunView:
    """What a run directory says at one moment; `state` is waiting, running, failed or finished."""

    state: RunState
    owner: Owner | None
    failure: Failure | None
    attempt: int
    quiet_seconds: float
    log: str

    @classmethod
    def read(cls, directory: RunDirectory) -> Self:
        state, heartbeat = directory.state(), directory.last_heartbeat()
        failure = directory.failure() if state is RunState.FAILED else None
        quiet = 0.0 if heartbeat is None else time.time() - heartbeat
        newest, log = directory.newest_attempt() or 0, str(directory.folder / "log.txt")
        return cls(state, directory.owner(), failure, newest, quiet, log)

    @property
    def where(self) -> str:
        """The node of the newest attempt, "" where none is known."""
        return self.owner.node if self.owner else ""

    def is_in(self, job: str | None) -> bool:
        """Whether the newest attempt belongs to that Slurm job."""
        return self.owner is not None and self.owner.job_id == job


@dataclass(frozen=True)
class JobView:
    """What is known of the Slurm job of a run. `state` None: Slurm does not answer.

    `shared`: other runs are in the job too. `error_text` and `error_log`: the end of its error
    streams and the path of one, needed once the job has ended; so is `timeout_min`, its time limit.
    """

    id: str
    state: JobState | None
    shared: bool = False
    error_text: str = ""
    error_log: str | None = None
    timeout_min: int | None = None


@dataclass(frozen=True)
class Verdict:
    """How a run is doing. A waiting run has a `failure` if its job ended without a result."""

    state: RunState
    note: str
    failure: Failure | None = None


def classify(run: RunView, job: JobView | None = None) -> Verdict:
    """How a run is doing, where it is or why it waits; `job`: the one it was last assigned to."""
    in_job = job is not None and run.is_in(job.id)
    if run.state is RunState.RUNNING and not in_job:
        state = RunState.RUNNING if job is None else RunState.ELSEWHERE
        return Verdict(state, run.where + _quiet(run))
    if job is None:
        return Verdict(run.state, run.where, run.failure)
    note = f"job {job.id}"
    # A failure of an earlier job counts unless this one may still do the run.
    settled = in_job or job.state is None or job.state.ended
    if run.state is RunState.FINISHED or (run.state is RunState.FAILED and settled):
        return Verdict(run.state, note, run.failure)
    if job.state is None:
        return Verdict(run.state, note)
    if job.state.ended:
        return _ended(run, job, job.state, in_job)
    if job.state.suspended:  # not running, so that nobody takes it for stalled
        return Verdict(RunState.QUEUED, f"{note} (suspended)")
    alive = run.state is RunState.RUNNING and run.quiet_seconds < FRESH_SECONDS
    if in_job and (job.state.running or alive):
        return Verdict(RunState.RUNNING, f"{note} on {run.where}{_quiet(run)}")
    waits = job.state.reason
    if job.state.running:
        waits = "behind others of its job" if job.shared else "starting"
    return Verdict(RunState.QUEUED, f"{note} ({waits})" if waits else note)


def _ended(run: RunView, job: JobView, state: JobState, started: bool) -> Verdict:
    """The verdict of a job that ended without a recorded cause."""
    cause, words = ending(state, started, job.error_text, job.timeout_min)
    log = job.error_log if job.error_log and not started else run.log
    failure = Failure(run.attempt, words, log, cause)
    if cause in RETRIED and (cause != "not_started" or state.word == VANISHED):
        return Verdict(RunState.WAITING, f"job {job.id}, {words}", failure)
    return Verdict(RunState.FAILED, f"job {job.id}", failure)


def _quiet(run: RunView) -> str:
    """How long a run that should be running has written nothing, where that is suspicious."""
    if run.quiet_seconds <= HEARTBEAT_SECONDS:
        return ""
    return f", no heartbeat for {run.quiet_seconds / 60:.0f} min"
