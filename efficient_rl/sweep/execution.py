"""Executes a plan: launches pending runs, tracks their metrics, prints the outcome."""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from rich.console import Console
from rich.text import Text

from efficient_rl.cli import DONE, FAILED, STOPPED, print_line
from efficient_rl.launch.base import build_launcher
from efficient_rl.rundir.state import RunState
from efficient_rl.sweep.controller import Controller, Outcome
from efficient_rl.sweep.display import Row, failure_text
from efficient_rl.sweep.estimate import approve, known_runs, make_budget
from efficient_rl.sweep.labels import label_runs
from efficient_rl.sweep.plan import Plan
from efficient_rl.sweep.request import Request
from efficient_rl.tracking.client import resolve_uri
from efficient_rl.tracking.collector import Collector
from efficient_rl.tracking.experiment import TrackedRun
from efficient_rl.tracking.sync import LastSync, synced


def execute_plan(request: Request, plan: Plan, console: Console) -> int:
    """Launch pending runs and wait; exit status 0, 1 (a run failed) or 130 (stopped).

    Jobs of a cluster are left running where the command is stopped or told to detach.
    """
    launcher = build_launcher(request.settings["launcher"])
    request.check_models(plan.pending, launcher, console)
    if plan.pending:
        known = known_runs(request, {run.model.path for run in plan.pending})
        budget = make_budget(plan.pending, known, launcher.gpus_per_run)
        if launcher.detaches:
            console.print(str(budget), highlight=False)
        approve(budget, request.watch.max_gpu_hours, console)
    labels = label_runs(plan.runs)
    listed = {run.config_hash: run for run in request.runs}
    request.write_manifest(listed.values(), labels, launcher.detaches)
    controller = Controller(request, launcher, console)
    tracked = []
    by_state = {RunState.FINISHED: plan.finished, RunState.ELSEWHERE: plan.active, RunState.WAITING: plan.pending}
    for state, runs in by_state.items():
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
    """Call `run` while metrics of `tracked` are sent, then print the outcome; the exit status.

    `tracked` may grow meanwhile.
    """
    uri = resolve_uri(request.settings["tracking"]["uri"])
    collector = Collector(uri, request.name, request.command, request.outputs) if uri else None
    with synced(collector, tracked) as last:
        outcome = run()
        failed = [row for row in controller.rows.values() if row.state is RunState.FAILED]
        idle = outcome == "left" and any(row.state is RunState.WAITING for row in controller.rows.values())
        if outcome != "left":
            last.complete = outcome == "ended" and not failed
    _print_tracking(str(uri), last, console)
    _print_outcome(request, controller.rows, outcome, console)
    if uri:
        print_line(console, f"compare:  python -m efficient_rl.ui {shlex.quote(f'sweep={request.name}')}")
    if outcome == "stopped":
        return STOPPED
    return FAILED if failed or idle else DONE


def _print_tracking(uri: str, last: LastSync, console: Console) -> None:
    """What the tracking store lacks."""
    if last.error is not None:
        text = (
            f"tracking store {uri} did not take everything ({last.error}); nothing is lost, the same command sends the rest"
        )
        print_line(console, Text(text, style="yellow"))
    if last.refused:
        text = f"tracking store {uri} refused {len(last.refused)} values, which stay in the run directories: "
        print_line(console, Text(text + last.refused[0], style="yellow"))


def _print_outcome(request: Request, rows: Mapping[str, Row], outcome: Outcome, console: Console) -> None:
    """How many runs are finished, why runs failed, and the commands that come next."""
    failed = [row for row in rows.values() if row.state == RunState.FAILED]
    finished = sum(row.state == RunState.FINISHED for row in rows.values())
    print_line(console, f"{finished} of {len(rows)} runs of sweep {request.name} finished")
    if failed:
        print_line(console, failure_text(failed))
    if outcome == "left":
        _print_left(request, rows.values(), console)
    if outcome != "ended" or failed:
        print_line(console, f"to resume: {request.command}")
    if finished:
        print_line(console, f"report:   python -m analysis.report {shlex.quote(f'sweep={request.name}')}")


def _print_left(request: Request, rows: Iterable[Row], console: Console) -> None:
    """What goes on without this command, and what was not submitted."""
    submitted = [row for row in rows if row.state in (RunState.QUEUED, RunState.RUNNING)]
    idle = [row for row in rows if row.state is RunState.WAITING]
    if idle:
        told = f"{len(submitted)} of {len(submitted) + len(idle)} submitted, {len(idle)} wait for nobody"
        why = " and ".join(sorted({row.note for row in idle if row.note}))
        print_line(console, f"{told} ({why or 'not submitted yet'}); the same command submits them")
    if submitted:
        words = [request.name]
        if request.settings["output"] != "outputs":
            words.append(f"output={request.settings['output']}")
        shown = shlex.join(["python", "-m", "efficient_rl.status", *words])
        print_line(console, f"the jobs continue without this command; {shown} shows them")
