"""Submits job arrays through submitit, backs off, reconciles unknown outcomes."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from filelock import FileLock, Timeout

from efficient_rl.errors import ConfigError, SchedulerError
from efficient_rl.launch.base import Handle
from efficient_rl.launch.slurm import commands
from efficient_rl.launch.slurm.ledger import UNASSIGNED, Assignment, Batch, Ledger
from efficient_rl.launch.slurm.node import NodeJob
from efficient_rl.launch.slurm.settings import SlurmRequest
from efficient_rl.launch.worker import Job
from efficient_rl.rundir.state import RunState

logger = logging.getLogger(__name__)
MANY_REQUEUES = 1000  # submitit's own bound on time limits; each start resumes where the last one was
MARGIN_SECONDS = 10
SETTLE_SECONDS = 20.0  # twice what sbatch waits for an answer (MessageTimeout)
BLOCKED_SECONDS = 30.0
AWAY = (
    *("Unable to contact", "connect failure", "did not answer", "timed out", "temporarily unable"),
    *("Connection re", "Transport endpoint", "Zero Bytes", "Unexpected message", "communication"),
)
LIMITS = (
    *("MaxSubmit", "SubmitJobsLimit", "SubmitLimit", "QOSMax", "AssocMax", "MaxJobCount"),
    "Resource temporarily unavailable",
)


@dataclass(eq=False)
class SlurmHandle(Handle):
    """A job with its place in the ledger, and Slurm's id once it is submitted."""

    assignment: Assignment = UNASSIGNED
    job_id: str | None = None
    ended_since: float | None = None  # when Slurm first said that the job had ended

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.job.folder.parents[1])

    def queue(self, batch: Batch, assignment: Assignment) -> None:
        """Note that Slurm has the job."""
        self.assignment, self.job_id = assignment, batch.job_id(assignment.task)
        self.state, self.note, self.ended_since = RunState.QUEUED, f"job {self.job_id}", None


class SubmissionQueue:
    """The runs that wait to be submitted. `ended`: tasks whose runs may be submitted again."""

    def __init__(self, request: SlurmRequest) -> None:
        self.waiting: list[SlurmHandle] = []
        self.ended: set[tuple[str, int]] = set()
        self._request = request
        self._blocked_until = 0.0
        self._array_size: int | None = None

    def submit_waiting(self) -> list[SlurmHandle]:
        """Submit as much as the site takes; the handles of what Slurm has now."""
        submitted: list[SlurmHandle] = []
        while self.waiting and time.monotonic() >= self._blocked_until:
            if self._array_size is None:
                self._array_size = self._request.max_array_size or commands.max_array_size()
            chunk = self.waiting[: self._array_size * self._request.runs_per_job]
            try:
                self.submit(chunk)
            except SchedulerError as error:
                self._back_off(str(error), len(chunk))
            else:
                del self.waiting[: len(chunk)]
                submitted += chunk
        return submitted

    def submit(self, handles: Sequence[SlurmHandle]) -> None:
        """Submit the runs as one array, but not those that Slurm has already."""
        ledger, a_job = handles[0].ledger, self._request.runs_per_job
        # Two commands may submit the same runs at the same time: under the lock, the second finds
        # the jobs of the first. The record is written before sbatch is called, so that a command
        # killed in between leaves a name by which Slurm can be asked.
        with submission_lock(ledger):
            mine = [handle for handle in handles if not self._already_submitted(handle, ledger)]
            if not mine:
                return
            tasks = [mine[start : start + a_job] for start in range(0, len(mine), a_job)]
            keys = [[handle.job.key for handle in task] for task in tasks]
            before = {handle.job.key: handle.assignment for handle in mine}
            batch = ledger.record_submission("efficient_rl", keys, before)
            submit(batch, self._request, [[handle.job for handle in task] for task in tasks])
        for index, task in enumerate(tasks):
            for handle in task:
                handle.queue(batch, replace(handle.assignment, batch=batch.name, task=index))

    def submitted(self, jobs: Sequence[Job]) -> list[SlurmHandle]:
        """The handles of those runs that Slurm has, or had."""
        handles: list[SlurmHandle] = []
        unknown: set[str] = set()
        ledger = Ledger(jobs[0].folder.parents[1]) if jobs else None
        for job in jobs:
            assert ledger is not None
            found = ledger.task(job.key)
            if found is None or found[0].name in unknown:
                continue
            batch, assignment = found
            try:
                known = find_locked(ledger, batch)
            except SchedulerError as error:  # `submit` asks again before it submits anything
                logger.warning("%s", error)
                unknown.add(batch.name)
                continue
            if known:
                cut = self.cut(job, assignment)
                handles.append(SlurmHandle(cut))
                handles[-1].queue(batch, replace(assignment, micro_batches=cut.options.micro_batches))
        return handles

    def cut(self, job: Job, assignment: Assignment | None) -> Job:
        """The job, cut as the last retry after running out of memory cut it, if still wanted."""
        wanted = assignment is not None and self._request.oom_retry
        return job.cut(assignment.micro_batches if assignment and wanted else 1)

    def _back_off(self, error: str, runs: int) -> None:
        """Submit smaller arrays at a limit, then wait; ConfigError if the request is wrong."""
        last = error.strip().splitlines()[-1]
        away = is_away(error)
        if not away and not is_limit(error):
            doctor = "`python -m efficient_rl.doctor` checks the request"
            raise ConfigError(f"the cluster refused the jobs: {last}; {doctor}")
        if runs > self._request.runs_per_job and not away:
            self._array_size = max(1, -(-runs // self._request.runs_per_job) // 2)
            return
        self._blocked_until = time.monotonic() + BLOCKED_SECONDS
        for handle in self.waiting:
            handle.note = "waits for the controller" if away else "waits for the site's limit on jobs"
        logger.warning("%d runs wait to be submitted (%s)", len(self.waiting), last)

    def _already_submitted(self, handle: SlurmHandle, ledger: Ledger) -> bool:
        """Whether Slurm has the run, from another command or after a lost answer."""
        found = ledger.task(handle.job.key)
        if found is None:
            return False
        batch, newest = found
        if (newest.batch, newest.task) in self.ended or not find(batch):
            return False
        handle.queue(batch, newest)
        return True


def submission_lock(ledger: Ledger) -> FileLock:
    """Held while something is submitted, or a submission with an unknown outcome is reconciled."""
    ledger.jobs.mkdir(parents=True, exist_ok=True)
    return FileLock(ledger.jobs / "submit.lock")


def is_away(error: str) -> bool:
    """Whether sbatch could not talk to the controller, or lost the connection."""
    return any(sign.lower() in error.lower() for sign in AWAY)


def is_limit(error: str) -> bool:
    """Whether the site takes no more jobs for now."""
    return any(sign.lower() in error.lower() for sign in LIMITS)


def is_refusal(error: str) -> bool:
    """Whether the controller has refused for certain; else it may have taken the jobs."""
    return "error:" in error and not is_away(error)


def submit(batch: Batch, request: SlurmRequest, tasks: Sequence[Sequence[Job]]) -> None:
    """Submit one array, a task for each group of jobs; SchedulerError quotes sbatch.

    The batch is then rejected if the controller refused it; else `find` tells what became of it.
    """
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor = SlurmExecutor(batch.folder, max_num_timeout=MANY_REQUEUES, python=request.python)
    grace = max(1.0, request.signal_seconds - MARGIN_SECONDS)
    try:
        executor.update_parameters(**request.sbatch_parameters(batch.name))
        with executor.batch():
            jobs = []
            for task in tasks:
                work = NodeJob(list(task), request.at_once, grace, request.processes_per_run)
                jobs.append(executor.submit(work))
    except (FailedJobError, FailedSubmissionError) as error:
        words = str(error).strip() or "sbatch failed without a message"
        batch.rejected = isinstance(error, FailedJobError) and is_refusal(words)
        batch.save()
        raise SchedulerError(words) from error
    batch.job = jobs[0].job_id.split("_")[0]
    batch.save()


def find(batch: Batch) -> bool:
    """Whether Slurm has, or had, the batch; asks by name if no id was recorded. Hold the lock.

    Raises SchedulerError while that is unknown: Slurm does not answer, or sbatch was called so
    recently that the controller may still take the jobs.
    """
    if not batch.settled:
        batch.load()  # another process may have settled it
    if batch.settled:
        return not batch.rejected
    batch.job = commands.find_job(batch.name)
    if batch.job is not None:
        # Slurm took the jobs and the answer was lost: their tasks wait for the pickles, which
        # submitit renames only once it knows the id.
        _hand_over(batch)
    elif time.time() - batch.saved_at() < SETTLE_SECONDS:
        raise SchedulerError(f"sbatch did not answer whether Slurm has the jobs {batch.name}")
    else:
        # No answer can arrive any more, so this batch will never run.
        batch.rejected = True
    batch.save()
    return not batch.rejected


def find_locked(ledger: Ledger, batch: Batch, seconds: float = -1) -> bool:
    """`find` under the lock; SchedulerError if another holds it for `seconds` (-1: ever)."""
    if batch.settled:
        return not batch.rejected
    try:
        with submission_lock(ledger).acquire(timeout=seconds):
            return find(batch)
    except Timeout as error:
        raise SchedulerError(f"another command is submitting jobs: {batch.name}") from error


def _hand_over(batch: Batch) -> None:
    """Write each task's input to the path that it reads, as submitit does with a known id."""
    from submitit.core.utils import DelayedSubmission, JobPaths

    for path in batch.folder.glob("*.pkl"):
        if not path.name.endswith(("_submitted.pkl", "_result.pkl")):
            keys = [job.key for job in DelayedSubmission.load(path).function.jobs]
            task = batch.job_id(batch.tasks.index(keys))
            path.rename(JobPaths(batch.folder, task).submitted_pickle)
