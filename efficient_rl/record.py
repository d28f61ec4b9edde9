"""Owns the run directory: who works on it, its metrics, checkpoints and result. The directory is the truth.

A run is finished when `result.json` is valid, and only then. Whoever works on a run holds the newest attempt; an attempt is
alive while its process is. Every write checks that the attempt is still the newest, so that an old process that comes back
to life cannot overwrite a newer one.
"""

import hashlib
import json
import os
import re
import shutil
import socket
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import yaml

from efficient_rl.config import RunConfig, to_dict
from efficient_rl.sections import check_types

State = Literal["finished", "active", "failed", "pending"]
MARKER = "complete.json"
MISSING = (FileNotFoundError, NotADirectoryError)
EVALUATED = {"accuracy", "greedy_accuracy", "standard_error", "pass_at_k", "problems", "samples"}
CLOCK_TOLERANCE_SECONDS = 2.0
HEARTBEAT_SECONDS = 900.0  # an attempt on another machine that wrote nothing for so long is given up


class AttemptLost(RuntimeError):
    """A newer attempt owns the run directory; this one must stop and write nothing more."""


class AlreadyActive(RuntimeError):
    """Another live process works on the run."""


@dataclass(frozen=True)
class RunResult:
    """What a finished run measured; `accuracy` is held-out avg@k after training.

    `peak_memory_bytes` is by phase of training, `memory_parts_bytes` what parameters, gradients, optimizer state, reference,
    saved activations and the trunk cache held at most.
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


@dataclass(frozen=True)
class Failure:
    """Why the last attempt ended without a result."""

    attempt: int
    error: str
    log: str


class Record:
    """The directory of one run, at `outputs/runs/<config_hash>`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.attempt: int | None = None
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
        return failure if failure.attempt == self.newest_attempt() else None

    def metrics(self, start: int = 0) -> Iterator[dict[str, Any]]:
        """The complete metric lines from byte `start` on: `step`, `time` (Unix seconds), `metrics`; half a line is skipped.

        Each step counts once: the first line that has it. Every row carries `end`, the byte after it.
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

    def checkpoint(self) -> Path | None:
        """The newest checkpoint whose files are what was written; damaged ones are passed over."""
        folders = sorted(
            (self.folder / "checkpoints").glob("checkpoint-*"),
            key=lambda folder: int(folder.name.rpartition("-")[2]),
            reverse=True,
        )
        return next((folder for folder in folders if _intact(folder)), None)

    # Writing, by the owner of the newest attempt

    def claim(self, config: RunConfig, force: bool = False) -> None:
        """Become the newest attempt; raises AlreadyActive while another one lives. `force` sets a finished result aside."""
        (self.folder / "attempts").mkdir(parents=True, exist_ok=True)
        newest = self.newest_attempt() or 0
        if newest and self._alive(newest):
            raise AlreadyActive(f"run {self.folder.name} is being worked on by attempt {newest}")
        path = self._attempt_path(newest + 1)
        draft = path.with_suffix(f".{socket.gethostname()}.{os.getpid()}.draft")
        draft.write_text(json.dumps({**_process(), "started": time.time()}))
        try:
            os.link(draft, path)  # fails where another process was faster
        except FileExistsError as error:
            raise AlreadyActive(f"run {self.folder.name} was claimed by another process") from error
        finally:
            draft.unlink()
        self.attempt = newest + 1
        if force:
            self._set_aside()
        elif (self.folder / "result.json").exists() and self.result() is None:
            (self.folder / "result.json").rename(self.folder / f"result.invalid-{self.attempt}.json")
        self._recorded = {(row["step"], _kind(row["metrics"])) for row in self.metrics()}
        self.write("config.yaml", yaml.safe_dump(to_dict(config), sort_keys=False))

    def release(self) -> None:
        """Give the run up while this process lives on (a notebook, for hours), so that it can be claimed again."""
        assert self.attempt is not None
        self._attempt_path(self.attempt).write_text(json.dumps({"released": time.time()}))

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add one line to the metrics, unless an earlier attempt already recorded that step before it was cut off."""
        self._check_owner()
        assert self.attempt is not None
        os.utime(self._attempt_path(self.attempt))
        if (step, _kind(metrics)) in self._recorded:
            return
        line = json.dumps({"step": step, "time": time.time(), "attempt": self.attempt, "metrics": dict(metrics)})
        with (self.folder / "metrics.jsonl").open("ab+") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    line = "\n" + line  # the process before this one was killed in the middle of a line
            stream.write(line.encode() + b"\n")

    def write(self, name: str, text: str) -> None:
        """Write a file whole or not at all."""
        self._check_owner()
        draft = self.folder / f".{name}.{self.attempt}.draft"
        try:
            with draft.open("w") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            self._check_owner()
            draft.rename(self.folder / name)
        finally:
            draft.unlink(missing_ok=True)

    def finish(self, result: RunResult) -> None:
        """Publish the result; the run is finished from here on, and its checkpoints are no longer needed."""
        self.write("result.json", json.dumps(asdict(result), indent=1))
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    def fail(self, error: BaseException) -> None:
        """Note why this attempt failed; the traceback is in the log."""
        assert self.attempt is not None
        last = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
        self.note_failure(Failure(self.attempt, last, str(self.folder / "log.txt")))

    def note_failure(self, failure: Failure) -> None:
        """Note a failure that the attempt itself could not note (it was killed)."""
        draft = self.folder / ".failure.json.draft"
        draft.write_text(json.dumps(asdict(failure)))
        draft.rename(self.folder / "failure.json")

    def seal_checkpoint(self, folder: Path) -> None:
        """Mark a checkpoint as complete, with the digest of every file."""
        self._check_owner()
        digests = {str(path.relative_to(folder)): digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}
        draft = folder / f".{MARKER}.draft"
        draft.write_text(json.dumps(digests))
        draft.rename(folder / MARKER)

    def _set_aside(self) -> None:
        kept = self.folder / "earlier" / f"before-attempt-{self.attempt}"
        kept.mkdir(parents=True, exist_ok=True)
        for path in list(self.folder.iterdir()):
            if path.name not in ("attempts", "earlier", "log.txt"):
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
            path = self._attempt_path(attempt)
            owner = json.loads(path.read_text())
            quiet_seconds = time.time() - path.stat().st_mtime
            if "released" in owner:
                return False
            return _runs(owner) if owner["host"] == socket.gethostname() else quiet_seconds < HEARTBEAT_SECONDS
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return False  # nobody, or nobody that can be told

    def _check_owner(self) -> None:
        if self.attempt is None or self.newest_attempt() != self.attempt:
            raise AttemptLost(f"attempt {self.attempt} of run {self.folder.name} is no longer the newest")


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


def _process() -> dict[str, Any]:
    """What identifies this process on this machine."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "created": psutil.Process().create_time()}


def _runs(owner: Mapping[str, Any]) -> bool:
    try:
        process = psutil.Process(owner["pid"])
        same = abs(process.create_time() - owner["created"]) < CLOCK_TOLERANCE_SECONDS
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
