"""Submits a batch through submitit, and finds out what became of one of which nobody knows whether Slurm took it."""

import time
from collections.abc import Sequence

from efficient_rl.launch.slurm import commands as scheduler
from efficient_rl.launch.slurm.commands import SchedulerError
from efficient_rl.launch.slurm.ledger import Batch
from efficient_rl.launch.slurm.node import NodeJob
from efficient_rl.launch.slurm.settings import SlurmRequest
from efficient_rl.launch.worker import Job

MANY_REQUEUES = 1000  # submitit's own bound on time limits; each start goes on where the last one was
MARGIN_SECONDS = 10
SETTLE_SECONDS = 20.0  # twice what sbatch waits for an answer (MessageTimeout): so long the controller may still take it
AWAY = (
    "Unable to contact",
    "connect failure",
    "did not answer",
    "timed out",
    "temporarily unable",
    "Connection re",
    "Transport endpoint",
    "Zero Bytes",
    "Unexpected message",
    "communication",
)
LIMITS = (
    "MaxSubmit",
    "SubmitJobsLimit",
    "SubmitLimit",
    "QOSMax",
    "AssocMax",
    "Resource temporarily unavailable",
    "MaxJobCount",
)


def is_away(error: str) -> bool:
    """Whether sbatch says that it could not talk to the controller, to the end or at all."""
    return any(sign.lower() in error.lower() for sign in AWAY)


def is_limit(error: str) -> bool:
    """Whether the site takes no more jobs for now."""
    return any(sign.lower() in error.lower() for sign in LIMITS)


def is_refusal(error: str) -> bool:
    """Whether sbatch says that the controller has refused the request; after anything else it may have taken it."""
    return "error:" in error and not is_away(error)


def submit(batch: Batch, request: SlurmRequest, tasks: Sequence[Sequence[Job]]) -> None:
    """Submit one array, a task for each group of jobs; raises SchedulerError in sbatch's words where that failed.

    A batch that was refused is gone; one of which that is not certain stays, and `find` says what
    became of it.
    """
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor = SlurmExecutor(batch.folder, max_num_timeout=MANY_REQUEUES, python=request.python)
    try:
        executor.update_parameters(**request.sbatch_parameters(batch.name))
        grace = max(1.0, request.signal_seconds - MARGIN_SECONDS)
        with executor.batch():
            jobs = [
                executor.submit(NodeJob(list(task), request.at_once, grace, request.processes_per_run)) for task in tasks
            ]
    except (FailedJobError, FailedSubmissionError) as error:
        words = str(error).strip() or "sbatch ended without a word"
        batch.gone = isinstance(error, FailedJobError) and is_refusal(words)
        batch.save()
        raise SchedulerError(words) from error
    batch.job = jobs[0].job_id.split("_")[0]
    batch.save()


def find(batch: Batch) -> bool:
    """Whether Slurm has, or had, the batch; asked by name where nobody has noted its id. Call it under the lock.

    Raises SchedulerError while that cannot be told: without an answer, or so soon that the
    controller may still take it.
    """
    if batch.job is None and not batch.gone:
        batch.load()  # it may have been noted meanwhile
    if batch.gone or batch.job is not None:
        return not batch.gone
    batch.job = scheduler.find_job(batch.name)
    if batch.job is not None:
        _hand_over(batch)
    elif time.time() - batch.saved_at() < SETTLE_SECONDS:
        raise SchedulerError(f"sbatch did not answer whether Slurm has the jobs {batch.name}")
    else:
        batch.gone = True
    batch.save()
    return not batch.gone


def _hand_over(batch: Batch) -> None:
    """Put what each task is to do to where it looks for it, as submitit does once it knows the id."""
    from submitit.core.utils import DelayedSubmission, JobPaths

    for path in batch.folder.glob("*.pkl"):
        if path.name.endswith(("_submitted.pkl", "_result.pkl")):
            continue
        keys = [job.key for job in DelayedSubmission.load(path).function.jobs]
        path.rename(JobPaths(batch.folder, batch.job_id(batch.tasks.index(keys))).submitted_pickle)
