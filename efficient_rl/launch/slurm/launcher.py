"""Runs jobs on a Slurm cluster as arrays, through submitit; finds them again, and restarts what the cluster took away."""

import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from efficient_rl.errors import ConfigError
from efficient_rl.launch.handle import Handle
from efficient_rl.launch.slurm import commands as scheduler
from efficient_rl.launch.slurm import submit as submission
from efficient_rl.launch.slurm.commands import JobState, SchedulerError
from efficient_rl.launch.slurm.ledger import Assignment, Ledger
from efficient_rl.launch.slurm.retries import Ending, ending, micro_batches_after
from efficient_rl.launch.slurm.settings import SlurmRequest
from efficient_rl.launch.worker import Job
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.result import Failure

logger = logging.getLogger(__name__)
SACCT_SECONDS = 5.0
SQUEUE_SECONDS = 30.0
BLOCKED_SECONDS = 30.0


@dataclass(eq=False)
class SlurmHandle(Handle):
    """A job with its place in the ledger, and Slurm's id once it is submitted."""

    assignment: Assignment | None = None
    job_id: str | None = None
    over_since: float | None = None  # when Slurm first said that the job had ended


@dataclass
class SlurmLauncher(SlurmRequest):
    """Submits runs as job arrays, watches them and finds them again."""

    detaches = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._waiting: list[SlurmHandle] = []
        self._live: list[SlurmHandle] = []
        self._ended: list[Handle] = []
        self._blocked_until = 0.0
        self._over: set[tuple[str, int]] = set()  # batches and tasks that have ended: their runs may be submitted again
        self._chunk: int | None = None
        self._states: dict[str, JobState] = {}
        self._asked_states = self._asked_controller = self._looked = 0.0

    @property
    def slots(self) -> int:
        """Runs that the cluster is given at the same time."""
        return self.array_parallelism

    # What the watcher calls

    def launch(self, jobs: Sequence[Job]) -> list[Handle]:
        """Submit the jobs as far as the site's limits allow; the rest follows as jobs end, whenever `poll` is called."""
        if jobs:
            self.check_python(_ledger(jobs[0]).outputs)
        handles = [SlurmHandle(job, assignment=_ledger(job).assignment(job.key)) for job in jobs]
        for handle in handles:  # a new command forgives earlier failures
            if handle.assignment is not None:
                handle.job = self._cut(handle.job, handle.assignment)
                handle.assignment = replace(handle.assignment, tries=(), micro_batches=handle.job.micro_batches)
        self._waiting.extend(handles)
        self._submit_waiting()
        return list(handles)

    def attach(self, jobs: Sequence[Job]) -> list[Handle]:
        """Handles of the jobs that an earlier command submitted, and of those whose cluster job ended without its run."""
        handles = self._submitted(jobs)
        states = scheduler.job_states([handle.job_id for handle in handles if handle.job_id])
        attached: list[Handle] = []
        for handle in handles:
            state = states.get(handle.job_id or "")
            if state is not None and not state.over:
                self._live.append(handle)
                attached.append(handle)
                continue
            self._note_over(handle)
            if _owner_job(RunDirectory(Path(handle.job.folder))) == handle.job_id:
                newest = RunDirectory(Path(handle.job.folder)).newest_attempt() or 0
                job = replace(handle.job, ended_attempts=newest)
                fresh = SlurmHandle(job, assignment=replace(handle.assignment, tries=()))  # type: ignore[type-var]
                self._waiting.append(fresh)
                attached.append(fresh)
        self._states |= states
        return attached

    def _submitted(self, jobs: Sequence[Job]) -> list[SlurmHandle]:
        """The handles of those runs that Slurm has, or had; not of those of which that cannot be told yet."""
        handles: list[SlurmHandle] = []
        untold: set[str] = set()
        ledger = _ledger(jobs[0]) if jobs else None
        for job in jobs:
            assert ledger is not None
            assignment = ledger.assignment(job.key)
            batch = ledger.batch(assignment.batch) if assignment else None
            if assignment is None or batch is None or batch.name in untold:
                continue
            try:
                with _submitting(ledger) if batch.job is None and not batch.gone else nullcontext():
                    there = submission.find(batch)
            except SchedulerError as error:  # `_submit` asks again before it submits anything
                logger.warning("%s", error)
                untold.add(batch.name)
                continue
            if there:
                cut = self._cut(job, assignment)
                assignment = replace(assignment, micro_batches=cut.micro_batches)
                handles.append(SlurmHandle(cut, "queued", assignment=assignment, job_id=batch.job_id(assignment.task)))
        return handles

    def _cut(self, job: Job, assignment: Assignment) -> Job:
        """The job with the batch cut as a try after running out of memory cut it, where such tries are still wanted."""
        return replace(job, micro_batches=assignment.micro_batches if self.oom_retry else 1)

    def poll(self, timeout: float = 0) -> list[Handle]:
        """Submit what can be submitted, look at the run directories, and now and then ask Slurm; what ended since."""
        self._submit_waiting()
        time.sleep(timeout)
        now = time.monotonic()
        if now - self._looked >= max(1.0, len(self._live) / 500):
            self._looked = now
            self._ask_states()
            for handle in list(self._live):
                self._look(handle)
        ended, self._ended = self._ended, []
        return ended

    def requeue(self, handle: Handle, why: str) -> bool:
        """Have Slurm kill and restart the job of a run that does not go on, at most `retries` times in all; then fail it."""
        assert isinstance(handle, SlurmHandle)
        assert handle.assignment is not None
        assert handle.job_id is not None
        ledger, again = _ledger(handle.job), len(handle.assignment.tries) < self.retries
        if not again:
            self._fail(handle, Ending("stalled", why))
        try:
            if again or ledger.has_unfinished_mates(handle.job.key):  # on its restart a job skips what has failed in it
                scheduler.requeue(handle.job_id)
            else:
                scheduler.cancel([handle.job_id])
        except SchedulerError as error:
            logger.warning("job %s of run %s could not be ended: %s", handle.job_id, handle.job.key[:8], error)
            return False
        if again:
            handle.assignment = handle.assignment.again("stalled", handle.assignment.micro_batches)
            ledger.assign(handle.job.key, handle.assignment)
        return again

    def cancel(self, handle: Handle) -> None:
        """Forget the run; its job is cancelled, which lets it write a checkpoint, unless it does other runs too."""
        assert isinstance(handle, SlurmHandle)
        if handle in self._waiting:
            self._waiting.remove(handle)
        elif handle in self._live:
            self._live.remove(handle)
            if handle.job_id and all(other.job_id != handle.job_id for other in self._live):
                scheduler.cancel([handle.job_id])
        else:
            return
        handle.stage = "stopped"
        self._ended.append(handle)

    def stop(self) -> None:
        """Cancel every job of this launcher."""
        self._waiting.clear()
        scheduler.cancel(sorted({handle.job_id for handle in self._live if handle.job_id}))

    def leave(self) -> None:
        """Let the jobs go on; the same command finds them again."""
        self._waiting.clear()
        self._live.clear()

    # Submission

    def _submit_waiting(self) -> None:
        while self._waiting and time.monotonic() >= self._blocked_until:
            size = self._array_size() * self.runs_per_job
            chunk, self._waiting = self._waiting[:size], self._waiting[size:]
            try:
                self._live.extend(self._submit(chunk))
            except SchedulerError as error:
                self._waiting = chunk + self._waiting
                self._give_way(str(error), len(chunk))

    def _array_size(self) -> int:
        if self._chunk is None:
            self._chunk = self.max_array_size or scheduler.max_array_size()
        return self._chunk

    def _give_way(self, error: str, runs: int) -> None:
        """After a refusal: smaller arrays where a limit was hit, then waiting; anything else is an error in the request."""
        last = error.strip().splitlines()[-1]
        away = submission.is_away(error)
        if not away and not submission.is_limit(error):
            raise ConfigError(f"the cluster refused the jobs: {last}; `python -m efficient_rl.doctor` checks the request")
        if runs > self.runs_per_job and not away:
            self._chunk = max(1, -(-runs // self.runs_per_job) // 2)
            return
        self._blocked_until = time.monotonic() + BLOCKED_SECONDS
        for handle in self._waiting:
            handle.note = "waits for the controller" if away else "waits for the site's limit on jobs"
        logger.warning("%d runs wait to be submitted (%s)", len(self._waiting), last)

    def _submit(self, handles: Sequence[SlurmHandle]) -> list[SlurmHandle]:
        ledger = _ledger(handles[0].job)
        with _submitting(ledger):
            mine = [handle for handle in handles if not self._taken(handle, ledger)]
            tasks = [mine[start : start + self.runs_per_job] for start in range(0, len(mine), self.runs_per_job)]
            if tasks:
                before = {handle.job.key: handle.assignment for handle in mine if handle.assignment is not None}
                batch = ledger.intend("efficient_rl", [[handle.job.key for handle in task] for task in tasks], before)
                submission.submit(batch, self, [[handle.job for handle in task] for task in tasks])
                for handle in mine:
                    handle.assignment = ledger.assignment(handle.job.key)
                    assert handle.assignment is not None
                    handle.job_id, handle.stage, handle.over_since = batch.job_id(handle.assignment.task), "queued", None
                    handle.note = f"job {handle.job_id}"
        return list(handles)

    def _taken(self, handle: SlurmHandle, ledger: Ledger) -> bool:
        """Whether Slurm has the run already, of another command, or after a lost answer: its job is this handle's."""
        newest = ledger.assignment(handle.job.key)
        batch = ledger.batch(newest.batch) if newest else None
        if newest is None or batch is None:
            return False
        if (newest.batch, newest.task) in self._over or not submission.find(batch):
            return False
        handle.assignment, handle.job_id, handle.stage = newest, batch.job_id(newest.task), "queued"
        handle.note, handle.over_since = f"job {handle.job_id}", None
        return True

    # Watching

    def _ask_states(self) -> None:
        now = time.monotonic()
        if now - self._asked_states < SACCT_SECONDS or not self._live:
            return
        self._asked_states = now
        ids = {handle.job_id for handle in self._live if handle.job_id}
        try:
            known = scheduler.accounted(ids)
            self._states |= known  # what only the controller told stays until it is asked again
            if len(known) < len(ids) and now - self._asked_controller >= SQUEUE_SECONDS:
                self._asked_controller = now
                self._states = scheduler.job_states(ids)
        except SchedulerError as error:  # a controller that restarts
            logger.warning("Slurm does not answer (%s); the jobs go on, asking again", error)
            self._states = {}

    def _look(self, handle: SlurmHandle) -> None:
        record = RunDirectory(Path(handle.job.folder))
        state = self._states.get(handle.job_id or "")
        if state is None or not state.over:
            handle.over_since = None
        elif handle.over_since is None:
            handle.over_since = time.monotonic()
            self._note_over(handle)
        started = _owner_job(record) == handle.job_id
        forced = (
            handle.job.redo_through_attempt is not None and (record.newest_attempt() or 0) <= handle.job.redo_through_attempt
        )
        if record.result() is not None and not forced:
            self._end(handle, "finished")
        elif started and (failure := record.failure()) is not None:
            self._retry_or_fail(handle, Ending(failure.cause, failure.error), record)
        elif state is not None and handle.over_since is not None and time.monotonic() - handle.over_since >= SACCT_SECONDS:
            if not started and record.state() == "running":
                self._end(handle, "elsewhere")
            else:
                self._retry_or_fail(handle, ending(state, started, self._error_text(handle), self.timeout_min), record)
        else:
            handle.stage = "running" if started and state is not None and state.running else "queued"
            handle.note = f"job {handle.job_id}" + (f" on {state.node}" if state is not None and state.running else "")

    def _retry_or_fail(self, handle: SlurmHandle, why: Ending, record: RunDirectory) -> None:
        assert handle.assignment is not None
        tries = handle.assignment.tries
        parts = micro_batches_after(
            why.cause, tries, handle.assignment.micro_batches, handle.job.config, self.oom_retry, self.processes_per_run
        )
        if why.may_retry and len(tries) < self.retries:
            parts = handle.assignment.micro_batches
        if parts is None:
            self._fail(handle, why)
            return
        logger.warning("run %s starts again: %s", handle.job.key[:8], why.words)
        self._note_over(handle)
        self._live.remove(handle)
        handle.assignment = handle.assignment.again(why.cause, parts)
        handle.job = replace(handle.job, ended_attempts=record.newest_attempt() or 0, micro_batches=parts)
        handle.stage, handle.job_id, handle.note = "waiting", None, f"again after {why.words}"
        self._waiting.append(handle)

    def _fail(self, handle: SlurmHandle, why: Ending) -> None:
        """Note in the record why the run has failed, after how many tries, and where to read more."""
        assert handle.assignment is not None
        record, tries = RunDirectory(Path(handle.job.folder)), len(handle.assignment.tries)
        words = f"{why.words} (after {tries} more tries)" if tries else why.words
        log = _ledger(handle.job).log(handle.job.key, handle.assignment, _owner_job(record) == handle.job_id)
        failure = Failure(record.newest_attempt() or 0, words, log, why.cause)
        try:
            record.record_failure(failure)
        except OSError as error:  # a full disk; the watcher still says it
            logger.warning("could not note why run %s failed: %s", handle.job.key, error)
        self._end(handle, "failed", failure)

    def _note_over(self, handle: SlurmHandle) -> None:
        assert handle.assignment is not None
        self._over.add((handle.assignment.batch, handle.assignment.task))

    def _end(self, handle: SlurmHandle, stage: Any, failure: Failure | None = None) -> None:
        handle.stage, handle.failure = stage, failure
        self._live.remove(handle)
        self._ended.append(handle)

    def _error_text(self, handle: SlurmHandle) -> str:
        """The end of what the job wrote to its error stream."""
        return _ledger(handle.job).error_text(handle.assignment)


def _ledger(job: Job) -> Ledger:
    return Ledger(Path(job.folder).parents[1])


def _submitting(ledger: Ledger) -> FileLock:
    """Held while something is submitted: of two commands at once, the second finds the jobs of the first."""
    ledger.jobs.mkdir(parents=True, exist_ok=True)
    return FileLock(ledger.jobs / "submit.lock")


def _owner_job(record: RunDirectory) -> str | None:
    owner = record.owner()
    return owner.job_id if owner else None
