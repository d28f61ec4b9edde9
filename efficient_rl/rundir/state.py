"""The states of a run."""

from enum import StrEnum


class RunState(StrEnum):
    """How a run is doing. The values are the words of tables, `status --json` and sweep.json.

    A run directory alone tells waiting, running, failed and finished (`RunDirectory.state`). The
    others need a controller: queued its scheduler, stopped and elsewhere its launcher, pruned its
    search.
    """

    WAITING = "waiting"  # no process works on it: not started, or it resumes from its checkpoint
    QUEUED = "queued"  # the cluster's scheduler has it
    RUNNING = "running"  # a live process holds its newest attempt
    FINISHED = "finished"  # result.json is valid
    FAILED = "failed"  # failure.json names the cause
    STOPPED = "stopped"  # asked to stop by its own launcher, after a checkpoint
    ELSEWHERE = "elsewhere"  # running under another command
    PRUNED = "pruned"  # ended early by a search

    @property
    def ended(self) -> bool:
        """Whether the launcher that reported this state has nothing more to do for the run."""
        return self not in (RunState.WAITING, RunState.QUEUED, RunState.RUNNING)
