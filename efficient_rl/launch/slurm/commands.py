"""Runs Slurm's commands: submission, job states, limits, cancelling, requeueing."""

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from efficient_rl.errors import SchedulerError
from efficient_rl.libraries import PROCESS_GROUP

logger = logging.getLogger(__name__)
COMMAND_SECONDS = 60
IDS_A_CALL = 200
DEFAULT_MAX_ARRAY = 1000
QUEUE_FIELDS = "JobArrayID:64|,State:32|,exit_code:16|,NodeList:256|,Reason:128|"
NEEDED = ("sbatch", "squeue", "scontrol", "scancel")  # a site without accounting may have no sacct
WAITING = (
    *("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"),
    *("RESIZING", "POWER_UP_NODE", "EXPEDITING"),
)
SUSPENDED = ("SUSPENDED", "STOPPED")
RUNNING = ("RUNNING", "COMPLETING", *SUSPENDED, "SIGNALING", "STAGE_OUT", "UPDATE_DB")
VANISHED = "VANISHED"  # ours: Slurm does not know the job, or no longer
SETTINGS_OF_SLURM = re.compile(r"(SLURMD?|SBATCH|SRUN|SALLOC|SQUEUE|SACCT|SCANCEL|SCONTROL|SINFO)_.*")
CONNECTION = ("SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS")  # how Slurm is reached, in jobs too
DEVICES = re.compile(r"(CUDA|ROCR|HIP)_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL|ZE_AFFINITY_MASK")
THREADS = re.compile(r"(OMP|MKL|OPENBLAS)_NUM_THREADS|OMP_(PLACES|PROC_BIND)|(GOMP|KMP)_(CPU_)?AFFINITY")
AWAY = (
    *("Unable to contact", "connect failure", "did not answer", "timed out", "temporarily unable"),
    *("Connection re", "Transport endpoint", "Zero Bytes", "Unexpected message", "communication"),
)
REFUSED = re.compile(r"error:|fatal:|(unrecognized|invalid|ambiguous) option|requires an argument|Try .sbatch")


class Refused(SchedulerError):
    """Slurm has for certain not taken the jobs; after another SchedulerError it may have."""


def is_away(error: str) -> bool:
    """Whether a command could not talk to the controller, or lost the connection."""
    return any(sign.lower() in error.lower() for sign in AWAY)


def is_refusal(error: str) -> bool:
    """Whether sbatch says that the controller, or sbatch itself, has refused the request."""
    return REFUSED.search(error) is not None and not is_away(error)


def job_environment(own: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What Slurm's commands and jobs inherit: all but an allocation and process group.

    SLURM_CONF and what else reaches the controller stays. From within an allocation, its numbers of
    threads do not pass on either.
    """
    dropped = [SETTINGS_OF_SLURM, PROCESS_GROUP, DEVICES]
    if "SLURM_JOB_ID" in own:
        dropped.append(THREADS)
    kept = {}
    for name, value in own.items():
        if name in CONNECTION or not any(pattern.fullmatch(name) for pattern in dropped):
            kept[name] = value
    return kept


def require_slurm() -> None:
    """Raise SchedulerError unless this machine has Slurm's commands."""
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        text = f"launcher=slurm needs Slurm's commands, and {', '.join(missing)}"
        raise SchedulerError(f"{text} cannot be found in PATH; run on a login node, or use launcher=local")


def sbatch(script: Path) -> str | None:
    """Submit a script with our environment: the id of its job, or array; None for an odd answer.

    Raises Refused, or another SchedulerError where it is unknown whether Slurm has the job.
    """
    try:
        answer = _run(["sbatch", "--parsable", "--export=ALL", str(script)])
    except SchedulerError as error:
        if is_refusal(str(error)):
            raise Refused(str(error)) from error
        raise
    match = re.fullmatch(r"(\d+)(;\S+)?", answer.strip())
    return match[1] if match else None


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
    def suspended(self) -> bool:
        """Whether it has been stopped to make room, and will go on by itself."""
        return self.word in SUSPENDED

    @property
    def ended(self) -> bool:
        """Whether the job has ended and will not start again by itself."""
        return not (self.waits or self.running)


def job_states(ids: Collection[str]) -> dict[str, JobState]:
    """The states of all these jobs (`123` or `123_4`), by sacct and squeue, else VANISHED.

    Accounting learns late of waiting jobs and of those that start again, and some sites have none:
    of a job that has not ended, the controller's word counts.
    """
    states = dict.fromkeys(ids, JobState(VANISHED)) | accounted(ids)
    doubtful = [name for name, state in states.items() if not state.running and state.word != "COMPLETED"]
    return corrected(states, queued(doubtful)) if doubtful else states


def corrected(states: Mapping[str, JobState], by_controller: Mapping[str, JobState]) -> dict[str, JobState]:
    """The states, but the controller's where only it knows the job, or says that it goes on."""
    found = dict(states)
    for name, state in by_controller.items():
        if not state.ended or name not in found or found[name].word == VANISHED:
            found[name] = state
    return found


def accounted(ids: Collection[str]) -> dict[str, JobState]:
    """The states of those jobs that the accounting knows; nothing on a site without accounting."""
    try:
        return _states(["sacct", "-X", "-n", "-P", "-o", "JobID,State,ExitCode,NodeList"], ids)
    except SchedulerError as error:
        logger.debug("no accounting: %s", error)
        return {}


def queued(ids: Collection[str]) -> dict[str, JobState]:
    """The states of those jobs that the controller knows, with the reason why they wait."""
    return _states(["squeue", "-h", "-r", "-t", "all", "-O", QUEUE_FIELDS], ids)


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
            name, word, exit_code, node, reason = [*map(str.strip, line.split("|")), "", "", "", ""][:5]
            if exit_code.isdigit():  # squeue prints what `wait` returned
                exit_code = f"{int(exit_code) >> 8}:{int(exit_code) & 127}"
            state = JobState(word.split(" ")[0].rstrip("+"), exit_code, _known(node), _known(reason))
            states |= dict.fromkeys(_expanded(name), state if state.waits else replace(state, reason=""))
    return {name: states[name] for name in ids if name in states}


def _known(text: str) -> str:
    """What Slurm prints of a node list or reason, "" where it means none."""
    return "" if text in ("None", "None assigned", "(null)") else text


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
    environment = job_environment() | {"SLURM_BITSTR_LEN": "0"}  # long lists of tasks in full
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False, env=environment)
    except FileNotFoundError as error:
        raise Refused(f"{command[0]} is not installed here; run on a login node, or use launcher=local") from error
    except OSError as error:
        raise Refused(f"{command[0]} cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerError(f"{command[0]} did not answer within {COMMAND_SECONDS} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
        raise SchedulerError(said if said.startswith(command[0]) else f"{command[0]}: {said}")
    return done.stdout
