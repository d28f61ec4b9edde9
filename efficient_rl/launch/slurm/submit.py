"""Submits job arrays with submitit's scripts, backs off, reconciles unknown outcomes."""

import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from efficient_rl.errors import ConfigError, SchedulerError
from efficient_rl.launch.base import Handle
from efficient_rl.launch.slurm import commands
from efficient_rl.launch.slurm.commands import Refused, is_away
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
LIMITS = ("MaxSubmit", "SubmitJobsLimit", "SubmitLimit", "MaxJobCount", "Resource temporarily unavailable")
LIMIT_NOTE = "refused at the site's limit on jobs"
AWAY_NOTE = "unknown whether Slurm has it, which has not answered"
NAME_CHARACTERS = 120
INPUT = "task-{}.pkl"  # what a task is to do, until its job has an id


@dataclass(eq=False)
class SlurmHandle(Handle):
    """A job with its place in the ledger, and Slurm's id once it is submitted."""

    assignment: Assignment = UNASSIGNED
    job_id: str | None = None
    bad_nodes: tuple[str, ...] = ()  # on which its jobs have failed, the run not being to blame
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
                self._back_off(error, len(chunk))
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
            batch = ledger.record_submission(job_name(mine[0].job.sweep), keys, before)
            bad = sorted({node for handle in mine for node in handle.bad_nodes})
            submit(batch, self._request, [[handle.job for handle in task] for task in tasks], bad)
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

    def _back_off(self, error: SchedulerError, runs: int) -> None:
        """Submit smaller arrays at a limit, then wait; ConfigError if waiting cannot help."""
        said, limit = one_line(str(error)), is_limit(str(error))
        if not limit and isinstance(error, Refused):
            doctor = "`python -m efficient_rl.doctor` checks the request"
            raise ConfigError(f"the cluster refused the jobs: {said}; {doctor}")
        if not limit and not is_away(str(error)):
            remedy = "the same command asks Slurm for them before it submits anything"
            raise ConfigError(f"sbatch does not tell whether Slurm has the jobs: {said}; {remedy}")
        if runs > self._request.runs_per_job and limit:
            self._array_size = max(1, -(-runs // self._request.runs_per_job) // 2)
            return
        self._blocked_until = time.monotonic() + BLOCKED_SECONDS
        for handle in self.waiting:
            handle.note = LIMIT_NOTE if limit else AWAY_NOTE
        logger.warning("%d runs wait to be submitted (%s)", len(self.waiting), said)

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


def is_limit(error: str) -> bool:
    """Whether the site takes no more jobs for now."""
    return any(sign.lower() in error.lower() for sign in LIMITS)


def one_line(error: str) -> str:
    """All that sbatch said, without its advice to read its help."""
    lines = filter(None, map(str.strip, error.splitlines()))
    return "; ".join(line for line in lines if not line.startswith("Try "))


def job_name(sweep: str) -> str:
    """The beginning of the job names of a sweep, as squeue shows it in few columns."""
    return re.sub(r"[^\w.=+-]+", "_", sweep)[:NAME_CHARACTERS].strip("-_") or "efficient_rl"


def submit(batch: Batch, request: SlurmRequest, tasks: Sequence[Sequence[Job]], bad_nodes: Sequence[str] = ()) -> None:
    """Submit one array, a task for each group of jobs, to other nodes than the bad ones if it can.

    SchedulerError quotes sbatch. The batch is then rejected if it is certain that Slurm has not
    taken it; else `find` tells what became of it.
    """
    try:
        batch.job = commands.sbatch(write_job(batch, request, tasks, bad_nodes))
    except Refused:
        if bad_nodes:  # there may be no others
            logger.warning("Slurm refuses jobs that avoid %s, so they may get it again", ", ".join(bad_nodes))
            submit(batch, request, tasks)
            return
        batch.rejected = True
        batch.save()
        raise
    except SchedulerError as error:
        if not is_away(str(error)):  # a filter or wrapper of the site spoke, and the controller can be asked
            batch.job = commands.find_job(batch.name)
        if batch.job is None:
            batch.save()  # `find` waits from now on
            raise
    batch.job = batch.job or commands.find_job(batch.name)
    batch.save()
    if batch.job is None:
        raise SchedulerError(f"it printed no job id, and squeue knows no job {batch.name}")
    hand_over(batch)


def write_job(batch: Batch, request: SlurmRequest, tasks: Sequence[Sequence[Job]], bad_nodes: Sequence[str]) -> Path:
    """Write what each task is to do, and the script that starts them; returns the script."""
    from submitit import SlurmExecutor
    from submitit.core.utils import DelayedSubmission

    executor = SlurmExecutor(batch.folder, max_num_timeout=MANY_REQUEUES, python=request.python)
    executor.update_parameters(**request.sbatch_parameters(batch.name, bad_nodes))
    if len(tasks) > 1:
        executor.parameters["map_count"] = len(tasks)
    grace = max(1.0, request.signal_seconds - MARGIN_SECONDS)
    for number, jobs in enumerate(tasks):
        work = NodeJob(list(jobs), request.at_once, grace, request.processes_per_run)
        delayed = DelayedSubmission(work)
        delayed.set_timeout(request.timeout_min, MANY_REQUEUES)
        delayed.dump(batch.folder / INPUT.format(number))
    script = batch.folder / "submission.sh"
    script.write_text(executor._make_submission_file_text(executor._submitit_command_str, ""))
    return script


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
        hand_over(batch)  # Slurm took the jobs and the answer was lost
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


def hand_over(batch: Batch) -> None:
    """Give each task its input: it waits for a file that is named by its job id."""
    from submitit.core.utils import JobPaths

    for number in range(len(batch.tasks)):
        written = batch.folder / INPUT.format(number)
        if written.exists():
            written.rename(JobPaths(batch.folder, batch.job_id(number)).submitted_pickle)
