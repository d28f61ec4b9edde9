"""Measures cost and fault tolerance of a sweep on a real Slurm with nodes on this machine; as root.

`chaos`: 200 short runs under random kills. `submission`: 1,000 runs as arrays, and the calls to the scheduler while they are
watched. `latency`: from a job's start to the first step, and from a kill to the next step. `packing`: 64 runs with eight a
job, with one a job, and by hydra-submitit-launcher.

python -m benchmarks.cluster chaos submission latency packing
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from benchmarks.machine import write_result
from efficient_rl.rundir.directory import RunDirectory
from tests.conftest import command, environment, execute_tiny
from tests.slurm.chaos import Chaos, weights_equal
from tests.slurm.local_cluster import REQUEST, Cluster, Sweep, local_cluster, wait_until

RESULTS = Path(__file__).parent / "results" / "cluster.json"
SHORT = ("strategy=last_k", "grpo.max_steps=8")
AT_ONCE = 2  # jobs at once: one a core
CALLS = ("sbatch", "sacct", "squeue", "scontrol", "scancel")
APP = """
import sys
from pathlib import Path

import hydra


@hydra.main(version_base="1.3", config_path=".", config_name="config")
def main(config):
    from efficient_rl.config.compose import expand
    from efficient_rl.config.run_config import parse_run
    from efficient_rl.libraries import quiet_libraries
    from efficient_rl.run import Options, Stop, execute
    from efficient_rl.rundir.directory import RunDirectory

    quiet_libraries()
    run = parse_run(expand([*config.overrides, f"seed={config.number}"])[0])
    attempt = RunDirectory(Path(config.folder) / run.config_hash).claim(run)
    execute(run, attempt, Options(), Stop())


if __name__ == "__main__":
    main()
"""


def chaos(cluster: Cluster, folder: Path, runs: int, seed: int) -> dict[str, Any]:
    jobs = ("launcher.runs_per_job=10", f"launcher.array_parallelism={2 * AT_ONCE}", "checkpoint_steps=2")
    sweep = Sweep(folder, "-m", *SHORT, f"seed=range(0,{runs})", *jobs)
    report = Chaos(cluster, sweep, seed).go(runs, disturbances=40, pause_seconds=3, limit_seconds=1500)
    whole = [execute_tiny(folder / "undisturbed", *SHORT, f"seed={number}")[1] for number in range(0, runs, 20)]
    same = [weights_equal(RunDirectory(sweep.folder / "outputs" / "runs" / record.folder.name), record) for record in whole]
    return {
        "runs": runs,
        "seed": seed,
        **asdict(report),
        "lost": runs - report.finished,
        "compared_with_undisturbed": len(same),
        "equal_to_undisturbed": sum(same),
    }


def submission(cluster: Cluster, folder: Path, runs: int) -> dict[str, Any]:
    cluster.slurm("scontrol", "update", "PartitionName=main", "State=DOWN")  # nothing starts: only the scheduler works
    try:
        with counted_calls(folder) as calls:
            sweep = Sweep(folder, "-m", *SHORT, f"seed=range(0,{runs})")
            started = time.monotonic()
            planned = sweep.start("dry_run=true").end()
            planning_seconds = time.monotonic() - started
            started = time.monotonic()
            submitted = sweep.start("launcher.detach=true").end(300)
            seconds = time.monotonic() - started
            assert (planned, submitted) == (0, 0), sweep.output()
            at_submission = count(calls)
            sweep.start()
            time.sleep(20)  # attached by now
            before, watched_from = count(calls), time.monotonic()
            time.sleep(60)
            watched = {name: count(calls)[name] - before[name] for name in CALLS}
            watched_seconds = time.monotonic() - watched_from
            assert sweep.process is not None
            sweep.process.send_signal(signal.SIGINT)
            sweep.end(60)
        queued = len(cluster.slurm("squeue", "-h", "-r", "-o", "%i").split())
        return {
            "runs": runs,
            "queued": queued,
            "planning_seconds": planning_seconds,
            "command_seconds": seconds,
            "calls_to_submit": at_submission,
            "watched_seconds": watched_seconds,
            "calls_while_watching": watched,
        }
    finally:
        cluster.slurm("scancel", "-u", "root")
        wait_until(lambda: not cluster.slurm("squeue", "-h"), 120, "the queue to empty")
        cluster.slurm("scontrol", "update", "PartitionName=main", "State=UP")


@contextmanager
def counted_calls(folder: Path) -> Iterator[Path]:
    """Put a script before each of Slurm's commands that notes the call; the file it notes them in."""
    log, scripts = folder / "calls", folder / "bin"
    scripts.mkdir()
    log.touch()
    for name in CALLS:
        real = subprocess.run(["which", name], capture_output=True, text=True, check=True).stdout.strip()
        (scripts / name).write_text(f'#!/bin/sh\necho {name} >> {log}\nexec {real} "$@"\n')
        (scripts / name).chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{scripts}:{before}"
    try:
        yield log
    finally:
        os.environ["PATH"] = before


def count(log: Path) -> dict[str, int]:
    called = log.read_text().split()
    return {name: called.count(name) for name in CALLS}


def latency(cluster: Cluster, folder: Path, repeats: int) -> dict[str, Any]:
    starts: list[float] = []
    going_on: dict[str, list[float]] = {"preemption (USR2)": [], "requeue by hand": [], "node crash": []}
    for number in range(repeats):
        for kind, seconds in going_on.items():
            place = folder / f"{kind.split()[0]}-{number}"
            place.mkdir()
            sweep = Sweep(place, "strategy=last_k", "grpo.max_steps=2000", f"seed={number}", "checkpoint_steps=5").start()
            (job,) = sweep.wait_steps(8)
            (record,) = sweep.records
            starts.append(first_step(record, 1) - job_start(cluster, job))
            killed = time.time()
            if kind == "node crash":
                cluster.control("crash", record.owner().node)
            else:
                cluster.slurm(*(("scancel", "--signal=USR2") if "USR2" in kind else ("scontrol", "requeue")), job)
            wait_until(lambda record=record: first_step(record, 2) > 0, 180, f"the next step after a {kind}")  # type: ignore[misc]
            seconds.append(first_step(record, 2) - killed)
            sweep.kill()
            cluster.slurm("scancel", job)
            cluster.start()
    return {
        "job_start_to_first_step_seconds": starts,
        "kill_to_next_new_step_seconds": going_on,
        "medians": {
            "job_start_to_first_step_seconds": statistics.median(starts),
            **{f"{kind}_seconds": statistics.median(values) for kind, values in going_on.items()},
        },
    }


def first_step(record: RunDirectory, attempt: int) -> float:
    """When an attempt logged its first step of training; 0 before that."""
    times = [row["time"] for row in record.metrics() if row["attempt"] == attempt and "train/reward" in row["metrics"]]
    return times[0] if times else 0.0


def job_start(cluster: Cluster, job: str) -> float:
    text = cluster.slurm("sacct", "-X", "-n", "-P", "-o", "Start", "-j", job).split()[0]
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))


def packing(folder: Path, runs: int) -> dict[str, Any]:
    ways: dict[str, Callable[[Path], None]] = {
        "8 runs a job": lambda place: ours(place, runs, 8),
        "1 run a job": lambda place: ours(place, runs, 1),
        "hydra-submitit-launcher": lambda place: theirs(place, runs),
    }
    measured: dict[str, dict[str, float]] = {}
    for index, (name, way) in enumerate(ways.items()):
        place = folder / str(index)
        place.mkdir()
        with cpu_seconds() as used:
            started = time.monotonic()
            way(place)
            wall = time.monotonic() - started
        finished = sum(RunDirectory(path.parent).result() is not None for path in place.glob("**/result.json"))
        assert finished == runs, f"{name}: {finished} of {runs}"
        measured[name] = {"wall_seconds": wall, "cpu_seconds": sum(used.values())}
        print(name, measured[name], flush=True)
    base = measured["8 runs a job"]
    ratios = {
        name: {key: values[key] / base[key] for key in base} for name, values in measured.items() if values is not base
    }
    return {"runs": runs, "jobs_at_once": AT_ONCE, "ways": measured, "ratio_to_8_runs_a_job": ratios}


def ours(place: Path, runs: int, a_job: int) -> None:
    more = (f"launcher.runs_per_job={a_job}", f"launcher.array_parallelism={AT_ONCE}")
    sweep = Sweep(place, "-m", *SHORT, f"seed=range(0,{runs})", *more).start()
    assert sweep.end(1500) == 0, sweep.output()


def theirs(place: Path, runs: int) -> None:
    (place / "app.py").write_text(APP)
    overrides = [text for text in command(SHORT) if "=" in text]
    config = {"folder": str(place / "runs"), "number": 0, "overrides": overrides}
    launcher = {key.removeprefix("launcher."): value for key, _, value in (text.partition("=") for text in REQUEST)}
    request = [
        f"hydra.launcher.{key}={launcher[key]}" for key in ("gpus_per_node", "cpus_per_task", "mem_gb", "timeout_min")
    ]
    (place / "config.yaml").write_text(json.dumps(config))
    subprocess.run(
        [sys.executable, "app.py", "-m", "hydra/launcher=submitit_slurm", f"hydra.launcher.array_parallelism={AT_ONCE}",
         *request, f"number=range(0,{runs})"],
        cwd=place, env=environment(), check=True, timeout=1500, stdout=subprocess.DEVNULL,
    )  # fmt: skip


@contextmanager
def cpu_seconds() -> Iterator[dict[tuple[int, float], float]]:
    """CPU seconds, by process, of all that works for this cluster's jobs or for this process, read every half second."""
    used: dict[tuple[int, float], float] = {}
    ended = threading.Event()
    conf = os.environ["SLURM_CONF"]

    def read() -> None:
        me = os.getpid()
        while not ended.wait(0.5):
            for process in psutil.process_iter():
                try:
                    if process.pid != me and process.environ().get("SLURM_CONF") == conf:
                        times = process.cpu_times()
                        used[process.pid, process.create_time()] = times.user + times.system
                except psutil.Error:
                    continue

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield used
    finally:
        ended.set()
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=["chaos", "submission", "latency", "packing"])
    parser.add_argument("--runs", type=int, help="instead of 200, 1,000 and 64")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    with tempfile.TemporaryDirectory(prefix="erl-bench-") as name, local_cluster() as cluster:
        for part in chosen.parts:
            folder = Path(name) / part
            folder.mkdir()
            if part == "chaos":
                results[part] = chaos(cluster, folder, chosen.runs or 200, chosen.seed)
            elif part == "submission":
                results[part] = submission(cluster, folder, chosen.runs or 1000)
            elif part == "latency":
                results[part] = latency(cluster, folder, 3)
            else:
                results[part] = packing(folder, chosen.runs or 64)
            kept = {key: value for key, value in results.items() if key not in ("what", "machine")}
            write_result(RESULTS, __doc__ or "", kept)
            print(part, json.dumps(results[part], indent=1), flush=True)


if __name__ == "__main__":
    main()
