"""Owns the run directory: who works on it, its metrics, checkpoints and result. The directory is the truth.

A run is finished when `result.json` is valid, and only then. Whoever works on a run holds the
newest attempt; an attempt is alive while its process is. Attempts are claimed, and everything is
written, under one lock and only by the newest attempt: an old process that comes back to life
cannot overwrite a newer one. What takes longer to write than a lock should be held (checkpoints,
the model) goes to a place of the attempt's own and is published under the lock.
"""

import hashlib
import json
import os
import re
import shutil
import socket
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import psutil
import yaml
from filelock import FileLock, Timeout

from efficient_rl.config.run_config import RunConfig, to_dict
from efficient_rl.config.schema import check_types

State = Literal["finished", "active", "failed", "pending"]
Cause = Literal[
    "error", "out_of_memory", "killed", "stalled", "time_limit", "preempted", "node_failure", "cancelled", "not_started"
]
MARKER = "complete.json"
MISSING = (FileNotFoundError, NotADirectoryError)
EVALUATED = {"accuracy", "greedy_accuracy", "standard_error", "pass_at_k", "problems", "samples"}
CLOCK_TOLERANCE_SECONDS = 2.0
HEARTBEAT_SECONDS = 900.0  # an attempt on another machine that wrote nothing for so long is given up
LOCK_SECONDS = 60.0
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "MemoryError")


class AttemptLost(RuntimeError):
    """A newer attempt owns the run directory; this one must stop and write nothing more."""


class AlreadyActive(RuntimeError):
    """Another live process works on the run."""


class AlreadyFinished(RuntimeError):
    """The run has its result; there is nothing to do."""


@dataclass(frozen=True)
class RunResult:
    """What a finished run measured; `accuracy` is held-out avg@k after training.

    `peak_memory_bytes` is by phase of training, `memory_parts_bytes` what parameters, gradients,
    optimizer state, reference, saved activations and the trunk cache held at most.
    """

    config_hash: str
    model: str
    strategy: str
    seed: int
    trainable_params: int
    mean_active_params: float
    total_params: int
    accuracy: float
    accuracy_before: float
    evaluation: dict[str, Any]
    evaluation_before: dict[str, Any]
    final_reward: float
    peak_memory_bytes: dict[str, int]
    memory_parts_bytes: dict[str, int]
    phase_seconds: dict[str, float]
    train_seconds: float
    total_seconds: float
    steps: int
    tokens: int
    code_version: str
    attempt: int
    finished_at: float

    def __post_init__(self) -> None:
        check_types("result", self)
        for values in (self.peak_memory_bytes, self.memory_parts_bytes, self.phase_seconds):
            if not all(isinstance(value, int | float) for value in values.values()):
                raise ValueError(f"{values!r} must hold numbers")
        for values in (self.evaluation, self.evaluation_before):
            if missing := EVALUATED - set(values):
                raise ValueError(f"the evaluation lacks {', '.join(sorted(missing))}")
            if not all(isinstance(values[name], int | float) for name in EVALUATED):
                raise ValueError(f"{values!r} must hold numbers")

    @property
    def gain(self) -> float:
        """Accuracy after training less before."""
        return self.accuracy - self.accuracy_before

    @property
    def greedy_accuracy(self) -> float:
        """Accuracy of greedy completions after training."""
        return float(self.evaluation["greedy_accuracy"])

    @property
    def pass_at_k(self) -> float:
        """Share of the problems that one of `samples` completions solved."""
        return float(self.evaluation["pass_at_k"])

    @property
    def standard_error(self) -> float:
        """Of the accuracy, over the held-out problems."""
        return float(self.evaluation["standard_error"])

    @property
    def problems(self) -> int:
        """How many held-out problems there are."""
        return int(self.evaluation["problems"])

    @property
    def samples(self) -> int:
        """Completions drawn for each held-out problem."""
        return int(self.evaluation["samples"])

    @property
    def right(self) -> tuple[int, ...]:
        """Right samples of every held-out problem after training; () where they were not recorded."""
        return tuple(self.evaluation.get("right", ()))

    @property
    def right_before(self) -> tuple[int, ...]:
        """Right samples of every held-out problem before training; () where they were not recorded."""
        return tuple(self.evaluation_before.get("right", ()))

    @property
    def by_difficulty(self) -> dict[str, float]:
        """Accuracy at every level of difficulty after training."""
        return dict(self.evaluation.get("by_difficulty", {}))

    @property
    def by_difficulty_before(self) -> dict[str, float]:
        """Accuracy at every level of difficulty before training."""
        return dict(self.evaluation_before.get("by_difficulty", {}))

    @property
    def sets(self) -> dict[str, float]:
        """Accuracy on every further evaluation set after training."""
        sets = self.evaluation.get("sets", {})
        return {name: float(evaluation["accuracy"]) for name, evaluation in sets.items()}

    @property
    def highest_peak_bytes(self) -> int:
        """Peak memory of the phase with the highest."""
        return int(max(self.peak_memory_bytes.values(), default=0))


@dataclass(frozen=True)
class Failure:
    """Why the last attempt ended without a result: what kind of end it was, and in words."""

    attempt: int
    error: str
    log: str
    cause: Cause = "error"


class Record:
    """The directory of one run, at `outputs/runs/<config_hash>`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.attempt: int | None = None
        self._file_lock = FileLock(folder / "attempts" / "lock", timeout=LOCK_SECONDS)
        self._recorded: set[tuple[int, str]] = set()

    # Reading

    def result(self) -> RunResult | None:
        """The result, or None where there is no valid one."""
        try:
            result = RunResult(**json.loads((self.folder / "result.json").read_text()))
        except (*MISSING, ValueError, TypeError):
            return None
        return result if result.config_hash == self.folder.name else None

    def state(self) -> State:
        """Finished, active, failed or pending."""
        if self.result() is not None:
            return "finished"
        newest = self.newest_attempt()
        if newest and self._alive(newest):
            return "active"
        return "failed" if self.failure() is not None else "pending"

    def failure(self) -> Failure | None:
        """Why the newest attempt failed, or None where it did not."""
        try:
            failure = Failure(**json.loads((self.folder / "failure.json").read_text()))
        except (*MISSING, ValueError, TypeError):
            return None
        if not (isinstance(failure.error, str) and isinstance(failure.log, str) and failure.cause in get_args(Cause)):
            return None
        return failure if failure.attempt == (self.newest_attempt() or 0) else None

    def metrics(self, start: int = 0) -> Iterator[dict[str, Any]]:
        """The complete metric lines from byte `start` on: `step`, `time` (Unix seconds), `metrics`; half a line is skipped.

        Each step counts once: the first line that has it. Every row carries `end`, the byte after
        it.
        """
        seen: set[tuple[int, str]] = set()
        try:
            stream = (self.folder / "metrics.jsonl").open("rb")
        except MISSING:
            return
        with stream:
            stream.seek(start)
            end = start
            for line in stream:
                end += len(line)
                row = _json(line) if line.endswith(b"\n") else None
                if row is None:
                    continue
                key = (row["step"], _kind(row["metrics"]))
                if key not in seen:
                    seen.add(key)
                    yield {**row, "end": end}

    def owner(self) -> dict[str, Any] | None:
        """What the newest attempt noted about its process: host, pid, cluster job."""
        newest = self.newest_attempt()
        return self._owner(newest) if newest else None

    def last_sign(self) -> float | None:
        """When the newest attempt was claimed, last logged a step or evaluated a batch, in Unix seconds; None before."""
        newest = self.newest_attempt()
        try:
            return self._attempt_path(newest).stat().st_mtime if newest else None
        except MISSING:
            return None

    def checkpoint(self) -> Path | None:
        """The newest checkpoint whose files are what was written; damaged ones are passed over."""
        folders = sorted(
            (self.folder / "checkpoints").glob("**/checkpoint-*"),
            key=lambda folder: int(folder.name.rpartition("-")[2]),
            reverse=True,
        )
        return next((folder for folder in folders if _intact(folder)), None)

    # Writing, by the owner of the newest attempt

    def claim(self, config: RunConfig, force_before: int | None = None, over: int = 0) -> None:
        """Become the newest attempt; raises AlreadyActive while another one lives, AlreadyFinished where nothing is left.

        `force_before`: whatever attempts up to this number left is set aside and done again.
        `over`: attempts up to this number are known to have ended, also where that cannot be seen
        from here.
        """
        (self.folder / "attempts").mkdir(parents=True, exist_ok=True)
        with self._locked():
            newest = self.newest_attempt() or 0
            if newest > over and self._alive(newest) and not self._superseded(newest):
                raise AlreadyActive(f"run {self.folder.name} is being worked on by attempt {newest}")
            forced = force_before is not None and newest <= force_before
            if self.result() is not None and not forced:
                raise AlreadyFinished(f"run {self.folder.name} is finished")
            self.attempt = newest + 1
            path = self._attempt_path(self.attempt)
            draft = path.with_suffix(".draft")
            draft.write_text(json.dumps({**this_process(), "started": time.time()}))
            draft.rename(path)
            if forced:
                self._set_aside()
            elif (self.folder / "result.json").exists() and self.result() is None:
                (self.folder / "result.json").rename(self.folder / f"result.invalid-{self.attempt}.json")
            self._recorded = {(row["step"], _kind(row["metrics"])) for row in self.metrics()}
            self.write("config.yaml", yaml.safe_dump(to_dict(config), sort_keys=False))

    def release(self) -> None:
        """Give the run up while this process lives on (a notebook, for hours), so that it can be claimed again."""
        assert self.attempt is not None
        self._attempt_path(self.attempt).write_text(json.dumps({"released": time.time()}))

    @property
    def checkpoints(self) -> Path:
        """Where this attempt writes its checkpoints; those of the attempts before it are read from theirs."""
        assert self.attempt is not None
        return self.folder / "checkpoints" / f"attempt-{self.attempt:06d}"

    @property
    def model_draft(self) -> Path:
        """Where this attempt writes the trained model; `finish` publishes it as `model`."""
        assert self.attempt is not None
        return self.folder / f".model.{self.attempt:06d}.draft"

    def beat(self) -> None:
        """Show that the attempt goes on, where it takes long to the next step; raises AttemptLost where it must not."""
        with self._owned() as attempt:
            os.utime(self._attempt_path(attempt))

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add one line to the metrics, unless an earlier attempt already recorded that step before it was cut off."""
        with self._owned() as attempt:
            os.utime(self._attempt_path(attempt))
            if (step, _kind(metrics)) in self._recorded:
                return
            line = json.dumps({"step": step, "time": time.time(), "attempt": attempt, "metrics": dict(metrics)})
            self._append_line("metrics.jsonl", line)

    def append_rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add lines of JSON to a file that is kept for reading only."""
        with self._owned():
            for row in rows:
                self._append_line(name, json.dumps(row))

    def write(self, name: str, text: str) -> None:
        """Write a file whole or not at all."""
        with self._owned() as attempt:
            draft = self.folder / f".{name}.{attempt}.draft"
            try:
                with draft.open("w") as stream:
                    stream.write(text)
                    stream.flush()
                    os.fsync(stream.fileno())
                draft.rename(self.folder / name)
            finally:
                draft.unlink(missing_ok=True)

    def finish(self, result: RunResult) -> None:
        """Publish model and result; the run is finished from here on, and its checkpoints are no longer needed."""
        with self._owned():
            if self.model_draft.is_dir():
                shutil.rmtree(self.folder / "model", ignore_errors=True)
                self.model_draft.rename(self.folder / "model")
            self.write("result.json", json.dumps(asdict(result), indent=1))
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
            for left in self.folder.glob(".model.*.draft"):  # of attempts that were cut off
                shutil.rmtree(left, ignore_errors=True)

    def fail(self, error: BaseException) -> None:
        """Note why this attempt failed; the traceback is in the log."""
        assert self.attempt is not None
        last = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
        cause: Cause = "out_of_memory" if any(sign in last for sign in OUT_OF_MEMORY) else "error"
        self.note_failure(Failure(self.attempt, last, str(self.folder / "log.txt"), cause))

    def note_failure(self, failure: Failure) -> None:
        """Note a failure that the attempt itself could not note (it was killed)."""
        draft = self.folder / f".failure.{socket.gethostname()}.{os.getpid()}.draft"
        draft.write_text(json.dumps(asdict(failure)))
        draft.rename(self.folder / "failure.json")

    def seal_checkpoint(self, folder: Path) -> None:
        """Mark a checkpoint as complete, with the digest of every file; those of earlier attempts are then of no use."""
        digests = {str(path.relative_to(folder)): digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}
        with self._owned():
            draft = folder / f".{MARKER}.draft"
            draft.write_text(json.dumps(digests))
            draft.rename(folder / MARKER)
            for other in (self.folder / "checkpoints").iterdir():
                if other != self.checkpoints:
                    shutil.rmtree(other, ignore_errors=True)

    def _set_aside(self) -> None:
        kept = self.folder / "earlier" / f"before-attempt-{self.attempt}"
        kept.mkdir(parents=True, exist_ok=True)
        for path in list(self.folder.iterdir()):
            if path.name not in ("attempts", "earlier", "log.txt", "job.json"):
                path.rename(kept / path.name)

    def _attempt_path(self, attempt: int) -> Path:
        return self.folder / "attempts" / f"{attempt:06d}.json"

    def newest_attempt(self) -> int | None:
        """The number of the newest attempt, or None before the first."""
        try:
            names = os.listdir(self.folder / "attempts")
        except MISSING:
            return None
        return max((int(name[:-5]) for name in names if re.fullmatch(r"\d{6,}\.json", name)), default=None)

    def _alive(self, attempt: int) -> bool:
        try:
            owner = self._owner(attempt)
            if owner is None or "released" in owner or self.failure() is not None:
                return False
            quiet_seconds = time.time() - self._attempt_path(attempt).stat().st_mtime
            return process_lives(owner) if owner["host"] == socket.gethostname() else quiet_seconds < HEARTBEAT_SECONDS
        except (*MISSING, TypeError, KeyError):
            return False  # nobody, or nobody that can be told

    def _superseded(self, attempt: int) -> bool:
        """Whether the attempt belongs to an earlier start of this very cluster job, which the cluster has given up."""
        try:
            earlier, now = (self._owner(attempt) or {}).get("job"), cluster_job()
            return bool(now and earlier and earlier["id"] == now["id"] and earlier["restart"] < now["restart"])
        except (TypeError, KeyError):
            return False

    def _owner(self, attempt: int) -> dict[str, Any] | None:
        try:
            owner = json.loads(self._attempt_path(attempt).read_text())
        except (*MISSING, ValueError):
            return None
        return owner if isinstance(owner, dict) and _is_owner(owner) else None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody else claims or writes meanwhile."""
        try:
            with self._file_lock:
                yield
        except Timeout as error:
            raise AlreadyActive(f"run {self.folder.name} is locked by a process that does not go on") from error

    @contextmanager
    def _owned(self) -> Iterator[int]:
        """Nobody else writes meanwhile, and the attempt is the newest; raises AttemptLost where it is not."""
        with self._locked():
            if self.attempt is None or self.newest_attempt() != self.attempt:
                raise AttemptLost(f"attempt {self.attempt} of run {self.folder.name} is no longer the newest")
            yield self.attempt

    def _append_line(self, name: str, line: str) -> None:
        with (self.folder / name).open("ab+") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    line = "\n" + line  # the process before this one was killed in the middle of a line
            stream.write(line.encode() + b"\n")


def _is_owner(owner: Mapping[str, Any]) -> bool:
    """Whether it reads like `this_process`, or like what `Record.release` leaves."""
    job = owner.get("job")
    in_job = isinstance(job, dict) and isinstance(job.get("id"), str) and type(job.get("restart")) is int
    process = isinstance(owner.get("host"), str) and type(owner.get("pid")) is int
    times = all(isinstance(owner.get(key, 0.0), int | float) for key in ("created", "started"))
    return "released" in owner or (process and times and (job is None or (in_job and isinstance(job.get("node"), str))))


def digest(path: Path) -> str:
    """The BLAKE2b digest of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()


def _intact(folder: Path) -> bool:
    try:
        digests = json.loads((folder / MARKER).read_text())
        return all(digest(folder / name) == value for name, value in digests.items())
    except (OSError, ValueError, AttributeError):
        return False


def _kind(metrics: Mapping[str, float]) -> str:
    """A step has one line of each kind: what training logs, and what evaluation does."""
    return "eval" if any(name.startswith("eval/") for name in metrics) else "train"


def _json(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    whole = (
        isinstance(row, dict)
        and type(row.get("step")) is int
        and isinstance(row.get("time"), int | float)
        and isinstance(row.get("metrics"), dict)
        and all(isinstance(value, int | float) for value in row["metrics"].values())
    )
    return row if whole else None


def this_process() -> dict[str, Any]:
    """What identifies this process on this machine, and the cluster job that it belongs to."""
    process = psutil.Process()
    return {"host": socket.gethostname(), "pid": process.pid, "created": process.create_time(), "job": cluster_job()}


def cluster_job() -> dict[str, Any] | None:
    """The Slurm job of this process: id (`123` or `123_4`), how often it was started before, node. None outside of one."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return None
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return {
        "id": f"{array}_{task}" if array and task else job,
        "restart": int(os.environ.get("SLURM_RESTART_COUNT", "0")),
        "node": os.environ.get("SLURMD_NODENAME", socket.gethostname()),
    }


def process_lives(owner: Mapping[str, Any]) -> bool:
    """Whether the process of this machine that `this_process` identified still runs."""
    try:
        process = psutil.Process(owner["pid"])
        same = abs(process.create_time() - owner["created"]) < CLOCK_TOLERANCE_SECONDS
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
