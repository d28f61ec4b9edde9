"""Carries a plan out: launches what is pending, watches it, collects it into the tracking store, reports what failed."""

import json
import logging
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.markup import escape

from efficient_rl.budget import approve, make_budget
from efficient_rl.compose import ConfigError
from efficient_rl.config import RunConfig, to_dict
from efficient_rl.display import Display, Row, failure_table
from efficient_rl.launch import Launcher, build_launcher
from efficient_rl.launch.worker import Job
from efficient_rl.naming import label_runs
from efficient_rl.plan import Plan
from efficient_rl.provenance import snapshot
from efficient_rl.record import Record
from efficient_rl.supervise import Supervisor
from efficient_rl.tracking import Collector, TrackedRun, resolve_uri, sync_until
from efficient_rl.watchers import watching

if TYPE_CHECKING:
    from efficient_rl.launch.handle import Handle
    from efficient_rl.sweep import Request

logger = logging.getLogger(__name__)
POLL_SECONDS = 0.2
SYNC_SECONDS = 5.0
LAST_SYNC_SECONDS = 20.0
EXIT_FAILED, EXIT_STOPPED = 1, 130


How = Literal["ended", "stopped", "left"]


class _StopError(Exception):
    """Ctrl-C or SIGTERM."""


def carry_out(request: "Request", plan: Plan, console: Console) -> int:
    """Do the plan; the exit status is 0, 1 where a run failed, or 130 where it was stopped.

    Jobs of a cluster are left to go on where the command is stopped or told to detach.
    """
    launcher = build_launcher(request.settings["launcher"])
    if plan.pending:
        known = [(run, result) for run in plan.finished if (result := Record(request.folder(run)).result()) is not None]
        budget = make_budget(plan.pending, known, launcher.gpus_per_run)
        if launcher.detaches:
            console.print(str(budget), highlight=False)
        approve(budget, launcher.max_gpu_hours, console)
    labels = label_runs(plan.runs)
    _write_manifest(request, plan, labels, launcher.detaches)
    tracked = [TrackedRun(request.folder(run), labels[run.config_hash], run.flat()) for run in plan.runs]
    uri = resolve_uri(request.settings["tracking"]["uri"])
    collector = Collector(uri, request.name, request.command, request.outputs) if uri else None
    rows = {
        run.config_hash: Row(request.folder(run), labels[run.config_hash], run.grpo.max_steps, state)
        for state, runs in (("finished", plan.finished), ("elsewhere", plan.active), ("waiting", plan.pending))
        for run in runs
    }
    how: How = "ended"
    if plan.pending or plan.active:
        with _background_sync(collector, tracked):
            how = _watch(request, plan, launcher, rows, console)
    failed = [row for row in rows.values() if row.state == "failed"]
    _last_sync(collector, tracked, console, complete=None if how == "left" else how == "ended" and not failed)
    _say_outcome(request, rows, failed, how, uri, console)
    return EXIT_STOPPED if how == "stopped" else EXIT_FAILED if failed else 0


def _write_manifest(request: "Request", plan: Plan, labels: Mapping[str, str], detaches: bool) -> None:
    """`outputs/sweeps/<name>/sweep.json`: which runs answer the question, for the report and for the next command."""
    folder = request.outputs / "sweeps" / request.name
    runs = [
        {"hash": run.config_hash, "label": labels[run.config_hash], "params": run.flat()}
        for run in sorted(plan.runs, key=_request_order(request))
    ]
    text = json.dumps(
        {
            "name": request.name,
            "created": time.time(),
            "command": request.command,
            "question": request.question,
            "detaches": detaches,
            "runs": runs,
        }
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _keep_other_manifest(folder / "sweep.json", {run.config_hash for run in plan.runs})
        draft = folder / ".sweep.json.draft"
        draft.write_text(text)
        draft.replace(folder / "sweep.json")
    except OSError as error:
        raise ConfigError(
            f"cannot write to output={request.outputs}: {error.strerror}; choose a folder you may write"
        ) from error


def _keep_other_manifest(path: Path, hashes: set[str]) -> None:
    """Set the manifest of other runs under the same name aside and say so."""
    try:
        before = json.loads(path.read_text())
        others = {run["hash"] for run in before["runs"]} - hashes
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return
    if others:
        kept = path.with_name(f"sweep-{int(before['created'])}.json")
        kept.write_text(json.dumps(before))
        logger.warning("sweep %s named %d other runs before; that list is kept in %s", path.parent.name, len(others), kept)


def _request_order(request: "Request") -> Callable[[RunConfig], int]:
    order = {run.config_hash: index for index, run in reversed(list(enumerate(request.runs)))}
    return lambda run: order[run.config_hash]


def _watch(request: "Request", plan: Plan, launcher: Launcher, rows: dict[str, Row], console: Console) -> How:
    """Launch and poll until every run has ended, or the user stops or leaves the sweep."""
    version = snapshot(request.outputs)
    jobs = {run.config_hash: _job(request, run, version, launcher.sharding) for run in (*plan.active, *plan.pending)}
    attached = {handle.job.key: handle for handle in launcher.attach(list(jobs.values()))}
    elsewhere = {run.config_hash for run in plan.active} - set(attached)
    supervisor = Supervisor(launcher, request.name, console)
    with (
        watching(request.outputs / "sweeps" / request.name),
        Display(list(rows.values()), console) as display,
        _stop_signals(),
    ):
        try:
            fresh = [job for key, job in jobs.items() if key not in attached and key not in elsewhere]
            handles = attached | {handle.job.key: handle for handle in launcher.launch(fresh)}
            while (handles or elsewhere) and not launcher.detach:
                for handle in launcher.poll(POLL_SECONDS):
                    handles.pop(handle.job.key, None)
                    _show(rows[handle.job.key], handle)
                    if handle.stage == "elsewhere":
                        elsewhere.add(handle.job.key)
                    supervisor.note_end(rows[handle.job.key])
                for key in _ended_elsewhere(rows, elsewhere):
                    (handles[key],) = launcher.launch([jobs[key]])
                for key, handle in handles.items():
                    _show(rows[key], handle)
                supervisor.look(rows, handles)
                display.update()
            for key, handle in handles.items():
                _show(rows[key], handle)
        except _StopError:
            if launcher.detaches:
                launcher.leave()
                return "left"
            console.print("stopping: every run writes a checkpoint (a second Ctrl-C ends them at once)")
            launcher.stop()
            return "stopped"
    if handles:
        return "left"
    supervisor.note_sweep(list(rows.values()))
    return "ended"


def _job(request: "Request", run: RunConfig, version: str, sharding: str) -> Job:
    settings = request.settings
    newest = Record(request.folder(run)).newest_attempt() or 0
    return Job(
        str(request.folder(run)),
        to_dict(run),
        settings["checkpoint_steps"],
        version,
        settings["checkpoint_minutes"],
        newest if settings["force"] else None,
        sharding=sharding,
    )


def _show(row: Row, handle: "Handle") -> None:
    """Take over where a job stands."""
    row.state = "waiting" if handle.stage == "stopped" else handle.stage
    row.note = handle.note
    row.failure = handle.failure
    if handle.ended:
        row.refresh()


def _ended_elsewhere(rows: dict[str, Row], elsewhere: set[str]) -> list[str]:
    """Update the runs that other commands work on; the keys of those that were given up and can be taken over."""
    given_up = []
    for key in sorted(elsewhere):
        state = Record(rows[key].folder).state()
        if state in ("finished", "failed"):
            rows[key].state = state
        elif state == "pending":
            rows[key].state = "waiting"
            given_up.append(key)
        if state != "active":
            elsewhere.discard(key)
    return given_up


@contextmanager
def _stop_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM raise _StopError once; what comes after acts as usual."""

    def stop(number: int, frame: FrameType | None) -> None:
        for name, handler in before.items():
            signal.signal(name, handler)
        raise _StopError

    before = {name: signal.signal(name, stop) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


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


def _say_outcome(
    request: "Request", rows: dict[str, Row], failed: Sequence[Row], how: How, uri: str | None, console: Console
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
