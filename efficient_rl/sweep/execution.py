"""Executes a plan: launches what is pending, sends its metrics to the tracking store, prints the outcome."""

import logging
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.markup import escape

from efficient_rl.cli import DONE, FAILED, STOPPED
from efficient_rl.config.run_config import RunConfig
from efficient_rl.launch.base import build_launcher
from efficient_rl.rundir.state import RunState
from efficient_rl.sweep.controller import Controller, Outcome
from efficient_rl.sweep.display import Row, failure_table
from efficient_rl.sweep.estimate import approve, finished_results, make_budget
from efficient_rl.sweep.labels import label_runs
from efficient_rl.sweep.plan import Plan
from efficient_rl.sweep.request import Request
from efficient_rl.tracking.collector import Collector, TrackedRun, resolve_uri, sync_until

logger = logging.getLogger(__name__)
SYNC_SECONDS = 5.0
LAST_SYNC_SECONDS = 20.0


def execute_plan(request: Request, plan: Plan, console: Console) -> int:
    """Launch what is pending and wait for it; the exit status is 0, 1 where a run failed, or 130 where it was stopped.

    Jobs of a cluster are left running where the command is stopped or told to detach.
    """
    launcher = build_launcher(request.settings["launcher"])
    if plan.pending:
        budget = make_budget(plan.pending, finished_results(request, plan.finished), launcher.gpus_per_run)
        if launcher.detaches:
            console.print(str(budget), highlight=False)
        approve(budget, launcher.max_gpu_hours, console)
    labels = label_runs(plan.runs)
    listed = {run.config_hash: run for run in request.runs}
    request.write_manifest(listed.values(), labels, launcher.detaches)
    controller = Controller(request, launcher, console)
    tracked = []
    for state, runs in _initial_states(plan):
        for run in runs:
            label, folder = labels[run.config_hash], request.folder(run)
            controller.add_row(Row(folder, label, run.grpo.max_steps, state))
            tracked.append(TrackedRun(folder, label, run.flat()))
    active = [run.config_hash for run in plan.active]

    def run_all() -> Outcome:
        if not plan.pending and not plan.active:
            return "ended"
        start = partial(controller.start, [*plan.active, *plan.pending], active)
        return controller.run(start, lambda ended: controller.busy)

    return run_with_tracking(request, tracked, controller, console, run_all)


def run_with_tracking(
    request: Request, tracked: Sequence[TrackedRun], controller: Controller, console: Console, run: Callable[[], Outcome]
) -> int:
    """Call `run` while the metrics of `tracked` are sent to the store, then print the outcome; the exit status.

    `tracked` may grow meanwhile.
    """
    uri = resolve_uri(request.settings["tracking"]["uri"])
    collector = Collector(uri, request.name, request.command, request.outputs) if uri else None
    with _background_sync(collector, tracked):
        outcome = run()
    failed = [row for row in controller.rows.values() if row.state == "failed"]
    complete = None if outcome == "left" else outcome == "ended" and not failed
    _last_sync(collector, tracked, console, complete)
    _print_outcome(request, controller.rows, outcome, console)
    if uri:
        _print(console, f"compare:  python -m efficient_rl.ui {shlex.quote(f'sweep={request.name}')}")
    if outcome == "stopped":
        return STOPPED
    return FAILED if failed else DONE


def _initial_states(plan: Plan) -> tuple[tuple[RunState, Sequence[RunConfig]], ...]:
    return (RunState.FINISHED, plan.finished), (RunState.ELSEWHERE, plan.active), (RunState.WAITING, plan.pending)


@contextmanager
def _background_sync(collector: Collector | None, tracked: Sequence[TrackedRun]) -> Iterator[None]:
    """Send news to the store every few seconds from a thread; its errors wait for the last attempt."""
    if collector is None:
        yield
        return
    ended = threading.Event()

    def send() -> None:
        while not ended.wait(SYNC_SECONDS):
            error = sync_until(collector, tracked, seconds=0)
            if error:
                logger.debug("tracking: %s", error)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=60)


def _last_sync(collector: Collector | None, tracked: Sequence[TrackedRun], console: Console, complete: bool | None) -> None:
    """Send what is left and end the parent run, even if the background had sent everything before; None leaves it open."""
    if collector is None:
        return
    error = sync_until(collector, tracked, LAST_SYNC_SECONDS, complete)
    if error is not None:
        console.print(
            f"[yellow]tracking store {escape(collector.uri)} did not take everything ({escape(error)}); "
            "nothing is lost, the same command sends the rest[/]",
            soft_wrap=True,
        )


def _print_outcome(request: Request, rows: Mapping[str, Row], outcome: Outcome, console: Console) -> None:
    """How many runs are finished, why runs failed, and the commands that come next."""
    failed = [row for row in rows.values() if row.state == RunState.FAILED]
    finished = sum(row.state == RunState.FINISHED for row in rows.values())
    _print(console, f"{finished} of {len(rows)} runs of sweep {request.name} finished")
    if failed:
        console.print(failure_table(failed))
    if outcome == "left":
        words = [request.name]
        if request.settings["output"] != "outputs":
            words.append(f"output={request.settings['output']}")
        shown = shlex.join(["python", "-m", "efficient_rl.status", *words])
        _print(console, f"the jobs go on without this command; {shown} shows them")
    if outcome != "ended" or failed:
        _print(console, f"to go on: {request.command}")
    if finished:
        _print(console, f"report:   python -m analysis.report {shlex.quote(f'sweep={request.name}')}")


def _print(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)
