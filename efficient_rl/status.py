"""What the runs of a sweep are doing, and what stopped those that are not: table, logs, cancelling, trying again.

python -m efficient_rl.status [SWEEP]                  the newest sweep, or the one named
python -m efficient_rl.status [SWEEP] --watch          until nothing goes on any more
python -m efficient_rl.status --logs RUN               what a run wrote; RUN is the beginning of its hash
python -m efficient_rl.status [SWEEP] --cancel [RUN]   end its jobs; the same sweep command goes on later
python -m efficient_rl.status [SWEEP] --retry          give the sweep's command again
python -m efficient_rl.status [SWEEP] --json
"""

import argparse
import json
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape

from efficient_rl.compose import ConfigError, suggest
from efficient_rl.display import Row, failure_table, run_table
from efficient_rl.launch import scheduler
from efficient_rl.launch.ledger import Ledger
from efficient_rl.launch.retries import ending
from efficient_rl.launch.scheduler import JobState, SchedulerError
from efficient_rl.record import Failure, Record

EXIT_FAILED, EXIT_BAD_REQUEST = 1, 2
WATCH_SECONDS = 5.0
LOG_LINES = 100
COLUMNS = ("run", "what", "state", "step", "reward", "accuracy", "left", "where")
GOING_ON = ("running", "queued", "elsewhere")


@dataclass(frozen=True)
class Status:
    """A sweep at one moment: a row a run, the cluster job of each, and what is wrong with the scheduler, if anything."""

    manifest: Mapping[str, Any]
    rows: tuple[Row, ...]
    jobs: Mapping[str, str]
    trouble: str | None

    def as_json(self) -> dict[str, Any]:
        """The same for other programs."""
        counts = {state: sum(row.state == state for row in self.rows) for state in sorted({row.state for row in self.rows})}
        head = {key: self.manifest.get(key) for key in ("name", "question", "command")}
        runs = [_run_json(row, self.jobs.get(row.folder.name)) for row in self.rows]
        return {**head, "counts": counts, "scheduler_trouble": self.trouble, "runs": runs}


def read_status(outputs: Path, manifest: Mapping[str, Any]) -> Status:
    """The status of a sweep: from its run directories, and by one question to the scheduler if any run is or was a job."""
    ledger = Ledger(outputs)
    keys = [run["hash"] for run in manifest["runs"]]
    jobs = {key: job for key in keys if (job := ledger.job_of(key)) is not None}
    unfinished = {job for key, job in jobs.items() if Record(outputs / "runs" / key).result() is None}
    states, reasons, trouble = _ask(unfinished)
    rows = []
    for run in manifest["runs"]:
        folder = outputs / "runs" / run["hash"]
        row = Row(folder, run.get("label", run["hash"]), int(run["params"].get("grpo.max_steps", 0)))
        _set_state(row, jobs.get(run["hash"]), states, reasons)
        row.refresh()
        rows.append(row)
    return Status(manifest, tuple(rows), jobs, trouble)


def _ask(jobs: set[str]) -> tuple[dict[str, JobState], dict[str, str], str | None]:
    if not jobs:
        return {}, {}, None
    try:
        states = scheduler.job_states(jobs)
        waiting = [job for job, state in states.items() if not state.over and not state.running]
        return states, scheduler.waiting_reasons(waiting), None
    except SchedulerError as error:
        return {}, {}, str(error)


def _set_state(row: Row, job: str | None, states: Mapping[str, JobState], reasons: Mapping[str, str]) -> None:
    record = Record(row.folder)
    owner = record.owner() or {}
    state = states.get(job or "")
    in_job = job is not None and (owner.get("job") or {}).get("id") == job
    found = record.state()
    row.note = f"job {job}" if job else str(owner.get("host", ""))
    if found == "finished":
        row.state = "finished"
    elif state is not None and not state.over:
        row.state = "running" if in_job and state.running and found == "active" else "queued"
        waits = reasons.get((job or "").split("_")[0], "behind others of its job" if state.running else "")
        row.note += f" on {state.node}" if row.state == "running" else f" ({waits})" if waits else ""
    elif found == "failed":
        row.state, row.failure = "failed", record.failure()
    elif state is not None:  # the job has ended, and nobody has noted how
        why = ending(state, in_job, "", 0)
        row.state = "failed" if in_job and not why.may_retry else "waiting"
        row.failure = Failure(record.newest_attempt() or 0, why.words, str(row.folder / "log.txt"), why.cause)
        row.note += f", {why.words}"
    else:
        row.state = "running" if found == "active" else "waiting"


def _run_json(row: Row, job: str | None) -> dict[str, Any]:
    owner = Record(row.folder).owner() or {}
    return {
        "hash": row.folder.name,
        "what": row.label,
        "state": row.state,
        "job": job,
        "node": (owner.get("job") or {}).get("node", owner.get("host")),
        "step": row.step,
        "max_steps": row.max_steps,
        "reward": row.reward,
        "accuracy_before": row.accuracy_before,
        "accuracy": row.accuracy,
        "seconds_left": row.seconds_left(),
        "cause": row.failure.cause if row.failure else None,
        "error": row.failure.error if row.failure else None,
        "log": str(row.folder / "log.txt"),
    }


def find_manifest(outputs: Path, sweep: str | None) -> dict[str, Any]:
    """The manifest of a sweep, of the newest without a name; ConfigError lists the sweeps that there are."""
    found = sorted(outputs.glob("sweeps/*/sweep.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ConfigError(f"there is no sweep in output={outputs}; run one, or name the folder")
    path = next((path for path in found if path.parent.name == sweep), None) if sweep else found[-1]
    if path is None:
        raise ConfigError(f"no sweep {sweep!r} in {outputs}; {suggest(sweep or '', (path.parent.name for path in found))}")
    manifest: dict[str, Any] = json.loads(path.read_text())
    return manifest


def find_run(keys: Sequence[str], prefix: str) -> str:
    """The one run whose hash begins so; ConfigError where there is none, or several."""
    found = [key for key in keys if key.startswith(prefix)]
    if len(found) != 1:
        raise ConfigError(f"run {prefix!r} names {len(found)} runs; use the beginning of one hash of the table")
    return found[0]


def log_text(outputs: Path, key: str) -> str:
    """The end of what a run wrote; of a run that never began, what its cluster job wrote."""
    log = outputs / "runs" / key / "log.txt"
    paths = [log] if log.is_file() else []
    ledger = Ledger(outputs)
    assignment, job = ledger.assignment(key), ledger.job_of(key)
    if assignment is not None and job is not None:
        paths += sorted((ledger.jobs / assignment.batch).glob(f"{job}_*_log.err"))
    if not paths:
        raise ConfigError(f"run {key[:8]} has written nothing yet")
    return "\n".join(
        f"--- {path}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-LOG_LINES:]) for path in paths
    )


def cancel(status: Status, prefix: str | None) -> list[str]:
    """End the cluster jobs, and ask the processes on this machine to end; what was done, a line each."""
    rows = [row for row in status.rows if row.state in GOING_ON]
    if prefix:
        key = find_run([row.folder.name for row in rows], prefix)
        rows = [row for row in rows if row.folder.name == key]
    done = []
    jobs = {status.jobs[row.folder.name] for row in rows if row.folder.name in status.jobs}
    if jobs:
        scheduler.cancel(sorted(jobs))
        done += [f"cancelled job {job}" for job in sorted(jobs)]
    for row in rows:
        owner = Record(row.folder).owner() or {}
        if row.folder.name not in status.jobs and owner.get("host") == socket.gethostname() and row.state == "running":
            os.kill(int(owner["pid"]), signal.SIGTERM)
            done.append(f"asked process {owner['pid']} ({row.label}) to write a checkpoint and end")
    named = {row.folder.name for row in rows}
    others = [key for key, job in status.jobs.items() if job in jobs and key not in named]
    return done + [f"run {key[:8]} was in the same job" for key in others]


def retry(manifest: Mapping[str, Any], outputs: Path) -> int:
    """Give the sweep's command again; on a cluster without staying to watch."""
    from efficient_rl.sweep import main as sweep_main

    arguments = shlex.split(manifest["command"])[3:]
    if any(argument == "launcher=slurm" for argument in arguments) or Ledger(outputs).jobs.is_dir():
        arguments.append("launcher.detach=true")
    return sweep_main(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0, 1 where a run failed, 2 for a bad request."""
    given = _parser().parse_args(arguments)
    console, outputs = Console(), Path(given.output).resolve()
    try:
        sweep = given.sweep.removeprefix("sweep=") if given.sweep else None
        manifest = find_manifest(outputs, sweep)
        if given.logs:
            key = find_run([run["hash"] for run in manifest["runs"]], given.logs)
            print(log_text(outputs, key))
            return 0
        if given.retry:
            return retry(manifest, outputs)
        status = read_status(outputs, manifest)
        if given.cancel is not None:
            for line in cancel(status, given.cancel or None) or ["nothing goes on"]:
                console.print(line, soft_wrap=True, highlight=False, markup=False)
            return 0
        if given.json:
            print(json.dumps(status.as_json(), indent=1))
        elif given.watch:
            status = _watch(outputs, manifest, console)
        else:
            console.print(_view(status, len(status.rows)))
        return EXIT_FAILED if any(row.state == "failed" for row in status.rows) else 0
    except (ConfigError, SchedulerError) as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        return EXIT_BAD_REQUEST


def _watch(outputs: Path, manifest: Mapping[str, Any], console: Console) -> Status:
    with Live(console=console, auto_refresh=False) as live:
        while True:
            status = read_status(outputs, manifest)
            live.update(_view(status, max(3, console.height - 8)), refresh=True)
            if not any(row.state in GOING_ON for row in status.rows):
                return status
            time.sleep(WATCH_SECONDS)


def _view(status: Status, room: int) -> Group:
    failed = [row for row in status.rows if row.state == "failed"]
    parts: list[Any] = [f"sweep {escape(status.manifest['name'])}", run_table(status.rows, room, COLUMNS)]
    if failed:
        parts.append(failure_table(failed[:room]))
    if status.trouble:
        parts.append(f"[yellow]Slurm does not answer ({escape(status.trouble)}); this is what the run directories say[/]")
    return Group(*parts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m efficient_rl.status",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("sweep", nargs="?", help="name of the sweep; the newest without one")
    parser.add_argument("--output", default="outputs", help="folder of all runs and sweeps")
    parser.add_argument("--watch", action="store_true", help="show it until nothing goes on")
    parser.add_argument("--logs", metavar="RUN", help="the end of a run's log")
    parser.add_argument("--cancel", metavar="RUN", nargs="?", const="", help="end all jobs of the sweep, or one run's")
    parser.add_argument("--retry", action="store_true", help="give the sweep's command again")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(0)
