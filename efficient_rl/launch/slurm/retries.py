"""Decides what the end of a cluster job means for a run without a result: cause and retry."""

import re
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from efficient_rl.launch.slurm.commands import VANISHED, JobState
from efficient_rl.launch.slurm.settings import SETUP_FAILED
from efficient_rl.launch.worker import DISK_FULL, EXIT_DISK_FULL
from efficient_rl.rundir.result import Cause

RETRIED: tuple[Cause, ...] = ("node_failure", "preempted", "time_limit", "not_started")  # the run is not to blame
NODE_CAUSES: tuple[Cause, ...] = ("node_failure", "not_started")  # another node may do better
CAUSES: Mapping[str, Cause] = {
    "OUT_OF_MEMORY": "out_of_memory",
    "TIMEOUT": "time_limit",
    "PREEMPTED": "preempted",
    "NODE_FAIL": "node_failure",
    "BOOT_FAIL": "node_failure",
    "LAUNCH_FAILED": "node_failure",
    "RECONFIG_FAIL": "node_failure",
    "CANCELLED": "cancelled",
    "DEADLINE": "cancelled",
    "REVOKED": "cancelled",
}
WORDS: Mapping[Cause, str] = {
    "out_of_memory": "out of memory: the job exceeded what it asked for (launcher.mem_gb)",
    "preempted": "preempted or asked to stop",
    "node_failure": "its node failed",
    "cancelled": "cancelled",
}
STATE_WORDS = {
    "DEADLINE": "cancelled: it could not end before its deadline (launcher.additional.deadline)",
    "REVOKED": "cancelled: another cluster of the federation has taken the job",
    "BOOT_FAIL": "its node failed to boot",
}
ASKED_TO_END = (signal.SIGTERM, signal.SIGUSR2)  # a checkpoint is written; or Python had not begun
CRASHES = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)
EXIT_RUN_FAILED = 65  # of our job: a run has failed, and its directory says why
OUT_OF_MEMORY = re.compile(r"exceeded memory limit|oom-kill|oom_kill|[Oo]ut [Oo]f [Mm]emory")
NO_PYTHON = re.compile(r"execve\(\):|not found|No such file or directory|Permission denied")
TRACEBACK = "Traceback (most recent call last):"
OF_SLURM = re.compile(r"(srun|slurmstepd\S*): ")
# In the error stream of a job, with its node after slurmstepd where several nodes write to it.
CANCELLED = re.compile(r"slurmstepd\S*: error: \*\*\* (?:JOB|STEP) .*CANCELLED AT \S+(.*)\*\*\*")
DUE_TO: Mapping[str, Cause] = {"TIME LIMIT": "time_limit", "PREEMPTION": "preempted", "NODE FAILURE": "node_failure"}


def ending(state: JobState, started: bool, error_text: str, timeout_min: int | None = None) -> tuple[Cause, str]:
    """Why a run has no result, as a cause and in words; `started`: the job had claimed the run."""
    if state.word == VANISHED:
        return _forgotten(started, error_text)
    cause = CAUSES.get(state.word)
    if state.word == "FAILED":
        cause = _cause_of_exit(state.exit_code, error_text)
    if cause == "time_limit":
        limit = "" if timeout_min is None else f" of {timeout_min} min"
        return cause, f"the time limit{limit} was reached (launcher.timeout_min)"
    if cause == "node_failure" and state.node:
        return cause, f"{STATE_WORDS.get(state.word, WORDS[cause])} ({state.node})"
    if cause is not None and (started or cause != "out_of_memory"):
        return cause, STATE_WORDS.get(state.word, WORDS[cause])
    lines = [line for line in error_text.splitlines() if line.strip()]
    if state.exit_code == f"{EXIT_DISK_FULL}:0":
        return "error", DISK_FULL
    if not started:
        if state.word == "FAILED" and (mistake := _mistake(state, lines)) is not None:
            return "error", mistake
        how = WORDS[cause] if cause else f"{state.word}, {last_word(lines) or exit_words(state.exit_code)}"
        on = f" on {state.node}" if state.node else ""
        return "not_started", f"its job ended{on} before it began ({how})"
    if state.word == "COMPLETED" or state.exit_code == f"{EXIT_RUN_FAILED}:0":
        return "preempted", WORDS["preempted"]  # the run was left with a checkpoint, whatever others of its job did
    last = last_word(lines)
    return "killed", f"its job ended as {state.word} with {exit_words(state.exit_code)}" + (f": {last}" if last else "")


def signal_of(exit_code: str) -> int:
    """The signal that ended a job, 0 for none.

    sacct writes `0:15`, or of a process that exits with 143 (128 more) either that or `15:0`.
    """
    code, _, number = exit_code.partition(":")
    if number.isdigit() and int(number):
        return int(number)
    status = int(code) if code.isdigit() else 0
    return status - 128 if status > 128 else status


def exit_words(exit_code: str) -> str:
    """An exit code in words, with the signal where it tells of a crash."""
    number = signal_of(exit_code)
    if number not in CRASHES:
        return f"exit code {exit_code}"
    perhaps = ": out of memory, perhaps" if number == signal.SIGKILL else ""
    return f"exit code {exit_code} ({signal.Signals(number).name}{perhaps})"


def last_word(lines: Sequence[str]) -> str:
    """The line of an error stream that says most: the error of its last traceback, or the last.

    What srun and slurmstepd add counts only where nobody else says anything.
    """
    begins = [number for number, line in enumerate(lines) if line.startswith(TRACEBACK)]
    for line in lines[begins[-1] + 1 :] if begins else ():
        if not line[0].isspace():
            return line
    own = [line for line in lines if not OF_SLURM.match(line)]
    return ["", *lines, *own][-1]


def _cause_of_exit(exit_code: str, error_text: str) -> Cause | None:
    if OUT_OF_MEMORY.search(error_text):
        return "out_of_memory"
    return "preempted" if signal_of(exit_code) in ASKED_TO_END else None


def _forgotten(started: bool, error_text: str) -> tuple[Cause, str]:
    """The ending of a job that Slurm no longer knows, from its error stream."""
    signs = CANCELLED.findall(error_text)
    if signs:
        due = next((cause for words, cause in DUE_TO.items() if words in signs[-1]), None)
        cause: Cause = due or "cancelled"
        return cause, f"{cause.replace('_', ' ')}, by its error stream; Slurm no longer knows its job"
    if started:
        return "node_failure", "its job is gone: Slurm no longer knows it, and it left no message (a node that failed?)"
    return "not_started", "Slurm does not know its job"


def _mistake(state: JobState, lines: Sequence[str]) -> str | None:
    """What is wrong with the request, if the job could never begin."""
    setup = [line for line in lines if line.startswith(SETUP_FAILED)]
    if setup:
        return setup[-1]
    unknown = state.exit_code.split(":")[0] in ("126", "127")
    if not unknown and not any("execve():" in line for line in lines):
        return None
    said = [*filter(NO_PYTHON.search, lines), *lines, f"exit code {state.exit_code}"]
    return f"Python could not be started on the node (launcher.python): {said[0]}"


def micro_batches_after(
    cause: Cause,
    tries: Sequence[Cause],
    now: int,
    config: Mapping[str, Any],
    oom_retry: bool,
    processes: int = 1,
) -> int | None:
    """Into how many parts to cut each batch after running out of memory; None: no retry."""
    size = config["grpo"]["per_device_train_batch_size"] // processes
    if cause != "out_of_memory" or not oom_retry or "out_of_memory" in tries or size % (2 * now):
        return None
    return 2 * now
