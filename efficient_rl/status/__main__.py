"""Shows the states of a sweep's runs; prints logs, cancels runs, retries failed ones.

python -m efficient_rl.status [SWEEP] [output=outputs]   the newest sweep, or the one named
python -m efficient_rl.status [SWEEP] --watch            refresh until no run is active
python -m efficient_rl.status [SWEEP] --logs RUN         the end of its logs; RUN: a hash prefix
python -m efficient_rl.status [SWEEP] --cancel [RUN]     stop all or one; finished work stays
python -m efficient_rl.status [SWEEP] --retry            run the sweep's command again
python -m efficient_rl.status [SWEEP] --json
"""

import argparse
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from efficient_rl.cli import DONE, FAILED, command_line, parse_settings, print_line, room_of
from efficient_rl.errors import ConfigError
from efficient_rl.launch.slurm import commands
from efficient_rl.launch.slurm.ledger import Ledger
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.state import RunState
from efficient_rl.status.snapshot import ACTIVE, Observer, Status, find_run, read_status
from efficient_rl.sweep.display import FRAME_LINES, Row, failure_text, run_table
from efficient_rl.sweep.manifest import Manifest, find_manifest

WATCH_SECONDS = 5.0
STOP_SECONDS = 60.0
LOG_LINES = 100
COLUMNS = ("run", "what", "state", "step", "reward", "accuracy", "left", "where")


def log_text(outputs: Path, key: str) -> str:
    """The end of a run's log and of the error stream of its cluster job."""
    ledger = Ledger(outputs)
    logs = [outputs / "runs" / key / "log.txt", *ledger.error_files(ledger.assignment(key))]
    lines: list[str] = []
    for path in filter(Path.is_file, logs):
        lines += [f"--- {path}", *path.read_text(errors="replace").splitlines()[-LOG_LINES:]]
    if not lines:
        raise ConfigError(f"run {key[:8]} has written nothing yet")
    return "\n".join(lines)


def cancel_sweep(outputs: Path, manifest: Manifest) -> list[str]:
    """Stop the sweep's commands, so that nothing new starts, then its active runs."""
    done = []
    for controller in read_status(outputs, manifest).controllers:
        if not controller.here:
            done.append(f"the sweep was started by {controller}: if that still runs, stop it there, or it starts more")
        elif controller.stop(STOP_SECONDS):
            done.append(f"stopped the sweep command ({controller})")
        else:
            done.append(f"the sweep command ({controller}) did not stop within {STOP_SECONDS:.0f} s; it may start more")
    status = read_status(outputs, manifest)
    return done + end_runs(outputs, status, status.rows_in(*ACTIVE))


def cancel_run(outputs: Path, status: Status, prefix: str) -> list[str]:
    """Stop one run, by the beginning of its hash; what was done, a line each."""
    rows = {row.key: row for row in status.rows}
    row = rows[find_run(list(rows), prefix)]
    if row.state not in ACTIVE:
        return [f"run {row.key[:8]} is {row.state}: there is nothing to end"]
    return end_runs(outputs, status, [row])


def end_runs(outputs: Path, status: Status, rows: Sequence[Row]) -> list[str]:
    """Cancel the runs' cluster jobs by one call; ask local processes to checkpoint and end."""
    ledger, mates = Ledger(outputs), set[str]()
    jobs = sorted({status.jobs[row.key] for row in rows if row.key in status.jobs})
    if jobs:
        commands.cancel(jobs)
    done = [f"cancelled job {job}" for job in jobs]
    for row in rows:
        if row.key in status.jobs:
            mates.update(ledger.job_mates(row.key))
        else:
            done.append(_end_process(row))
    for key in sorted(mates.difference(row.key for row in rows)):
        if RunDirectory(outputs / "runs" / key).state() in (RunState.RUNNING, RunState.WAITING):
            done.append(f"run {key[:8]} was in the same job and ends with it")
    return done


def _end_process(row: Row) -> str:
    owner = RunDirectory(row.folder).owner()
    if owner is None:
        return f"{row.key[:8]} {row.label} has just ended"
    named = f"process {owner.pid} on {owner.host} ({row.key[:8]} {row.label})"
    if not owner.is_here:
        return f"{named} cannot be ended from here: cancel it there"
    try:
        os.kill(owner.pid, signal.SIGTERM)
    except ProcessLookupError:
        return f"{named} has just ended"
    except PermissionError:
        return f"{named} belongs to another user"
    return f"asked {named} to write a checkpoint and end"


def retry_arguments(manifest: Manifest, outputs: Path) -> list[str]:
    """The sweep's own arguments for this output folder, without `force`, detached on a cluster."""
    try:
        arguments = shlex.split(manifest.command)[3:]
    except ValueError as error:
        raise ConfigError(f"damaged: the command of sweep {manifest.name} ({error}); give it by hand") from error
    kept = [text for text in arguments if not text.startswith(("force=", "output=", "launcher.detach="))]
    if Path("outputs").resolve() != outputs:
        kept.append(f"output={outputs}")
    if manifest.detaches:
        kept.append("launcher.detach=true")
    return kept


def retry(status: Status, outputs: Path, console: Console) -> int:
    """Run the sweep's command again if a run failed, or waits without a command of this machine."""
    idle = [RunState.FAILED] if status.is_watched else [RunState.FAILED, RunState.WAITING]
    if not status.rows_in(*idle):
        counts = ", ".join(f"{count} {state}" for state, count in status.counts.items())
        print_line(console, f"nothing to try again: {counts}")
        return DONE
    from efficient_rl.sweep.__main__ import main as sweep_main

    return sweep_main(retry_arguments(status.manifest, outputs))


@command_line()
def main(arguments: Sequence[str]) -> int:
    """Run the command line; 0, 1 where a run failed, 2 for a bad request."""
    given = _parser().parse_intermixed_args(arguments)
    console = Console()
    if given.cancel and "=" in given.cancel:  # the word after a --cancel without a run
        given.words, given.cancel = [*given.words, given.cancel], ""
    settings = parse_settings(given.words, ("sweep", "output"), bare="sweep")
    outputs = Path(settings.get("output", "outputs")).resolve()
    manifest = find_manifest(outputs, settings.get("sweep"))
    if given.logs is not None:
        print(log_text(outputs, find_run([run.hash for run in manifest.runs], given.logs)))
        return DONE
    if given.cancel is not None:
        found = read_status(outputs, manifest)
        done = cancel_run(outputs, found, given.cancel) if given.cancel else cancel_sweep(outputs, manifest)
        print_line(console, "\n".join(done or ["nothing is running"]))
        return DONE
    if given.retry:
        return retry(read_status(outputs, manifest), outputs, console)
    status = _watch(outputs, manifest, console) if given.watch else read_status(outputs, manifest)
    if given.json:
        print(json.dumps(status.as_json(), indent=1))
    else:
        print_line(console, _view(status, len(status.rows), room_of(console)))
    return FAILED if status.rows_in(RunState.FAILED) else DONE


def _watch(outputs: Path, manifest: Manifest, console: Console) -> Status:
    """The status once nothing changes any more; a terminal shows what changes until then."""
    observer = Observer(outputs, manifest)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            status = observer.refresh()
            if not status.may_change:
                return status
            if console.is_terminal:
                live.update(_view(status, max(3, console.height - FRAME_LINES), console.width), refresh=True)
            time.sleep(WATCH_SECONDS)


def _view(status: Status, lines: int, room: int | None) -> Text:
    """The table, and below it errors with their logs and what else there is to say."""
    parts = [Text(f"sweep {status.manifest.name}"), run_table(status.rows, lines, COLUMNS, room)]
    if failed := status.rows_in(RunState.FAILED):
        parts.append(failure_text(failed))
    if status.trouble:
        trouble = f"Slurm does not answer ({status.trouble}); this is what the run directories say"
        parts.append(Text(trouble, style="yellow"))
    parts += [Text(warning, style="yellow") for warning in status.warnings]
    if status.rows_in(RunState.FAILED, RunState.WAITING) and not status.may_change:
        parts.append(Text("Failed and waiting runs are idle: use --retry to resume them, --logs RUN for details"))
    return Text("\n", no_wrap=True, overflow="crop").join(parts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m efficient_rl.status",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("words", nargs="*", metavar="SWEEP", help="name of the sweep, and output=FOLDER")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="refresh until no run is active")
    how.add_argument("--logs", metavar="RUN", help="the end of a run's log")
    how.add_argument("--cancel", metavar="RUN", nargs="?", const="", help="stop the sweep, or one run")
    how.add_argument("--retry", action="store_true", help="run the sweep's command again")
    how.add_argument("--json", action="store_true", help="one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
