"""Remembers which cluster job does which run, so that a command that was killed in the middle finds its jobs again.

Before an array is submitted, its tasks are written down under a name that no other job has
(`outputs/jobs/<batch>/batch.json`), and every run names its batch in
`outputs/runs/<hash>/job.json`. However far the submission got, Slurm knows the name or does not.
"""

import json
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from efficient_rl.errors import ConfigError
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.result import Cause

ERROR_CHARACTERS = 4000
MISSING = (FileNotFoundError, NotADirectoryError)


@dataclass(frozen=True)
class Assignment:
    """Which task of which batch does a run.

    `tries` are the causes for which earlier ones ended; `micro_batches`: into how many parts each
    batch is cut now.
    """

    batch: str
    task: int
    tries: tuple[Cause, ...] = ()
    micro_batches: int = 1

    def again(self, cause: Cause, micro_batches: int) -> "Assignment":
        """The assignment after the job ended for that cause, to be given a new batch."""
        return replace(self, tries=(*self.tries, cause), micro_batches=micro_batches)


@dataclass
class Batch:
    """One array of jobs: its unique name, the runs of each task, and Slurm's id once it is known."""

    folder: Path
    tasks: list[list[str]]
    job: str | None = None
    gone: bool = False  # Slurm never got it

    @property
    def name(self) -> str:
        """The name under which Slurm has it."""
        return self.folder.name

    def job_id(self, task: int) -> str | None:
        """Slurm's id of one task."""
        if self.job is None:
            return None
        return f"{self.job}_{task}" if len(self.tasks) > 1 else self.job

    def load(self) -> bool:
        """Take over what is written down, by another process perhaps; whether anything is."""
        path = self.folder / "batch.json"
        values = _read(path, {"tasks": list, "job": (str, NoneType), "gone": bool})
        if values is None:
            return False
        self.tasks, self.job, self.gone = values["tasks"], values["job"], values["gone"]
        if not all(isinstance(task, list) and all(isinstance(key, str) for key in task) for task in self.tasks):
            raise _damaged(path)
        return True

    def saved_at(self) -> float:
        """When it was last written down, in Unix seconds."""
        return (self.folder / "batch.json").stat().st_mtime

    def save(self) -> None:
        """Write it down."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(self.folder / "batch.json", {"tasks": self.tasks, "job": self.job, "gone": self.gone})


class Ledger:
    """The assignments below one output folder."""

    def __init__(self, outputs: Path) -> None:
        self.outputs = outputs
        self.jobs = outputs / "jobs"
        self.runs = outputs / "runs"
        self._batches: dict[str, Batch] = {}

    def assignment(self, key: str) -> Assignment | None:
        """The newest assignment of a run; None where it has none. Raises ConfigError where its file is damaged."""
        path = self.runs / key / "job.json"
        values = _read(path, {"batch": str, "task": int, "tries": list, "micro_batches": int})
        if values is None:
            return None
        tries = tuple(values["tries"])
        if not set(map(str, tries)) <= set(get_args(Cause)) or values["task"] < 0 or values["micro_batches"] < 1:
            raise _damaged(path)
        return Assignment(values["batch"], values["task"], tries, values["micro_batches"])

    def batch(self, name: str) -> Batch | None:
        """The batch of that name; None where there is none. Raises ConfigError where its file is damaged."""
        if name not in self._batches:
            batch = Batch(self.jobs / name, [])
            if not batch.load():
                return None
            self._batches[name] = batch
        return self._batches[name]

    def _task(self, key: str) -> tuple[Batch, int] | None:
        """The batch and the task that a run was last given to."""
        assignment = self.assignment(key)
        batch = self.batch(assignment.batch) if assignment else None
        if assignment is None or batch is None:
            return None
        if assignment.task >= len(batch.tasks):
            raise _damaged(self.runs / key / "job.json")
        return batch, assignment.task

    def job_of(self, key: str) -> str | None:
        """Slurm's id of the job that does, or did, a run; None where none is known."""
        given = self._task(key)
        return given[0].job_id(given[1]) if given else None

    def job_mates(self, key: str) -> list[str]:
        """All runs of the job that a run is in."""
        given = self._task(key)
        return list(given[0].tasks[given[1]]) if given else []

    def has_unfinished_mates(self, key: str) -> bool:
        """Whether another run of the same job has neither a result nor a failure."""
        records = [RunDirectory(self.runs / mate) for mate in self.job_mates(key) if mate != key]
        return any(record.result() is None and record.failure() is None for record in records)

    def assign(self, key: str, assignment: Assignment) -> None:
        """Write down which task of which batch does a run."""
        (self.runs / key).mkdir(parents=True, exist_ok=True)
        _write(self.runs / key / "job.json", asdict(assignment))

    def assigned_at(self, key: str) -> float:
        """When a run was last assigned, in Unix seconds; 0 where it never was."""
        try:
            return (self.runs / key / "job.json").stat().st_mtime
        except MISSING:
            return 0.0

    def error_files(self, assignment: Assignment | None) -> list[Path]:
        """What the assigned job wrote to its error streams, a file a process."""
        batch = self.batch(assignment.batch) if assignment else None
        job = batch.job_id(assignment.task) if assignment and batch else None
        return sorted(batch.folder.glob(f"{job}_*_log.err")) if batch and job else []

    def log(self, key: str, assignment: Assignment | None, started: bool) -> str:
        """Where to read what went wrong: the run's log, or what its job wrote where the run did not begin."""
        files = [] if started else self.error_files(assignment)
        return str(files[0] if files else self.runs / key / "log.txt")

    def error_text(self, assignment: Assignment | None) -> str:
        """The end of each of those files."""
        return "\n".join(path.read_text(errors="replace")[-ERROR_CHARACTERS:] for path in self.error_files(assignment))

    def intend(self, prefix: str, tasks: Sequence[Sequence[str]], before: dict[str, Assignment]) -> Batch:
        """Write down what is about to be submitted. `before` are the assignments that already had tries."""
        batch = Batch(self.jobs / f"{prefix}-{uuid.uuid4().hex[:10]}", [list(keys) for keys in tasks])
        batch.save()
        self._batches[batch.name] = batch
        for index, keys in enumerate(tasks):
            for key in keys:
                self.assign(key, replace(before.get(key, Assignment("", 0)), batch=batch.name, task=index))
        return batch


def _read(path: Path, types: Mapping[str, Any]) -> dict[str, Any] | None:
    """The values of a file; None where it is not there, ConfigError where it is not what was written."""
    try:
        values = json.loads(path.read_text())
    except MISSING:
        return None
    except ValueError as error:
        raise _damaged(path) from error
    if not isinstance(values, dict) or any(type(values.get(key, ...)) not in _each(kind) for key, kind in types.items()):
        raise _damaged(path)
    return values


def _each(kind: Any) -> tuple[type, ...]:
    return kind if isinstance(kind, tuple) else (kind,)


def _damaged(path: Path) -> ConfigError:
    return ConfigError(f"damaged: {path}; if no cluster job works on its runs, remove it, and the same command submits them")


def _write(path: Path, values: object) -> None:
    draft = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.draft")
    draft.write_text(json.dumps(values))
    draft.rename(path)
