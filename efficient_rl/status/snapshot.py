"""Reads the states of a sweep's runs, from their directories and one query to Slurm."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from efficient_rl.errors import ConfigError, SchedulerError
from efficient_rl.launch.slurm import commands, waiting
from efficient_rl.launch.slurm.classify import JobView, RunView, Verdict, classify
from efficient_rl.launch.slurm.commands import JobState
from efficient_rl.launch.slurm.ledger import Ledger
from efficient_rl.launch.slurm.submit import find_locked
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.state import RunState
from efficient_rl.sweep.display import Row
from efficient_rl.sweep.lock import ActiveController, active_controllers
from efficient_rl.sweep.manifest import Manifest

ACTIVE = (RunState.RUNNING, RunState.QUEUED)
LOCK_SECONDS = 1.0  # for a sweep command that is submitting


@dataclass(frozen=True)
class Status:
    """A sweep at one moment. `jobs`: the newest of each run. `trouble`: why Slurm is silent.

    `warnings`: of jobs that wait and will not start by themselves.
    """

    manifest: Manifest
    rows: tuple[Row, ...]
    jobs: Mapping[str, str]
    controllers: tuple[ActiveController, ...]
    trouble: str | None
    warnings: tuple[str, ...] = ()

    def rows_in(self, *states: str) -> list[Row]:
        """The rows in one of these states."""
        return [row for row in self.rows if row.state in states]

    @property
    def counts(self) -> dict[str, int]:
        """How many runs are in each state."""
        return dict(sorted(Counter(str(row.state) for row in self.rows).items()))

    @property
    def is_watched(self) -> bool:
        """Whether a sweep command of this machine works on the sweep."""
        return any(controller.here for controller in self.controllers)

    @property
    def may_change(self) -> bool:
        """Whether the next refresh may find something new."""
        finished = len(self.rows_in(RunState.FINISHED)) == len(self.rows)
        unknown = self.trouble is not None and not finished
        return unknown or self.is_watched or bool(self.rows_in(*ACTIVE))

    def as_json(self) -> dict[str, Any]:
        """The same for other programs; docs/cluster.md says what the keys mean."""
        return {
            "name": self.manifest.name,
            "question": self.manifest.question,
            "command": self.manifest.command,
            "counts": self.counts,
            "watchers": list(map(str, self.controllers)),
            "scheduler_trouble": self.trouble,
            "warnings": list(self.warnings),
            "runs": [_run_json(row, self.jobs.get(row.key)) for row in self.rows],
        }


class Observer:
    """Reads one sweep repeatedly; a refresh reads only the new lines of the run directories."""

    def __init__(self, outputs: Path, manifest: Manifest) -> None:
        self._outputs = outputs
        self._manifest = manifest
        self._rows = tuple(
            Row(outputs / "runs" / run.hash, run.label, run.params.get("grpo.max_steps", 0)) for run in manifest.runs
        )

    def refresh(self) -> Status:
        ledger = Ledger(self._outputs)
        unfinished = {row.key for row in self._rows if RunDirectory(row.folder).result() is None}
        lost = _reconcile(ledger, unfinished)
        jobs, asked = dict[str, str](), set[str]()
        for row in self._rows:
            job = _newest_job(ledger, row)
            if job is not None:
                jobs[row.key] = job
                if row.key in unfinished:
                    asked.add(job)
        states, unanswered = _job_states(asked)
        for row in self._rows:
            # Read after Slurm was asked: a job that has ended has left all that it will leave.
            run, job = RunView.read(RunDirectory(row.folder)), jobs.get(row.key)
            if job is None:
                _update(row, classify(run))
            else:
                _update(row, classify(run, _job_view(ledger, row.key, run, job, states.get(job))))
        found = active_controllers(self._outputs / "sweeps" / self._manifest.name)
        stuck = tuple(waiting.warnings(states).values())
        return Status(self._manifest, self._rows, jobs, found, lost or unanswered, stuck)


def read_status(outputs: Path, manifest: Manifest) -> Status:
    """The status of a sweep now."""
    return Observer(outputs, manifest).refresh()


def _reconcile(ledger: Ledger, keys: Collection[str]) -> str | None:
    """Find arrays of commands that were killed before they recorded an id; what went wrong."""
    try:
        for key in keys:
            found = ledger.task(key)
            if found is not None:
                find_locked(ledger, found[0], seconds=LOCK_SECONDS)
    except (SchedulerError, OSError) as error:
        return str(error)
    return None


def _newest_job(ledger: Ledger, row: Row) -> str | None:
    """The job that a run was last assigned to; None where this machine has worked on it since."""
    owner = RunDirectory(row.folder).owner()
    if owner is not None and owner.job is None and owner.started > ledger.assigned_at(row.key):
        return None
    return ledger.job_of(row.key)


def _job_states(jobs: Collection[str]) -> tuple[dict[str, JobState], str | None]:
    """States of the jobs, with the reasons of those that wait, and why Slurm could not be asked."""
    try:
        return commands.job_states(jobs) if jobs else {}, None
    except SchedulerError as error:  # the accounting may answer without the controller
        return commands.accounted(jobs), str(error)


def _job_view(ledger: Ledger, key: str, run: RunView, job: str, state: JobState | None) -> JobView:
    view = JobView(job, state, shared=len(ledger.job_mates(key)) > 1)
    if state is None or not state.ended or run.state.ended:
        return view
    text, log = ledger.errors(ledger.assignment(key))
    return replace(view, error_text=text, error_log=log)


def _update(row: Row, verdict: Verdict) -> None:
    """Take over the verdict on a run, and what it has logged since."""
    if not (row.state is verdict.state is RunState.FINISHED):
        row.refresh()
    row.state, row.note, row.failure = verdict.state, verdict.note, verdict.failure
    if row.state is RunState.ELSEWHERE:  # than its job: to an observer it just runs
        row.state = RunState.RUNNING


def _run_json(row: Row, job: str | None) -> dict[str, Any]:
    owner, failure = RunDirectory(row.folder).owner(), row.failure
    shown = ("note", "step", "max_steps", "reward", "accuracy_before", "accuracy")
    return {
        "hash": row.key,
        "what": row.label,
        "state": row.state,
        "job": job,
        "node": owner and owner.node,
        **{name: getattr(row, name) for name in shown},
        "seconds_left": row.seconds_left(),
        "cause": failure and failure.cause,
        "error": failure and failure.error,
        "log": row.log,
    }


def find_run(keys: Sequence[str], prefix: str) -> str:
    """The one run whose hash begins so; ConfigError lists those that it could be."""
    found = [key for key in keys if key.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    listed = [key[:8] for key in (found or keys)[:11]]
    if len(listed) > 10:
        listed[10] = "..."
    text = f"{prefix!r} begins the hash of {len(found)} runs of this sweep, not of one"
    raise ConfigError(f"{text}; choose of {', '.join(listed)}")
