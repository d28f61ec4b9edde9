"""Owns the runs that a launcher has in hand: starts them, notices how they end, and keeps the table of a command."""

import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Literal

from rich.console import Console

from efficient_rl.config.run_config import RunConfig, to_dict
from efficient_rl.launch.base import Handle, Launcher
from efficient_rl.launch.worker import Job
from efficient_rl.run import Options
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.provenance import snapshot
from efficient_rl.rundir.state import RunState
from efficient_rl.sweep.display import Display, Row
from efficient_rl.sweep.lock import watching
from efficient_rl.sweep.notify import Supervisor
from efficient_rl.sweep.request import Request

POLL_SECONDS = 0.2
How = Literal["ended", "stopped", "left"]


class _StopError(Exception):
    """Ctrl-C or SIGTERM."""


class Flight:
    """The runs of one command. `rows` are what its table shows, by hash; more may be added at any time."""

    def __init__(self, request: Request, launcher: Launcher, console: Console, rows: Sequence[Row] = ()) -> None:
        self.launcher = launcher
        self.rows = {row.folder.name: row for row in rows}
        self._shown = list(rows)
        self._request = request
        self._console = console
        self._supervisor = Supervisor(launcher, request.watch, request.name, console)
        self._version: str | None = None  # of the code, from when the first run is started
        self._jobs: dict[str, Job] = {}
        self._handles: dict[str, Handle] = {}
        self._elsewhere: set[str] = set()

    @property
    def busy(self) -> bool:
        """Whether a run has not ended."""
        return bool(self._handles or self._elsewhere)

    def add_row(self, row: Row) -> None:
        """Show one more run."""
        self.rows[row.folder.name] = row
        self._shown.append(row)

    def start(self, runs: Sequence[RunConfig], active: Collection[str] = ()) -> None:
        """Take over what an earlier command launched, wait for `active` ones that are another's, launch the rest."""
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
        """End one run after a checkpoint, which is told like every end; False where it is another command's run."""
        if key in self._handles:
            self.launcher.cancel(self._handles[key])
        return key in self._handles

    def fly(self, begin: Callable[[], None], go_on: Callable[[list[str]], bool]) -> How:
        """Call `begin`, then `go_on` with the hashes of the runs that ended since, until it says no or the user stops."""
        sweep = self._request.outputs / "sweeps" / self._request.name
        with watching(sweep), Display(self._shown, self._console) as display, _stop_signals():
            try:
                begin()
                ended: list[str] = []
                while go_on(ended) and not self.launcher.detach:
                    ended = self._turn()
                    display.update()
                for key, handle in self._handles.items():
                    _show(self.rows[key], handle)
            except _StopError:
                return self._break_off()
        if self._handles:
            return "left"
        self._supervisor.note_sweep(self._shown)
        return "ended"

    def _break_off(self) -> How:
        if self.launcher.detaches:
            self.launcher.leave()
            return "left"
        self._console.print("stopping: every run writes a checkpoint (a second Ctrl-C ends them at once)")
        self.launcher.stop()
        return "stopped"

    def _turn(self) -> list[str]:
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
            self._supervisor.note_end(self.rows[key])
        ended += self._look_elsewhere()
        for key, handle in self._handles.items():
            _show(self.rows[key], handle)
        self._supervisor.look(self.rows, self._handles)
        return ended

    def _look_elsewhere(self) -> list[str]:
        """Look at the runs that other commands work on: those that ended; what was given up is taken over."""
        ended = []
        for key in sorted(self._elsewhere):
            state = RunDirectory(self.rows[key].folder).state()
            if state is RunState.RUNNING:
                continue
            self._elsewhere.discard(key)
            if state in (RunState.FINISHED, RunState.FAILED):
                self.rows[key].state = state
                ended.append(key)
            else:
                self.rows[key].state = RunState.WAITING
                (self._handles[key],) = self.launcher.launch([self._jobs[key]])
        return ended

    def _job(self, run: RunConfig, version: str) -> Job:
        settings, folder = self._request.settings, self._request.folder(run)
        newest = RunDirectory(folder).newest_attempt() or 0
        options = Options(
            settings["checkpoint_steps"], settings["checkpoint_minutes"], version, sharding=self.launcher.sharding
        )
        redo = newest if settings["force"] else None
        return Job(folder, to_dict(run), options, redo, retries=self._request.watch.retries)


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
        for name, handler in before.items():
            signal.signal(name, handler)
        raise _StopError

    before = {name: signal.signal(name, stop) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
