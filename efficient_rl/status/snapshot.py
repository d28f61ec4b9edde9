"""Reads how the runs of a sweep are doing, from their directories and by one question to Slurm."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from efficient_rl.errors import ConfigError, SchedulerError
from efficient_rl.launch.slurm import commands
from efficient_rl.launch.slurm.classify import JobView, RunView, Verdict, classify
from efficient_rl.launch.slurm.commands import JobState
from efficient_rl.launch.slurm.ledger import Ledger
from efficient_rl.launch.slurm.submit import find_locked
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.state import RunState
from efficient_rl.sweep.display import Row
from efficient_rl.sweep.lock import ActiveController, active_controllers
from efficient_rl.sweep.manifest import Manifest

GOING_ON = (RunState.RUNNING, RunState.QUEUED)
LOCK_SECONDS = 1.0  # for a sweep command that is submitting


@dataclass(frozen=True)
class Status:
    """A sweep at one moment. `jobs`: the newest job of each run. `trouble`: why Slurm could not be asked."""

    manifest: Manifest
    rows: tuple[Row, ...]
    jobs: Mapping[str, str]
    controllers: tuple[ActiveController, ...]
    trouble: str | None

    def rows_in(self, *states: str) -> list[Row]:
        """The rows in one of these states."""
        return [row for row in self.rows if row.state in states]

    @property
    def goes_on(self) -> bool:
        """Whether the next refresh may find something new."""
        finished = len(self.rows_in(RunState.FINISHED)) == len(self.rows)
        unknown = self.trouble is not None and not finished
        return bool(self.rows_in(*GOING_ON)) or unknown or any(controller.here for controller in self.controllers)

    def as_json(self) -> dict[str, Any]:
        """The same for other programs; docs/cluster.md says what the keys mean."""
        counts = dict(sorted(Counter(str(row.state) for row in self.rows).items()))
        head = {key: getattr(self.manifest, key) for key in ("name", "question", "command")}
        tail = {"watchers": [str(controller) for controller in self.controllers], "scheduler_trouble": self.trouble}
        runs = [_run_json(row, self.jobs.get(row.folder.name)) for row in self.rows]
        return {**head, "counts": counts, **tail, "runs": runs}


class Observer:
    """Reads one sweep repeatedly; a refresh reads only the new lines of the run directories."""

    def __init__(self, outputs: Path, manifest: Manifest) -> None:
        self._outputs = outputs
        self._manifest = manifest
        self._rows = tuple(
            Row(outputs / "runs" / run.hash, run.label, run.params.get("grpo.max_steps", 0)) for run in manifest.runs
        )

    def refresh(self) -> Status:
        """The status now."""
        ledger, keys = Ledger(self._outputs), [row.folder.name for row in self._rows]
        unfinished = [key for key in keys if RunDirectory(ledger.runs / key).result() is None]
        lost = _reconcile(ledger, unfinished)
        newest = {key: _newest_job(ledger, key) for key in keys}
        jobs = {key: job for key, job in newest.items() if job is not None}
        states, unanswered = _job_states({jobs[key] for key in unfinished if key in jobs})
        for row in self._rows:
            # Read after Slurm was asked: a job that has ended has left all that it will leave.
            run, job = RunView.read(RunDirectory(row.folder)), newest[row.folder.name]
            if job is None:
                _update(row, classify(run))
            else:
                _update(row, classify(run, _job_view(ledger, row.folder.name, run, job, states.get(job))))
        found = active_controllers(self._outputs / "sweeps" / self._manifest.name)
        return Status(self._manifest, self._rows, jobs, found, lost or unanswered)


def read_status(outputs: Path, manifest: Manifest) -> Status:
    """The status of a sweep now."""
    return Observer(outputs, manifest).refresh()


def _reconcile(ledger: Ledger, keys: Sequence[str]) -> str | None:
    """Find the arrays of commands that were killed before they recorded an id; why that was not possible."""
    try:
        for key in keys:
            found = ledger.task(key)
            if found is not None:
                find_locked(ledger, found[0], seconds=LOCK_SECONDS)
    except (SchedulerError, OSError) as error:
        return str(error)
    return None


def _newest_job(ledger: Ledger, key: str) -> str | None:
    """The job that a run was last assigned to; None where this machine has worked on it since."""
    owner = RunDirectory(ledger.runs / key).owner()
    if owner is not None and owner.job is None and owner.started > ledger.assigned_at(key):
        return None
    return ledger.job_of(key)


def _job_states(jobs: set[str]) -> tuple[dict[str, JobState], str | None]:
    """States of the jobs, with the reasons of those that wait, and why Slurm could not be asked."""
    states: dict[str, JobState] = {}
    try:
        if jobs:
            states = commands.job_states(jobs)
        waiting = [job for job, state in states.items() if not state.ended and not state.running]
        reasons = commands.waiting_reasons(waiting)
    except SchedulerError as error:
        return states, str(error)
    for job in waiting:
        states[job] = replace(states[job], reason=reasons.get(job.split("_")[0], ""))
    return states, None


def _job_view(ledger: Ledger, key: str, run: RunView, job: str, state: JobState | None) -> JobView:
    view = JobView(job, state, shared=len(ledger.job_mates(key)) > 1)
    if state is None or not state.ended or run.state is not RunState.WAITING:
        return view
    text, log = ledger.errors(ledger.assignment(key))
    return replace(view, error_text=text, error_log=log)


def _update(row: Row, verdict: Verdict) -> None:
    """Take over the verdict on a run; an observer is nobody's job, so elsewhere is running."""
    finished_before = row.state is RunState.FINISHED
    row.state = RunState.RUNNING if verdict.state is RunState.ELSEWHERE else verdict.state
    row.note, row.failure = verdict.note, verdict.failure
    if not (finished_before and row.state is RunState.FINISHED):
        row.refresh()


def _run_json(row: Row, job: str | None) -> dict[str, Any]:
    owner = RunDirectory(row.folder).owner()
    return {
        "hash": row.folder.name,
        "what": row.label,
        "state": row.state,
        "job": job,
        "node": owner.node if owner else None,
        "note": row.note,
        "step": row.step,
        "max_steps": row.max_steps,
        "reward": row.reward,
        "accuracy_before": row.accuracy_before,
        "accuracy": row.accuracy,
        "seconds_left": row.seconds_left(),
        "cause": row.failure.cause if row.failure else None,
        "error": row.failure.error if row.failure else None,
        "log": row.log,
    }


def find_run(keys: Sequence[str], prefix: str) -> str:
    """The one run whose hash begins so; ConfigError lists those that it could be."""
    found = [key for key in keys if key.startswith(prefix)]
    if len(found) != 1:
        listed = ", ".join(key[:8] for key in (found or keys)[:10]) + (", ..." if len(found or keys) > 10 else "")
        raise ConfigError(f"{prefix!r} begins the hash of {len(found)} runs of this sweep, not of one; choose of {listed}")
    return found[0]
