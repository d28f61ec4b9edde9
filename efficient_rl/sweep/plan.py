"""Decides what is left to run: requested minus duplicate, finished and active. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from efficient_rl.config.run_config import RunConfig
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.state import RunState
from efficient_rl.sweep.request import Request


@dataclass(frozen=True)
class Plan:
    """The distinct runs of a request by state; `duplicates` counts repeated points."""

    pending: tuple[RunConfig, ...]
    active: tuple[RunConfig, ...]
    finished: tuple[RunConfig, ...]
    duplicates: int

    @property
    def runs(self) -> tuple[RunConfig, ...]:
        return (*self.finished, *self.active, *self.pending)


def make_plan(requested: Iterable[RunConfig], states: Mapping[str, RunState], force: bool = False) -> Plan:
    """Sort runs by their state (missing: waiting); `force` makes finished ones pending."""
    distinct: dict[str, RunConfig] = {}
    total = 0
    for run in requested:
        total += 1
        distinct.setdefault(run.config_hash, run)

    def of(*wanted: RunState) -> tuple[RunConfig, ...]:
        return tuple(run for key, run in distinct.items() if states.get(key, RunState.WAITING) in wanted)

    to_do = {RunState.WAITING, RunState.FAILED} | ({RunState.FINISHED} if force else set())
    return Plan(
        pending=of(*to_do),
        active=of(RunState.RUNNING),
        finished=() if force else of(RunState.FINISHED),
        duplicates=total - len(distinct),
    )


def read_plan(request: Request) -> Plan:
    """The plan, from the states of the run directories."""
    states = {run.config_hash: RunDirectory(request.folder(run)).state() for run in request.runs}
    return make_plan(request.runs, states, force=request.settings["force"])
