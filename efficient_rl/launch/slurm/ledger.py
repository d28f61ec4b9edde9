"""Records which cluster job does which run, so that a killed command finds its jobs again.

Before an array is submitted, its tasks are recorded under a unique job name
(`outputs/jobs/<batch>/batch.json`), and every run names its batch in
`outputs/runs/<hash>/job.json`. However far the submission got, Slurm knows that name or does not.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from efficient_rl.errors import ConfigError
from efficient_rl.files import write_atomic
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.result import Cause

ERROR_CHARACTERS = 4000
MISSING = (FileNotFoundError, NotADirectoryError)


@dataclass(frozen=True)
class Assignment:
    """Which task of which batch does a run.

    `tries`: the causes that ended its earlier jobs. `micro_batches`: into how many parts each batch
    is cut now.
    """

    batch: str
    task: int
    tries: tuple[Cause, ...] = ()
    micro_batches: int = 1

    def again(self, cause: Cause, micro_batches: int) -> "Assignment":
        """The assignment after a job ended by that cause, before it has a new batch."""
        return replace(self, tries=(*self.tries, cause), micro_batches=micro_batches)


UNASSIGNED = Assignment("", 0)


@dataclass
class Batch:
    """One job array: its unique name, the runs of each task, Slurm's id once it is known."""

    folder: Path
    tasks: list[list[str]]
    job: str | None = None
    rejected: bool = False  # Slurm never got it

    @property
    def name(self) -> str:
        """Its job name in Slurm."""
        return self.folder.name

    @property
    def settled(self) -> bool:
        """Whether it is known that Slurm has it, or never got it."""
        return self.job is not None or self.rejected

    def job_id(self, task: int) -> str | None:
        """Slurm's id of one task."""
        if self.job is None:
            return None
        return f"{self.job}_{task}" if len(self.tasks) > 1 else self.job

    def load(self) -> bool:
        """Read batch.json, which another process may have changed; whether there is one."""
        path = self.folder / "batch.json"
        values = _read(path, {"tasks": (list,), "job": (str, NoneType), "gone": (bool,)})
        if values is None:
            return False
        self.tasks, self.job, self.rejected = values["tasks"], values["job"], values["gone"]
        if not all(isinstance(task, list) and set(map(type, task)) <= {str} for task in self.tasks):
            raise _damaged(path)
        return True

    def saved_at(self) -> float:
        """When it was last saved, in Unix seconds."""
        return (self.folder / "batch.json").stat().st_mtime

    def save(self) -> None:
        values = {"tasks": self.tasks, "job": self.job, "gone": self.rejected}
        write_atomic(self.folder / "batch.json", json.dumps(values))


class Ledger:
    """The assignments below one output folder."""

    def __init__(self, outputs: Path) -> None:
        self.outputs = outputs
        self.jobs = outputs / "jobs"
        self.runs = outputs / "runs"
        self._batches: dict[str, Batch] = {}

    def assignment(self, key: str) -> Assignment | None:
        """The newest assignment of a run, if any; ConfigError if its file is damaged."""
        path = self.runs / key / "job.json"
        values = _read(path, {"batch": (str,), "task": (int,), "tries": (list,), "micro_batches": (int,)})
        if values is None:
            return None
        tries = tuple(values["tries"])
        if not set(map(str, tries)) <= set(get_args(Cause)) or values["task"] < 0 or values["micro_batches"] < 1:
            raise _damaged(path)
        return Assignment(values["batch"], values["task"], tries, values["micro_batches"])

    def batch(self, name: str) -> Batch | None:
        """The batch of that name, if any; ConfigError if its file is damaged."""
        if name not in self._batches:
            batch = Batch(self.jobs / name, [])
            if not batch.load():
                return None
            self._batches[name] = batch
        return self._batches[name]

    def task(self, key: str) -> tuple[Batch, Assignment] | None:
        """The batch that a run was last assigned to, and its place there."""
        assignment = self.assignment(key)
        batch = self.batch(assignment.batch) if assignment else None
        if assignment is None or batch is None:
            return None
        if assignment.task >= len(batch.tasks):
            raise _damaged(self.runs / key / "job.json")
        return batch, assignment

    def job_of(self, key: str) -> str | None:
        """Slurm's id of the job that does, or did, a run; None where none is known."""
        found = self.task(key)
        return found[0].job_id(found[1].task) if found else None

    def job_mates(self, key: str) -> list[str]:
        """All runs of the job that a run is in."""
        found = self.task(key)
        return list(found[0].tasks[found[1].task]) if found else []

    def has_unfinished_mates(self, key: str) -> bool:
        """Whether another run of the same job has neither a result nor a failure."""
        records = [RunDirectory(self.runs / mate) for mate in self.job_mates(key) if mate != key]
        return any(record.result() is None and record.failure() is None for record in records)

    def assign(self, key: str, assignment: Assignment) -> None:
        """Record which task of which batch does a run."""
        write_atomic(self.runs / key / "job.json", json.dumps(asdict(assignment)))

    def assigned_at(self, key: str) -> float:
        """When a run was last assigned, in Unix seconds; 0 where it never was."""
        try:
            return (self.runs / key / "job.json").stat().st_mtime
        except MISSING:
            return 0.0

    def error_files(self, assignment: Assignment | None) -> list[Path]:
        """The error streams of the assigned job, a file for each process."""
        batch = self.batch(assignment.batch) if assignment else None
        if assignment is None or batch is None or batch.job is None:
            return []
        return sorted(batch.folder.glob(f"{batch.job_id(assignment.task)}_*_log.err"))

    def errors(self, assignment: Assignment | None) -> tuple[str, str | None]:
        """The end of the error streams of the assigned job, and the path of the first one."""
        files = self.error_files(assignment)
        ends = [path.read_text(errors="replace")[-ERROR_CHARACTERS:] for path in files]
        return "\n".join(ends), str(files[0]) if files else None

    def record_submission(self, prefix: str, tasks: Sequence[Sequence[str]], before: Mapping[str, Assignment]) -> Batch:
        """Record what is about to be submitted. `before`: earlier assignments, with tries."""
        batch = Batch(self.jobs / f"{prefix}-{uuid.uuid4().hex[:10]}", [list(keys) for keys in tasks])
        batch.save()
        self._batches[batch.name] = batch
        for index, keys in enumerate(tasks):
            for key in keys:
                earlier = before.get(key, UNASSIGNED)
                self.assign(key, replace(earlier, batch=batch.name, task=index))
        return batch


def _read(path: Path, types: Mapping[str, tuple[type, ...]]) -> dict[str, Any] | None:
    """The values of a file, if there is one; ConfigError if they are not of these types."""
    try:
        values = json.loads(path.read_text())
        if all(type(values[key]) in valid for key, valid in types.items()):
            return dict(values)
    except MISSING:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(path) from error
    raise _damaged(path)


def _damaged(path: Path) -> ConfigError:
    return ConfigError(f"damaged: {path}; if no cluster job works on its runs, remove it and run the same command again")
