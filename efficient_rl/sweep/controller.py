"""Controls the runs of one command: launches and polls them, updates the table, reports stalls."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Literal

from rich.console import Console

from efficient_rl.cli import print_line, restore_handlers, stop_handlers
from efficient_rl.config.run_config import RunConfig, to_dict
from efficient_rl.config.run_options import Options
from efficient_rl.launch.base import Handle, Launcher
from efficient_rl.launch.worker import Job
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.provenance import snapshot
from efficient_rl.rundir.state import RunState
from efficient_rl.sweep.display import Display, Row, duration
from efficient_rl.sweep.lock import registered
from efficient_rl.sweep.notify import Notifier
from efficient_rl.sweep.request import Request
from efficient_rl.sweep.stall import StallMonitor

POLL_SECONDS = 0.2
Outcome = Literal["ended", "stopped", "left"]


class _StopError(Exception):
    """Ctrl-C or SIGTERM."""


class Controller:
    """The runs of one command. `rows`: those of its table, by hash; more may be added."""

    def __init__(self, request: Request, launcher: Launcher, console: Console) -> None:
        self.launcher = launcher
        self.rows: dict[str, Row] = {}
        self._request = request
        self._console = console
        self._notifier = Notifier(request.watch.notify, request.name)
        self._stalls = StallMonitor(request.watch.stall_minutes)
        self._version: str | None = None  # of the code, from when the first run is started
        self._jobs: dict[str, Job] = {}
        self._handles: dict[str, Handle] = {}
        self._elsewhere: set[str] = set()

    @property
    def busy(self) -> bool:
        """Whether a run has not ended."""
        return bool(self._handles or self._elsewhere)

    def add_row(self, row: Row) -> None:
        self.rows[row.folder.name] = row

    def start(self, runs: Sequence[RunConfig], active: Collection[str] = ()) -> None:
        """Attach to earlier jobs, wait for `active` runs of other commands, launch the rest."""
        self._version = self._version or snapshot(self._request.outputs)
        version = self._version
        jobs = {run.config_hash: self._job(run, version) for run in runs}
        self._jobs |= jobs
        attached = {handle.job.key: handle for handle in self.launcher.attach(list(jobs.values()))}
        elsewhere = set(active) - set(attached)
        fresh = [job for key, job in jobs.items() if key not in attached and key not in elsewhere]
        self._elsewhere |= elsewhere
        self._handles |= attached | {handle.job.key: handle for handle in self.launcher.launch(fresh)}

    def cancel(self, key: str) -> bool:
        """Stop one run after a checkpoint; poll reports it. False if it is another command's."""
        if key in self._handles:
            self.launcher.cancel(self._handles[key])
        return key in self._handles

    def run(self, begin: Callable[[], None], proceed: Callable[[list[str]], bool]) -> Outcome:
        """Poll the launcher until `proceed`, given the hashes of newly ended runs, is false.

        `begin` is called first. Ctrl-C and SIGTERM stop the runs, or leave them to their cluster.
        """
        shared = getattr(self.launcher, "in_process", False)
        display = Display(self.rows.values(), self._console, shared)
        with registered(self._request.sweep_folder), display, _stop_signals():
            try:
                begin()
                ended: list[str] = []
                while proceed(ended) and not self.launcher.detach:
                    ended = self._poll()
                    display.update()
                self._show_handles()
            except _StopError:
                return self._stop()
        if self._handles:
            return "left"
        self._notifier.sweep_ended(self.rows.values())
        return "ended"

    def _stop(self) -> Outcome:
        if self.launcher.detaches:
            self.launcher.leave()
            return "left"
        if any(handle.state is RunState.RUNNING for handle in self._handles.values()):
            print_line(self._console, "stopping: every run writes a checkpoint (a second Ctrl-C ends them at once)")
        try:
            self.launcher.stop()
        finally:
            self._show_stopped()
        return "stopped"

    def _poll(self) -> list[str]:
        """Poll once; the hashes of the runs that ended, whether finished, failed or stopped."""
        ended = []
        for handle in self.launcher.poll(POLL_SECONDS):
            key = handle.job.key
            self._handles.pop(key, None)
            _show(self.rows[key], handle)
            if handle.state is RunState.ELSEWHERE:
                self._elsewhere.add(key)
            else:
                ended.append(key)
            if self.rows[key].state == RunState.FAILED:
                self._notifier.run_failed(self.rows[key])
        ended += self._poll_elsewhere()
        self._show_handles()
        self._report_stalls()
        return ended

    def _poll_elsewhere(self) -> list[str]:
        """The runs of other commands that ended; those that were given up are launched here."""
        ended = []
        for key in sorted(self._elsewhere):
            state = RunDirectory(self.rows[key].folder).state()
            if state is RunState.RUNNING:
                continue
            self._elsewhere.discard(key)
            self.rows[key].state = state
            if state is RunState.WAITING:
                (self._handles[key],) = self.launcher.launch([self._jobs[key]])
            else:
                ended.append(key)
        return ended

    def _report_stalls(self) -> None:
        """Report every run that has stalled, and restart it where that is asked for."""
        running = {key: self.rows[key].folder for key, handle in self._handles.items() if handle.state is RunState.RUNNING}
        for key, seconds in self._stalls.check(running).items():
            row, why = self.rows[key], f"stalled: no new step for {duration(seconds)}"
            self._notifier.run_stalled(row, seconds)
            text = f"{key[:8]} {row.label}: {why}"
            if self._request.watch.requeue_stalled and self.launcher.requeue(self._handles[key], why):
                text += "; it starts again"
            print_line(self._console, text)

    def _show_handles(self) -> None:
        for key, handle in self._handles.items():
            _show(self.rows[key], handle)

    def _show_stopped(self) -> None:
        """Show what the launcher has stopped as its directory says; none of it is running."""
        for key, handle in self._handles.items():
            _show(self.rows[key], handle)
            state = RunDirectory(handle.job.folder).state()
            self.rows[key].state = RunState.WAITING if state is RunState.RUNNING else state

    def _job(self, run: RunConfig, version: str) -> Job:
        settings, folder = self._request.settings, self._request.folder(run)
        newest = RunDirectory(folder).newest_attempt() or 0
        options = Options.of(settings, self._request.outputs, version, self.launcher.sharding)
        redo = newest if settings["force"] else None
        retries, name = self._request.watch.retries, self._request.name
        return Job(folder, to_dict(run), options, redo, retries=retries, sweep=name)


def _show(row: Row, handle: Handle) -> None:
    """Take over where a job stands."""
    row.state = RunState.WAITING if handle.state is RunState.STOPPED else handle.state
    row.note = handle.note
    row.failure = handle.failure
    if handle.state.ended:
        row.refresh()


@contextmanager
def _stop_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM raise _StopError once; what comes after acts as usual."""

    def stop(number: int, frame: FrameType | None) -> None:
        restore_handlers(before)
        raise _StopError

    with stop_handlers(stop) as before:
        yield
