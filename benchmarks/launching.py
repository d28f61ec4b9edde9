"""What one more run of a sweep costs to start, in wall and CPU seconds: our launcher against three that a user could pick.

Every launcher starts the same job: import trl.GRPOTrainer and mlflow, write a tiny file. With T(n) the cost of a whole sweep
of n jobs, one more run costs (T(2n) - T(n)) / n. Ours is also timed from within, without the noise of its one preload.

python -m benchmarks.launching --jobs 8 --repeats 3
"""

import argparse
import inspect
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.machine import Cost, cost_of, spread, spread_text, write_result
from efficient_rl.launch import local, processes
from efficient_rl.launch.worker import Job
from efficient_rl.libraries import quiet_libraries
from efficient_rl.sweep.controller import POLL_SECONDS

ROOT = Path(__file__).resolve().parents[1]
CORES = len(os.sched_getaffinity(0))
JOB_NEEDS = ("trl.trainer.grpo_trainer", "mlflow")
WARM_JOBS = 20
VARIANTS = {
    "ours": f"LocalLauncher, {CORES} jobs at once, each forked from one preloaded server",
    "subprocess": f"python -c, {CORES} at once, a new interpreter a job",
    "submitit_local": "hydra-submitit-launcher, all jobs at once, two new interpreters a job",
    "joblib": f"hydra-joblib-launcher, {CORES} workers that run one job after another in the same process",
}
PRELOADED = [*processes.PRELOADED, "mlflow"]  # our runs do not ask for mlflow; this job imports it
APP = """
import os

import hydra


{job}

@hydra.main(version_base="1.3", config_path=".", config_name="config")
def main(config):
    trivial(os.path.join(config.folder, str(config.number)))


if __name__ == "__main__":
    main()
"""


def trivial(path: str) -> None:
    """The job: load what a GRPO run needs and leave a tiny file."""
    from pathlib import Path

    import mlflow
    from trl import GRPOTrainer

    Path(path).write_text(f"{GRPOTrainer.__name__} {mlflow.__version__}")


def forked(job: Job, environment: Mapping[str, str]) -> None:
    """The job as the target of our launcher; the file's last line is the time of its first line."""
    first_line = time.monotonic()  # one clock for all processes of a machine
    if missing := [name for name in JOB_NEEDS if name not in sys.modules]:
        raise RuntimeError(f"{missing[0]} was not preloaded, so this would measure something else")
    trivial(str(job.folder))
    with job.folder.open("a") as file:
        file.write(f"\n{first_line}")


def run_to_end(launcher: local.LocalLauncher, paths: Sequence[Path]) -> None:
    """Launch a job for each path and poll as efficient_rl.sweep.execution does until all have ended."""
    launcher.launch([Job(path, config={}) for path in paths])
    left = len(paths)
    while left:
        for handle in launcher.poll(POLL_SECONDS):
            if handle.exit_code:
                raise RuntimeError(f"the job {handle.job.folder} ended with status {handle.exit_code}")
            left -= 1


def start_ours(jobs: int, folder: Path) -> None:
    run_to_end(our_launcher(CORES), [folder / str(number) for number in range(jobs)])


def start_subprocesses(jobs: int, folder: Path) -> None:
    def start(number: int) -> None:
        code = f"{inspect.getsource(trivial)}\ntrivial({str(folder / str(number))!r})"
        subprocess.run([sys.executable, "-c", code], check=True)

    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(start, range(jobs)))


def start_warm(jobs: int, folder: Path) -> None:
    """Print, as JSON, what our server costs, how soon a job of it starts, and what one more job costs once it runs."""
    launcher = our_launcher(CORES)
    cold_seconds = seconds_to_first_line(launcher, folder / "cold")
    server = next(
        child for child in psutil.Process().children() if "multiprocessing.forkserver" in " ".join(child.cmdline())
    )
    preload = server.cpu_times()
    one_by_one = [seconds_to_first_line(launcher, folder / str(number)) for number in range(jobs)]
    started, cpu_before = time.monotonic(), launcher_cpu_seconds(server)
    run_to_end(launcher, [folder / f"again-{number}" for number in range(jobs)])
    said = {
        "preload_wall_seconds": cold_seconds - statistics.median(one_by_one),
        "preload_cpu_seconds": preload.user + preload.system,
        "launch_to_first_line_seconds": one_by_one,
        "one_more_wall_seconds": (time.monotonic() - started) / jobs,
        "one_more_cpu_seconds": (launcher_cpu_seconds(server) - cpu_before) / jobs,
    }
    print(json.dumps(said))


def launcher_cpu_seconds(server: psutil.Process) -> float:
    """CPU seconds so far of this process, of the server and of the jobs that ended."""
    return time.process_time() + sum(server.cpu_times()[:4])


def seconds_to_first_line(launcher: local.LocalLauncher, path: Path) -> float:
    started = time.monotonic()
    run_to_end(launcher, [path])
    return float(path.read_text().splitlines()[-1]) - started


def our_launcher(workers: int) -> local.LocalLauncher:
    processes.PRELOADED[:] = PRELOADED
    return local.LocalLauncher(workers=workers, target=forked)


STARTERS = {"ours": start_ours, "subprocess": start_subprocesses, "warm": start_warm}


def sweep_command(variant: str, jobs: int, app: Path, folder: Path) -> list[str]:
    """The command that runs the whole sweep, its jobs writing to `folder`."""
    if variant in STARTERS:
        return [
            sys.executable,
            "-m",
            "benchmarks.launching",
            "--start",
            variant,
            "--jobs",
            str(jobs),
            "--folder",
            str(folder),
        ]
    numbers = ",".join(str(number) for number in range(jobs))
    sweep = [f"number={numbers}", f"folder={folder}", f"hydra.sweep.dir={app.parent / 'multirun' / folder.name}"]
    return [sys.executable, str(app), "-m", f"hydra/launcher={variant}", *sweep]


def run_sweep(variant: str, jobs: int, app: Path) -> Cost:
    """The cost of one sweep in a fresh process; RuntimeError where a job left no file."""
    folder = Path(tempfile.mkdtemp(dir=app.parent))
    cost = cost_of(sweep_command(variant, jobs, app, folder), cwd=ROOT)
    missing = [number for number in range(jobs) if not (folder / str(number)).is_file()]
    if missing:
        raise RuntimeError(f"{variant}: {len(missing)} of {jobs} jobs wrote nothing")
    return cost


def write_app(folder: Path) -> Path:
    """The Hydra application that does the job once for each number."""
    (folder / "config.yaml").write_text("number: 0\nfolder: ???\n")
    app = folder / "app.py"
    app.write_text(APP.format(job=inspect.getsource(trivial)))
    return app


def measure(variants: Sequence[str], jobs: int, repeats: int) -> dict[str, Any]:
    """Costs of all sweeps, the variants taking turns, and the warm start of ours."""
    costs: dict[tuple[str, int], list[Cost]] = {(name, n): [] for name in variants for n in (jobs, 2 * jobs)}
    starts = []
    with tempfile.TemporaryDirectory() as temporary:
        app = write_app(Path(temporary))
        for _ in range(repeats):
            for (variant, n), known in costs.items():
                known.append(run_sweep(variant, n, app))
            if "ours" in variants:
                starts.append(json.loads(run_sweep("warm", WARM_JOBS, app).output))
    measured = {
        name: {"how": VARIANTS[name], **summary(costs[name, jobs], costs[name, 2 * jobs], jobs)} for name in variants
    }
    return {
        "jobs": jobs,
        "repeats": repeats,
        "poll_seconds": POLL_SECONDS,
        "preloaded": PRELOADED,
        "preloaded_beyond_the_shipped_list": ["mlflow"],
        "variants": measured,
        "our_server": warm_summary(starts) if starts else None,
    }


def summary(once: Sequence[Cost], twice: Sequence[Cost], jobs: int) -> dict[str, Any]:
    """Sweeps of `jobs` and of twice as many, in wall and CPU seconds, and what one more run costs in each repeat."""
    found: dict[str, Any] = {}
    for field in ("wall_seconds", "cpu_seconds"):
        few, many = [getattr(cost, field) for cost in once], [getattr(cost, field) for cost in twice]
        found[field] = {str(jobs): spread(few), str(2 * jobs): spread(many)}
        found[f"one_more_{field}"] = spread([(b - a) / jobs for a, b in zip(few, many, strict=True)])
    return found


def warm_summary(starts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    lines = [seconds for start in starts for seconds in start["launch_to_first_line_seconds"]]
    found = {name: spread([start[name] for start in starts]) for name in starts[0] if name != "launch_to_first_line_seconds"}
    return {**found, "launch_to_first_line_seconds": spread(lines), "jobs": WARM_JOBS}


def table(measured: Mapping[str, Any]) -> Table:
    few = str(measured["jobs"])
    rows = Table(title="one more run of a sweep: median (min..max)", title_justify="left")
    for column in ("launcher", "wall s", "CPU s", f"all {few}: wall s", "CPU s"):
        rows.add_column(column, justify="left" if column == "launcher" else "right")
    for name, found in measured["variants"].items():
        more = [spread_text(found[f"one_more_{seconds}"], 2) for seconds in ("wall_seconds", "cpu_seconds")]
        whole = [f"{found[seconds][few]['median']:.1f}" for seconds in ("wall_seconds", "cpu_seconds")]
        rows.add_row(name, *more, *whole)
    return rows


def main() -> None:
    """Measure the launchers, write the JSON, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "launching.json")
    parser.add_argument("--start", choices=STARTERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.start:
        STARTERS[arguments.start](arguments.jobs, arguments.folder)
        return
    quiet_libraries()  # the same environment for every launcher
    measured = measure(arguments.variants, arguments.jobs, arguments.repeats)
    write_result(arguments.output, str(__doc__), measured)
    console = Console()
    console.print(table(measured))
    for name, values in (measured["our_server"] or {}).items():
        if name != "jobs":
            console.print(f"our server, {name}: {spread_text(values, 3)}", highlight=False)


if __name__ == "__main__":
    main()
