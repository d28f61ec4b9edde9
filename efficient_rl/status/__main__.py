"""What the runs of a sweep are doing, and what stopped those that are not: table, logs, cancelling, trying again.

python -m efficient_rl.status [SWEEP] [output=outputs]   the newest sweep of the folder, or the one named
python -m efficient_rl.status [SWEEP] --watch            until nothing goes on any more
python -m efficient_rl.status [SWEEP] --logs RUN         what a run wrote; RUN is the beginning of its hash
python -m efficient_rl.status [SWEEP] --cancel [RUN]     end the sweep, or one run; what is done is kept
python -m efficient_rl.status [SWEEP] --retry            give the sweep's command again
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
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from efficient_rl.cli import DONE, FAILED, command_line, parse_settings
from efficient_rl.errors import ConfigError
from efficient_rl.launch.slurm import commands
from efficient_rl.launch.slurm.ledger import Ledger
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.state import RunState
from efficient_rl.status.snapshot import GOING_ON, Observer, Status, find_run, read_status
from efficient_rl.sweep.display import STYLES, Row, run_table
from efficient_rl.sweep.manifest import Manifest, find_manifest

WATCH_SECONDS = 5.0
STOP_SECONDS = 60.0
LOG_LINES = 100
COLUMNS = ("run", "what", "state", "step", "reward", "accuracy", "left", "where")


def log_text(outputs: Path, key: str) -> str:
    """The end of what a run wrote, and of what its cluster job wrote to its error stream."""
    ledger, log = Ledger(outputs), outputs / "runs" / key / "log.txt"
    paths = [*([log] if log.is_file() else []), *ledger.error_files(ledger.assignment(key))]
    if not paths:
        raise ConfigError(f"run {key[:8]} has written nothing yet")
    return "\n".join(
        f"--- {path}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-LOG_LINES:]) for path in paths
    )


def cancel_sweep(outputs: Path, manifest: Manifest) -> list[str]:
    """Stop the commands that work on the sweep, so that nothing new starts, then what still goes on; a line for each."""
    done = []
    for controller in read_status(outputs, manifest).controllers:
        if not controller.here:
            done.append(f"the sweep was started by {controller}: if that still runs, stop it there, or it starts more")
        elif controller.stop(STOP_SECONDS):
            done.append(f"stopped the sweep command ({controller})")
        else:
            done.append(f"the sweep command ({controller}) did not stop within {STOP_SECONDS:.0f} s; it may start more")
    status = read_status(outputs, manifest)
    return done + end_runs(outputs, status, status.rows_in(*GOING_ON))


def cancel_run(outputs: Path, status: Status, prefix: str) -> list[str]:
    """End one run, by the beginning of its hash; what was done, a line each."""
    key = find_run([row.folder.name for row in status.rows], prefix)
    (row,) = [row for row in status.rows if row.folder.name == key]
    if row.state not in GOING_ON:
        return [f"run {key[:8]} is {row.state}: there is nothing to end"]
    return end_runs(outputs, status, [row])


def end_runs(outputs: Path, status: Status, rows: Sequence[Row]) -> list[str]:
    """End the cluster jobs of the runs by one call; ask their processes here to write a checkpoint and end."""
    jobs = {row.folder.name: status.jobs[row.folder.name] for row in rows if row.folder.name in status.jobs}
    if jobs:
        commands.cancel(sorted(set(jobs.values())))
    done = [f"cancelled job {job}" for job in sorted(set(jobs.values()))]
    done += [_end_process(row) for row in rows if row.folder.name not in jobs]
    ledger = Ledger(outputs)
    ended = {row.folder.name for row in rows}
    shared = {other for key in jobs for other in ledger.job_mates(key)} - ended
    return done + [
        f"run {key[:8]} was in the same job and ends with it"
        for key in sorted(shared)
        if RunDirectory(outputs / "runs" / key).state() in (RunState.RUNNING, RunState.WAITING)
    ]


def _end_process(row: Row) -> str:
    owner = RunDirectory(row.folder).owner()
    if owner is None:
        return f"{row.folder.name[:8]} {row.label} has just ended"
    named = f"process {owner.pid} on {owner.host} ({row.folder.name[:8]} {row.label})"
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
    """The sweep's own arguments, for this output folder; nothing finished is done again, and nobody stays to watch jobs."""
    try:
        arguments = shlex.split(manifest.command)[3:]
    except ValueError as error:
        raise ConfigError(f"damaged: the command of sweep {manifest.name} ({error}); give it by hand") from error
    kept = [text for text in arguments if not text.startswith(("force=", "output=", "launcher.detach="))]
    here = [] if Path("outputs").resolve() == outputs else [f"output={outputs}"]
    return kept + here + (["launcher.detach=true"] if manifest.detaches else [])


def retry(status: Status, outputs: Path, console: Console) -> int:
    """Give the sweep's command again, unless all of its runs are finished or going on."""
    left = status.rows_in("failed") + (
        [] if any(controller.here for controller in status.controllers) else status.rows_in("waiting")
    )
    if not left:
        counts = status.as_json()["counts"]
        console.print(f"nothing to try again: {', '.join(f'{count} {state}' for state, count in counts.items())}")
        return 0
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
        console.print("\n".join(done or ["nothing goes on"]), soft_wrap=True, highlight=False, markup=False)
        return DONE
    if given.retry:
        return retry(read_status(outputs, manifest), outputs, console)
    status = _watch(outputs, manifest, console) if given.watch else read_status(outputs, manifest)
    if given.json:
        print(json.dumps(status.as_json(), indent=1))
    elif not given.watch:
        console.print(_view(status, len(status.rows)))
    return FAILED if status.rows_in("failed") else DONE


def _watch(outputs: Path, manifest: Manifest, console: Console) -> Status:
    observer = Observer(outputs, manifest)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            status = observer.refresh()
            live.update(_view(status, max(3, console.height - 8)), refresh=True)
            if not status.goes_on:
                return status
            time.sleep(WATCH_SECONDS)


def _view(status: Status, room: int) -> Group:
    parts: list[Any] = [f"sweep {escape(status.manifest.name)}", run_table(status.rows, room, COLUMNS)]
    for row in status.rows_in("failed")[:room]:
        parts.append(Text(f"{row.folder.name[:8]} {row.failure.error if row.failure else 'failed'}", style=STYLES["failed"]))
    if status.trouble:
        parts.append(f"[yellow]Slurm does not answer ({escape(status.trouble)}); this is what the run directories say[/]")
    if status.rows_in("failed", "waiting") and not status.goes_on:
        parts.append("Failed and waiting runs are idle: use --retry to resume them, --logs RUN for details")
    return Group(*parts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m efficient_rl.status",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("words", nargs="*", metavar="SWEEP", help="name of the sweep, and output=FOLDER")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="show it until nothing goes on")
    how.add_argument("--logs", metavar="RUN", help="the end of a run's log")
    how.add_argument("--cancel", metavar="RUN", nargs="?", const="", help="end the sweep, or one run")
    how.add_argument("--retry", action="store_true", help="give the sweep's command again")
    how.add_argument("--json", action="store_true", help="one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
