"""Decides what the end of a cluster job means for a run without a result: cause and retry."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from efficient_rl.launch.slurm.commands import CAUSES, VANISHED, JobState
from efficient_rl.launch.slurm.settings import SETUP_FAILED
from efficient_rl.rundir.result import Cause

RETRIED: tuple[Cause, ...] = ("node_failure", "preempted", "time_limit", "not_started")  # the run is not to blame
WORDS: Mapping[Cause, str] = {
    "out_of_memory": "out of memory: the job exceeded what it asked for (launcher.mem_gb)",
    "preempted": "preempted or asked to stop",
    "node_failure": "its node failed",
    "cancelled": "cancelled",
}
OUT_OF_MEMORY = re.compile(r"exceeded memory limit|oom-kill|oom_kill|[Oo]ut [Oo]f [Mm]emory")
NO_PYTHON = re.compile(r"execve\(\):|not found|No such file or directory|Permission denied")
# In the error stream of a job, with its node after slurmstepd where several nodes write to it.
CANCELLED = re.compile(r"slurmstepd\S*: error: \*\*\* (?:JOB|STEP) .*CANCELLED AT \S+(.*)\*\*\*")
DUE_TO: Mapping[str, Cause] = {"TIME LIMIT": "time_limit", "PREEMPTION": "preempted", "NODE FAILURE": "node_failure"}


def ending(state: JobState, started: bool, error_text: str, timeout_min: int | None = None) -> tuple[Cause, str]:
    """Why a run has no result, as a cause and in words; `started`: the job had claimed the run."""
    if state.word == VANISHED:
        return _forgotten(started, error_text)
    cause = CAUSES.get(state.word)
    if state.word == "FAILED" and OUT_OF_MEMORY.search(error_text):
        cause = "out_of_memory"
    if cause == "time_limit":
        limit = "" if timeout_min is None else f" of {timeout_min} min"
        return cause, f"the time limit{limit} was reached (launcher.timeout_min)"
    if cause is not None and (started or cause != "out_of_memory"):
        return cause, WORDS[cause]
    lines = [line for line in error_text.splitlines() if line.strip()]
    if not started:
        if state.word == "FAILED" and (mistake := _mistake(state, lines)) is not None:
            return "error", mistake
        how = WORDS[cause] if cause else f"{state.word}, {[state.exit_code, *lines][-1]}"
        return "not_started", f"its job ended before it began ({how})"
    if state.word == "COMPLETED" or state.exit_code.startswith("143"):
        return "preempted", WORDS["preempted"]
    last = "".join(f": {line}" for line in lines[-1:])
    return "killed", f"its job ended as {state.word} with exit code {state.exit_code}{last}"


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
