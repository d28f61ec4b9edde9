"""Runs Slurm's commands: job states, limits, cancelling, requeueing (submitit runs sbatch)."""

import logging
import re
import subprocess
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from efficient_rl.errors import SchedulerError
from efficient_rl.rundir.result import Cause

logger = logging.getLogger(__name__)
COMMAND_SECONDS = 60
IDS_A_CALL = 200
DEFAULT_MAX_ARRAY = 1000
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESIZING")
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT")
VANISHED = "VANISHED"  # ours: Slurm does not know the job, or no longer
CAUSES: dict[str, Cause] = {
    "OUT_OF_MEMORY": "out_of_memory",
    "TIMEOUT": "time_limit",
    "DEADLINE": "time_limit",
    "PREEMPTED": "preempted",
    "NODE_FAIL": "node_failure",
    "BOOT_FAIL": "node_failure",
    "CANCELLED": "cancelled",
    "REVOKED": "cancelled",
}


@dataclass(frozen=True)
class JobState:
    """What Slurm says about a job: its state word, exit code, node and, while it waits, why."""

    word: str
    exit_code: str = "0:0"
    node: str = ""
    reason: str = ""

    @property
    def waits(self) -> bool:
        """Whether it has no nodes yet, or again."""
        return self.word in WAITING

    @property
    def running(self) -> bool:
        """Whether it has its nodes."""
        return self.word in RUNNING

    @property
    def ended(self) -> bool:
        """Whether the job has ended and will not start again by itself."""
        return not (self.waits or self.running)


def job_states(ids: Collection[str]) -> dict[str, JobState]:
    """The states of all these jobs (`123` or `123_4`), by sacct, else by squeue, else VANISHED.

    Accounting learns of waiting jobs late, and some sites have none.
    """
    states = dict.fromkeys(ids, JobState(VANISHED)) | accounted(ids)
    missing = [name for name, state in states.items() if state.word == VANISHED]
    return states | queued(missing) if missing else states


def accounted(ids: Collection[str]) -> dict[str, JobState]:
    """The states of those jobs that the accounting knows; nothing on a site without accounting."""
    try:
        return _states(["sacct", "-X", "-n", "-P", "-o", "JobID,State,ExitCode,NodeList"], ids)
    except SchedulerError as error:
        logger.debug("no accounting: %s", error)
        return {}


def queued(ids: Collection[str]) -> dict[str, JobState]:
    """The states of those jobs that the controller knows: waiting, running, just ended."""
    return _states(["squeue", "-h", "-t", "all", "-o", "%i|%T|0:0|%N"], ids)


def _states(command: list[str], ids: Collection[str]) -> dict[str, JobState]:
    masters = sorted({name.split("_")[0] for name in ids})
    states: dict[str, JobState] = {}
    for start in range(0, len(masters), IDS_A_CALL):
        try:
            text = _run([*command, "-j", ",".join(masters[start : start + IDS_A_CALL])])
        except SchedulerError as error:
            if "Invalid job id" not in str(error):  # squeue, of a single job that ended long ago
                raise
            continue
        for line in text.splitlines():
            name, word, exit_code, node = [*line.strip().split("|"), "", "", ""][:4]
            state = JobState(word.split(" ")[0].rstrip("+"), exit_code, node)
            states |= dict.fromkeys(_expanded(name), state)
    return {name: states[name] for name in ids if name in states}


def _expanded(name: str) -> Iterator[str]:
    """The ids in the first column of sacct: `7`, `7_2`, or those of `7_[0-3,8%2]`."""
    match = re.fullmatch(r"(\d+)_\[([\d,\-]+)(%\d+)?\]", name)
    if match is None:
        yield name
        return
    for part in match[2].split(","):
        first, _, last = part.partition("-")
        yield from (f"{match[1]}_{index}" for index in range(int(first), int(last or first) + 1))


def find_job(name: str) -> str | None:
    """The id of the newest job, or job array, of that name; None where Slurm knows none."""
    text = _run(["squeue", "-h", "-t", "all", "-o", "%F", "--name", name])
    if not text.split():
        try:
            text = _run(["sacct", "-X", "-n", "-P", "-o", "JobID", "-S", "now-7days", "--name", name])
        except SchedulerError:
            return None
    found = {line.strip().split("_")[0] for line in text.split()}
    return max(found, key=int) if found else None


def waiting_reasons(ids: Collection[str]) -> dict[str, str]:
    """Why jobs wait, in Slurm's word (Resources, Priority ...), by job or array id."""
    masters = sorted({name.split("_")[0] for name in ids})[:IDS_A_CALL]
    if not masters:
        return {}
    text = _run(["squeue", "-h", "-t", "PENDING", "-o", "%F|%r", "-j", ",".join(masters)])
    return dict(re.findall(r"^(\w+)\|(.*)$", text, re.MULTILINE))


def cancel(ids: Sequence[str]) -> None:
    """End jobs for good, whatever state they are in."""
    for start in range(0, len(ids), IDS_A_CALL):
        _run(["scancel", *ids[start : start + IDS_A_CALL]])


def requeue(job: str) -> None:
    """Kill a job and put it back into the queue."""
    _run(["scontrol", "requeue", job])


def max_array_size() -> int:
    """The most tasks that one array may have here."""
    try:
        match = re.search(r"MaxArraySize\s*=\s*(\d+)", _run(["scontrol", "show", "config"]))
    except SchedulerError:
        return DEFAULT_MAX_ARRAY
    return max(1, int(match[1]) - 1) if match else DEFAULT_MAX_ARRAY


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    except FileNotFoundError as error:
        raise SchedulerError(f"{command[0]} is not installed here; run on a login node, or use launcher=local") from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerError(f"{command[0]} did not answer within {COMMAND_SECONDS} s") from error
    if done.returncode:
        raise SchedulerError(f"{command[0]}: {(done.stderr or done.stdout).strip() or done.returncode}")
    return done.stdout
