"""Launches runs on a Slurm cluster: submits, polls, reattaches, retries after cluster failures."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from efficient_rl.errors import SchedulerError
from efficient_rl.launch.base import Handle
from efficient_rl.launch.slurm import commands, waiting
from efficient_rl.launch.slurm.classify import JobView, RunView, classify
from efficient_rl.launch.slurm.commands import JobState
from efficient_rl.launch.slurm.retries import NODE_CAUSES, RETRIED, micro_batches_after
from efficient_rl.launch.slurm.settings import SlurmRequest
from efficient_rl.launch.slurm.submit import SlurmHandle, SubmissionQueue
from efficient_rl.launch.worker import Job
from efficient_rl.rundir.result import Failure
from efficient_rl.rundir.state import RunState

logger = logging.getLogger(__name__)
SACCT_SECONDS = 5.0
SQUEUE_SECONDS = 30.0
COMPLETING_SECONDS = 60.0  # more than Slurm's KillWait, within which a cancelled run writes its checkpoint
LOOKS_A_SECOND = 500  # run directories that a poll reads, so that thousands of runs do not load a file server


@dataclass
class SlurmLauncher(SlurmRequest):
    """Submits runs as job arrays, watches them and finds them again."""

    detaches = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._queue = SubmissionQueue(self)
        self._live: list[SlurmHandle] = []
        self._ended: list[Handle] = []
        self._states: dict[str, JobState] = {}
        self._told: set[str] = set()  # reasons for which jobs wait
        self._asked_sacct = self._asked_squeue = self._looked = 0.0

    @property
    def slots(self) -> int:
        """Runs that the cluster is given at the same time."""
        return self.array_parallelism

    def launch(self, jobs: Sequence[Job]) -> list[Handle]:
        """Submit the jobs as far as the site's limits allow; `poll` submits the rest."""
        handles = [SlurmHandle(job) for job in jobs]
        if handles:
            self.check_python(handles[0].ledger.outputs)
        for handle in handles:  # a new command forgives earlier failures
            earlier = handle.ledger.assignment(handle.job.key)
            if earlier is not None:
                handle.job = self._queue.cut(handle.job, earlier)
                parts = handle.job.options.micro_batches
                handle.assignment = replace(earlier, tries=(), micro_batches=parts)
        self._queue.waiting.extend(handles)
        self._live.extend(self._queue.submit_waiting())
        return list(handles)

    def attach(self, jobs: Sequence[Job]) -> list[Handle]:
        """Handles of what an earlier command submitted, and of runs that their job left undone."""
        commands.require_slurm()
        handles = self._queue.submitted(jobs)
        states = _states_at_rest([handle.job_id for handle in handles if handle.job_id])
        self._states |= states
        attached: list[Handle] = []
        for handle in handles:
            state = states.get(handle.job_id or "")
            if state is not None and not state.ended:
                self._live.append(handle)
                attached.append(handle)
                continue
            self._mark_ended(handle)
            run = RunView.read(handle.job.directory)
            if run.is_in(handle.job_id):
                job = replace(handle.job, ended_attempts=run.attempt)
                fresh = SlurmHandle(job, assignment=replace(handle.assignment, tries=()))
                self._queue.waiting.append(fresh)
                attached.append(fresh)
        return attached

    def poll(self, timeout: float = 0) -> list[Handle]:
        """Submit waiting runs, read directories, query Slurm if due; the handles that ended."""
        self._live.extend(self._queue.submit_waiting())
        time.sleep(timeout)
        now = time.monotonic()
        if now - self._looked >= max(1.0, len(self._live) / LOOKS_A_SECOND):
            self._looked = now
            self._ask_states()
            for handle in list(self._live):
                self._look(handle)
        ended, self._ended = self._ended, []
        return ended

    def requeue(self, handle: Handle, why: str) -> bool:
        """Requeue the job of a stalled run, at most `Job.retries` times; then fail it."""
        assert isinstance(handle, SlurmHandle)
        assert handle.job_id is not None
        ledger, again = handle.ledger, len(handle.assignment.tries) < handle.job.retries
        if not again:
            run = RunView.read(handle.job.directory)
            self._fail(handle, Failure(run.attempt, why, run.log, "stalled"))
        try:
            # A restarted job skips the runs that failed in it, so the others of the job resume.
            if again or ledger.has_unfinished_mates(handle.job.key):
                commands.requeue(handle.job_id)
            else:
                commands.cancel([handle.job_id])
        except SchedulerError as error:
            logger.warning("job %s of run %s could not be ended: %s", handle.job_id, handle.job.key[:8], error)
            return False
        if again:
            handle.assignment = handle.assignment.again("stalled", handle.assignment.micro_batches)
            ledger.assign(handle.job.key, handle.assignment)
        return again

    def cancel(self, handle: Handle) -> None:
        """Forget the run, and cancel its job unless other runs are in it too."""
        assert isinstance(handle, SlurmHandle)
        if handle in self._queue.waiting:
            self._queue.waiting.remove(handle)
        elif handle in self._live:
            self._live.remove(handle)
            if handle.job_id and all(other.job_id != handle.job_id for other in self._live):
                commands.cancel([handle.job_id])
        else:
            return
        handle.state = RunState.STOPPED
        self._ended.append(handle)

    def stop(self) -> None:
        """Cancel every job of this launcher."""
        self._queue.waiting.clear()
        commands.cancel(sorted({handle.job_id for handle in self._live if handle.job_id}))

    def leave(self) -> None:
        """Let the jobs run on; the same command finds them again."""
        self._queue.waiting.clear()
        self._live.clear()

    def _ask_states(self) -> None:
        """Ask the accounting, and the controller of jobs that wait, have ended or are unknown."""
        now = time.monotonic()
        if now - self._asked_sacct < SACCT_SECONDS or not self._live:
            return
        self._asked_sacct = now
        ids = {handle.job_id for handle in self._live if handle.job_id}
        try:
            known = commands.accounted(ids)
            changed = {job for job, state in known.items() if state.ended and not self._has_ended(job)}
            waiting_jobs = {job for job in ids if job not in known or known[job].waits}
            if now - self._asked_squeue >= SQUEUE_SECONDS and waiting_jobs:
                self._asked_squeue = now
                changed |= waiting_jobs
            by_controller = commands.queued(changed) if changed else {}
            missing = changed - set(known) - set(by_controller)
            self._states |= commands.corrected(self._with_reasons(known), by_controller)
            self._states |= dict.fromkeys(missing, JobState(commands.VANISHED))
            self._tell_reasons()
        except SchedulerError as error:  # a controller that restarts
            logger.warning("Slurm does not answer (%s); the jobs run on, asking again", error)
            self._states = {}

    def _has_ended(self, job: str) -> bool:
        return job in self._states and self._states[job].ended

    def _with_reasons(self, known: Mapping[str, JobState]) -> dict[str, JobState]:
        """The states with what the controller has last said of why they wait."""
        states = dict(known)
        for job, state in known.items():
            if state.waits and job in self._states:
                states[job] = replace(state, reason=self._states[job].reason)
        return states

    def _tell_reasons(self) -> None:
        """Log why jobs wait, each reason once."""
        live = {handle.job_id for handle in self._live}
        states = {job: state for job, state in self._states.items() if job in live}
        stuck = waiting.warnings(states)
        for reason in waiting.reasons(states.values()):
            if reason not in self._told:
                self._told.add(reason)
                logger.warning("%s", stuck.get(reason, f"jobs wait in Slurm's queue: {reason}"))

    def _look(self, handle: SlurmHandle) -> None:
        """Take over how a submitted run is doing, and retry or fail it if its job has ended."""
        assert handle.job_id is not None
        state = self._settled_state(handle)
        job = JobView(handle.job_id, state, shared=self.runs_per_job > 1, timeout_min=self.timeout_min)
        if state is not None and state.ended:
            text, log = handle.ledger.errors(handle.assignment)
            job = replace(job, error_text=text, error_log=log)
        verdict = classify(self._view(handle), job)
        if verdict.state is RunState.FINISHED:
            self._end(handle, verdict.state)
        elif verdict.failure is not None:
            self._retry_or_fail(handle, verdict.failure)
        elif verdict.state is RunState.ELSEWHERE and state is not None and state.ended:
            self._end(handle, verdict.state)
        elif state is not None:
            running = verdict.state is RunState.RUNNING
            handle.state, handle.note = RunState.RUNNING if running else RunState.QUEUED, verdict.note

    def _settled_state(self, handle: SlurmHandle) -> JobState | None:
        """What Slurm says of the job; None while its files may still arrive after its end."""
        state = self._states.get(handle.job_id or "")
        if state is None or not state.ended:
            handle.ended_since = None
            return state
        if handle.ended_since is None:
            handle.ended_since = time.monotonic()
            self._mark_ended(handle)
        return state if time.monotonic() - handle.ended_since >= SACCT_SECONDS else None

    def _view(self, handle: SlurmHandle) -> RunView:
        """The run directory without an older result or failure that the job is to redo."""
        run, redo = RunView.read(handle.job.directory), handle.job.redo_through_attempt
        redone = run.state is RunState.FINISHED and redo is not None and run.attempt <= redo
        forgiven = run.state is RunState.FAILED and not run.is_in(handle.job_id)
        return replace(run, state=RunState.WAITING, failure=None) if redone or forgiven else run

    def _retry_or_fail(self, handle: SlurmHandle, failure: Failure) -> None:
        tries, parts = handle.assignment.tries, handle.assignment.micro_batches
        retried = failure.cause in RETRIED and len(tries) < handle.job.retries
        if not retried:
            processes = self.processes_per_run
            cut = micro_batches_after(failure.cause, tries, parts, handle.job.config, self.oom_retry, processes)
            if cut is None:
                self._fail(handle, failure)
                return
            parts = cut
        logger.warning("run %s starts again%s: %s", handle.job.key[:8], self._avoid_node(handle, failure), failure.error)
        self._mark_ended(handle)
        self._live.remove(handle)
        handle.assignment = handle.assignment.again(failure.cause, parts)
        handle.job = replace(handle.job.cut(parts), ended_attempts=failure.attempt)
        handle.state, handle.job_id, handle.note = RunState.WAITING, None, f"again after {failure.error}"
        self._queue.waiting.append(handle)

    def _avoid_node(self, handle: SlurmHandle, failure: Failure) -> str:
        """Keep the next try off the nodes of this one if they may be to blame; says so."""
        state = self._states.get(handle.job_id or "")
        if failure.cause not in NODE_CAUSES or state is None or not state.node:
            return ""
        handle.bad_nodes = tuple(dict.fromkeys([*handle.bad_nodes, state.node]))
        return f" on another node than {', '.join(handle.bad_nodes)}"

    def _fail(self, handle: SlurmHandle, failure: Failure) -> None:
        """Record why the run has failed, and after how many retries."""
        if tries := len(handle.assignment.tries):
            where = f"; failed on {', '.join(handle.bad_nodes)}" if handle.bad_nodes else ""
            failure = replace(failure, error=f"{failure.error} (after {tries} more tries{where})")
        try:
            handle.job.directory.record_failure(failure)
        except OSError as error:  # a full disk; the handle still says it
            logger.warning("could not record why run %s failed: %s", handle.job.key, error)
            failure = replace(failure, error=f"{failure.error}; {error.strerror}")
        self._end(handle, RunState.FAILED, failure)

    def _end(self, handle: SlurmHandle, state: RunState, failure: Failure | None = None) -> None:
        handle.state, handle.failure = state, failure
        self._live.remove(handle)
        self._ended.append(handle)

    def _mark_ended(self, handle: SlurmHandle) -> None:
        """Allow the run to be submitted again although the ledger names a job for it."""
        self._queue.ended.add((handle.assignment.batch, handle.assignment.task))


def _states_at_rest(ids: Sequence[str]) -> dict[str, JobState]:
    """The states of jobs; those that are just ending, after a cancel, are waited for a while."""
    deadline = time.monotonic() + COMPLETING_SECONDS
    while True:
        states = _states_by_any(ids)
        completing = any(state.word == "COMPLETING" for state in states.values())
        if not completing or time.monotonic() > deadline:
            return states
        time.sleep(1)


def _states_by_any(ids: Sequence[str]) -> dict[str, JobState]:
    """The states of jobs, by the accounting alone where the controller does not answer."""
    try:
        return commands.job_states(ids)
    except SchedulerError:
        states = commands.accounted(ids)
        if len(states) < len(ids):
            raise
        return states
