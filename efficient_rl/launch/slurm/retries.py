"""Decides what the end of a cluster job means for a run without a result: the cause in words, and whether to try again."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from efficient_rl.launch.slurm.commands import CAUSES, VANISHED, JobState
from efficient_rl.launch.slurm.settings import SETUP_FAILED
from efficient_rl.rundir.result import Cause

RETRIED: tuple[Cause, ...] = ("node_failure", "preempted", "time_limit", "not_started")
OUT_OF_MEMORY = ("exceeded memory limit", "oom-kill", "oom_kill", "Out Of Memory", "out of memory")
WORDS: Mapping[Cause, str] = {
    "out_of_memory": "out of memory: the job exceeded what it asked for (launcher.mem_gb)",
    "preempted": "preempted or asked to stop",
    "node_failure": "its node failed",
    "cancelled": "cancelled",
}
# In the error stream of a job, with its node after slurmstepd where several nodes write to it.
CANCELLED = re.compile(r"slurmstepd\S*: error: \*\*\* (?:JOB|STEP) .*CANCELLED AT \S+(.*)\*\*\*")
DUE_TO: Mapping[str, Cause] = {"TIME LIMIT": "time_limit", "PREEMPTION": "preempted", "NODE FAILURE": "node_failure"}
NO_PYTHON = ("execve():", "not found", "No such file or directory", "Permission denied")


@dataclass(frozen=True)
class Ending:
    """Why a run has no result."""

    cause: Cause
    words: str

    @property
    def may_retry(self) -> bool:
        """Whether the run itself is not to blame."""
        return self.cause in RETRIED


def ending(state: JobState, started: bool, error_text: str, timeout_min: int | None) -> Ending:
    """The ending that Slurm's state and the job's error stream tell of; `started`: the run was claimed by that job."""
    cause = CAUSES.get(state.word)
    if state.word == "FAILED" and any(sign in error_text for sign in OUT_OF_MEMORY):
        cause = "out_of_memory"
    if cause == "time_limit":
        limit = "" if timeout_min is None else f" of {timeout_min} min"
        return Ending(cause, f"the time limit{limit} was reached (launcher.timeout_min)")
    if state.word == VANISHED:
        return _forgotten(started, error_text)
    if cause in ("cancelled", "preempted", "node_failure") or (cause and started):
        return Ending(cause, WORDS[cause])
    last = next((line for line in reversed(error_text.splitlines()) if line.strip()), "")
    if not started and (mistake := _mistake(state, error_text)) is not None:
        return mistake
    if not started:
        how = WORDS[cause] if cause else f"{state.word}, {last or state.exit_code}"
        return Ending("not_started", f"its job ended before it began ({how})")
    if state.word == "COMPLETED" or state.exit_code.startswith("143"):
        return Ending("preempted", WORDS["preempted"])
    return Ending(
        "killed", f"its job ended as {state.word} with exit code {state.exit_code}" + (f": {last}" if last else "")
    )


def _forgotten(started: bool, error_text: str) -> Ending:
    """Of a job that Slurm no longer knows: its error stream tells who ended it, and nothing of a node that failed."""
    signs = CANCELLED.findall(error_text)
    if signs:
        cause: Cause = next((cause for words, cause in DUE_TO.items() if words in signs[-1]), "cancelled")
        return Ending(cause, f"{cause.replace('_', ' ')}, by its error stream; Slurm no longer knows its job")
    if started:
        return Ending("node_failure", "its job is gone: Slurm no longer knows it, and it left no word (a node that failed?)")
    return Ending("not_started", "Slurm does not know its job")


def _mistake(state: JobState, error_text: str) -> Ending | None:
    """Of a job that could not begin: what is wrong with its request, and would be again."""
    lines = [line for line in error_text.splitlines() if line.strip()]
    if state.word == "FAILED" and (told := [line for line in lines if line.startswith(SETUP_FAILED)]):
        return Ending("error", told[-1])
    unknown = state.exit_code.split(":")[0] in ("126", "127")
    if state.word == "FAILED" and (unknown or any("execve():" in line for line in lines)):
        told = (
            [line for line in lines if any(sign in line for sign in NO_PYTHON)] or lines or [f"exit code {state.exit_code}"]
        )
        return Ending("error", f"Python could not be started on the node (launcher.python): {told[0]}")
    return None


def micro_batches_after(
    cause: Cause, tries: Sequence[Cause], now: int, config: Mapping[str, Any], oom_retry: bool, processes: int = 1
) -> int | None:
    """Into how many parts to cut each batch after running out of memory: twice as many, once; None: do not try again."""
    size = config["grpo"]["per_device_train_batch_size"] // processes
    if cause != "out_of_memory" or not oom_retry or "out_of_memory" in tries or size % (2 * now):
        return None
    return 2 * now
