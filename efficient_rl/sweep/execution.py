"""Carries a plan out: launches what is pending, watches it, collects it into the tracking store, reports what failed."""

import shlex
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.markup import escape

from efficient_rl.config.run_config import RunConfig
from efficient_rl.launch.base import build_launcher
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.state import RunState
from efficient_rl.sweep.budget import approve, make_budget
from efficient_rl.sweep.controller import Flight, How
from efficient_rl.sweep.display import Row, failure_table
from efficient_rl.sweep.labels import label_runs
from efficient_rl.sweep.plan import Plan
from efficient_rl.sweep.request import Request
from efficient_rl.tracking.client import resolve_uri
from efficient_rl.tracking.collector import Collector
from efficient_rl.tracking.experiment import TrackedRun
from efficient_rl.tracking.sync import synced

EXIT_FAILED, EXIT_STOPPED = 1, 130


def carry_out(request: Request, plan: Plan, console: Console) -> int:
    """Do the plan; the exit status is 0, 1 where a run failed, or 130 where it was stopped.

    Jobs of a cluster are left to go on where the command is stopped or told to detach.
    """
    launcher = build_launcher(request.settings["launcher"])
    if plan.pending:
        known = [
            (run, result) for run in plan.finished if (result := RunDirectory(request.folder(run)).result()) is not None
        ]
        budget = make_budget(plan.pending, known, launcher.gpus_per_run)
        if launcher.detaches:
            console.print(str(budget), highlight=False)
        approve(budget, request.watch.max_gpu_hours, console)
    labels = label_runs(plan.runs)
    listed = sorted(plan.runs, key=_request_order(request))
    request.manifest(listed, labels, launcher.detaches).write(request.outputs)
    tracked = [TrackedRun(request.folder(run), labels[run.config_hash], run.flat()) for run in plan.runs]
    states = {RunState.FINISHED: plan.finished, RunState.ELSEWHERE: plan.active, RunState.WAITING: plan.pending}
    rows = [
        Row(request.folder(run), labels[run.config_hash], run.grpo.max_steps, state)
        for state, runs in states.items()
        for run in runs
    ]
    flight = Flight(request, launcher, console, rows)
    active = [run.config_hash for run in plan.active]

    def watch() -> How:
        if not plan.pending and not plan.active:
            return "ended"
        return flight.fly(lambda: flight.start([*plan.active, *plan.pending], active), lambda ended: flight.busy)

    return collected(request, tracked, flight, console, watch)


def collected(
    request: Request, tracked: Sequence[TrackedRun], flight: Flight, console: Console, watch: Callable[[], How]
) -> int:
    """Call `watch` while the tracking store gets the news of `tracked`, which may grow; say the outcome; the exit status."""
    uri = resolve_uri(request.settings["tracking"]["uri"])
    collector = Collector(uri, request.name, request.command, request.outputs) if uri else None
    with synced(collector, tracked) as last:
        how = watch()
        failed = [row for row in flight.rows.values() if row.state == "failed"]
        last.complete = None if how == "left" else how == "ended" and not failed
    if last.error is not None:
        console.print(
            f"[yellow]tracking store {escape(str(uri))} did not take everything ({escape(last.error)}); "
            "nothing is lost, the same command sends the rest[/]",
            soft_wrap=True,
        )
    _say_outcome(request, flight.rows, failed, how, uri, console)
    return EXIT_STOPPED if how == "stopped" else EXIT_FAILED if failed else 0


def _request_order(request: Request) -> Callable[[RunConfig], int]:
    order = {run.config_hash: index for index, run in reversed(list(enumerate(request.runs)))}
    return lambda run: order[run.config_hash]


def _say_outcome(
    request: Request, rows: dict[str, Row], failed: Sequence[Row], how: How, uri: str | None, console: Console
) -> None:
    finished = sum(row.state == "finished" for row in rows.values())

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    named = shlex.quote(f"sweep={request.name}")
    say(f"{finished} of {len(rows)} runs of sweep {request.name} finished")
    if failed:
        console.print(failure_table(failed))
    if how == "left":
        words = [request.name] + (
            [] if request.settings["output"] == "outputs" else [f"output={request.settings['output']}"]
        )
        say(f"the jobs go on without this command; python -m efficient_rl.status {shlex.join(words)} shows them")
    if how != "ended" or failed:
        say(f"to go on: {request.command}")
    if finished:
        say(f"report:   python -m analysis.report {named}")
    if uri:
        say(f"compare:  python -m efficient_rl.ui {named}")
