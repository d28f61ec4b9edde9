"""Reads what the runs of a sweep are doing: from their directories, and by one question to the cluster's scheduler."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efficient_rl.errors import ConfigError
from efficient_rl.launch.slurm import commands as scheduler
from efficient_rl.launch.slurm.commands import VANISHED, JobState, SchedulerError
from efficient_rl.launch.slurm.ledger import Ledger
from efficient_rl.launch.slurm.retries import ending
from efficient_rl.rundir.directory import HEARTBEAT_SECONDS, RunDirectory
from efficient_rl.rundir.result import Failure
from efficient_rl.sweep.display import Row, duration
from efficient_rl.sweep.lock import ActiveController, active_controllers
from efficient_rl.sweep.manifest import Manifest

GOING_ON = ("running", "queued")
FRESH_SECONDS = 60.0


@dataclass(frozen=True)
class Status:
    """A sweep at one moment: a row a run, its newest job, who watches the sweep, and what is wrong with the scheduler."""

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
        """Whether the next look may find something new."""
        asked_in_vain = self.trouble is not None and any(row.state != "finished" for row in self.rows)
        return bool(self.rows_in(*GOING_ON)) or asked_in_vain or any(controller.here for controller in self.controllers)

    def as_json(self) -> dict[str, Any]:
        """The same for other programs; docs/cluster.md says what the keys mean."""
        counts = {state: len(self.rows_in(state)) for state in sorted({row.state for row in self.rows})}
        head = {key: getattr(self.manifest, key) for key in ("name", "question", "command")}
        tail = {"watchers": [str(controller) for controller in self.controllers], "scheduler_trouble": self.trouble}
        runs = [_run_json(row, self.jobs.get(row.folder.name)) for row in self.rows]
        return {**head, "counts": counts, **tail, "runs": runs}


class Observer:
    """Looks at one sweep again and again; a later look reads only what the run directories have new."""

    def __init__(self, outputs: Path, manifest: Manifest) -> None:
        self._outputs = outputs
        self._manifest = manifest
        self._rows = tuple(
            Row(outputs / "runs" / run.hash, run.label, run.params.get("grpo.max_steps", 0)) for run in manifest.runs
        )

    def look(self) -> Status:
        """The status now."""
        ledger, trouble = Ledger(self._outputs), None
        unfinished = [row.folder.name for row in self._rows if RunDirectory(row.folder).result() is None]
        try:
            _find_lost_batches(ledger, unfinished)
        except SchedulerError as error:
            trouble = str(error)
        jobs = {row.folder.name: job for row in self._rows if (job := _newest_job(ledger, row.folder.name)) is not None}
        states, reasons, unanswered = _ask({jobs[key] for key in unfinished if key in jobs})
        for row in self._rows:
            job = jobs.get(row.folder.name)
            known = row.state == "finished"
            judge(row, job, states.get(job or ""), reasons.get((job or "").split("_")[0], ""), ledger)
            if not (known and row.state == "finished"):
                row.refresh()
        found = active_controllers(self._outputs / "sweeps" / self._manifest.name)
        return Status(self._manifest, self._rows, jobs, found, trouble or unanswered)


def read_status(outputs: Path, manifest: Manifest) -> Status:
    """The status of a sweep now."""
    return Observer(outputs, manifest).look()


def _find_lost_batches(ledger: Ledger, keys: Sequence[str]) -> None:
    """Ask by name for the arrays of a command that was killed before it could write their ids down."""
    for key in keys:
        assignment = ledger.assignment(key)
        batch = ledger.batch(assignment.batch) if assignment else None
        if batch is not None and batch.job is None and not batch.gone:
            batch.job = scheduler.find_job(batch.name)
            batch.gone = batch.job is None


def _newest_job(ledger: Ledger, key: str) -> str | None:
    """The job that a run was last given to; None where this machine has worked on it since."""
    owner = RunDirectory(ledger.runs / key).owner()
    if owner is not None and owner.job is None and owner.started > ledger.assigned_at(key):
        return None
    return ledger.job_of(key)


def _ask(jobs: set[str]) -> tuple[dict[str, JobState], dict[str, str], str | None]:
    """States of the jobs, why those that wait do so, and what was wrong with the scheduler."""
    states: dict[str, JobState] = {}
    try:
        if jobs:
            states = scheduler.job_states(jobs)
        return states, scheduler.waiting_reasons([job for job, s in states.items() if not s.over and not s.running]), None
    except SchedulerError as error:
        return states, {}, str(error)


def judge(row: Row, job: str | None, state: JobState | None, reason: str, ledger: Ledger) -> None:
    """Set state, note and failure of a row, given what Slurm says about its job (None: nothing) and why the job waits."""
    record = RunDirectory(row.folder)
    owner, found = record.owner(), record.state()
    host, node = (owner.host, owner.node) if owner else ("", "")
    in_job = job is not None and owner is not None and owner.job_id == job
    row.failure, row.note = None, f"job {job}" if job else host
    if found == "finished":
        row.state = "finished"
    elif found == "running" and not in_job:
        row.state, row.note = "running", host + _quiet(record)
    elif found == "failed" and (in_job or state is None or state.over):  # its job may go on with other runs
        row.state, row.failure = "failed", record.failure()
    elif state is None:
        row.state = "running" if found == "running" else "waiting"
    elif not state.over:
        row.state = "running" if in_job and (state.running or _fresh(record)) else "queued"
        alone = len(ledger.job_mates(row.folder.name)) < 2
        waits = reason if not state.running else "starting" if alone else "behind others of its job"
        row.note += f" on {node}{_quiet(record)}" if row.state == "running" else f" ({waits})" if waits else ""
    else:  # the job has ended, and nobody has noted how
        why = ending(state, in_job, ledger.error_text(ledger.assignment(row.folder.name)), None)
        unheard = state.word == VANISHED and why.cause == "not_started"
        row.state = "waiting" if unheard or why.cause in ("preempted", "node_failure", "time_limit") else "failed"
        log = ledger.log(row.folder.name, ledger.assignment(row.folder.name), in_job)
        row.failure = Failure(record.newest_attempt() or 0, why.words, log, why.cause)
        row.note += f", {why.words}" if row.state == "waiting" else ""


def _fresh(record: RunDirectory) -> bool:
    """Whether a run has just logged a step, whatever an accounting that lags behind says of its job."""
    return record.state() == "running" and time.time() - (record.last_heartbeat() or 0.0) < FRESH_SECONDS


def _quiet(record: RunDirectory) -> str:
    """How long a run that should be running has written nothing, where that is suspicious."""
    seconds = time.time() - (record.last_heartbeat() or time.time())
    return f", no sign for {duration(seconds)}" if seconds > HEARTBEAT_SECONDS else ""


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
