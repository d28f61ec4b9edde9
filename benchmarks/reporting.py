"""A report on 1,000 runs of 10 metrics x 200 points in SQLite: time, memory, MLflow's client beside it; coverage."""

import argparse
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from analysis.stats.intervals import (
    Estimate,
    Stratum,
    crossed,
    interquartile_mean,
    mean,
    mean_of,
    probability_of_improvement,
)
from benchmarks.machine import write_result

METRICS = (
    "train/reward", "train/difficulty", "train/tokens", "time/step_seconds", "params/active",
    "train/loss", "train/kl", "train/entropy", "train/completion_tokens", "memory/backward_peak_bytes",
)  # fmt: skip
STEPS, SEEDS, PROBLEMS, SAMPLES = 200, 10, 200, 4
CLIENT_RUNS = 20  # the client's seconds are measured on so many runs and scaled to all
REPORT = """
import resource, sys
from analysis.report.__main__ import main
code = main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(code)
"""
CLIENT = """
import sys, time
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
experiment = client.get_experiment_by_name("big").experiment_id
started = time.perf_counter()
runs, page = [], None
while True:
    page = client.search_runs([experiment], "tags.config_hash != ''", page_token=page)
    runs += page
    page = page.token
    if not page:
        break
searched = time.perf_counter() - started
started = time.perf_counter()
some = runs[: int(sys.argv[2])]
points = sum(len(client.get_metric_history(run.info.run_id, key)) for run in some for key in sys.argv[3:])
print(searched, time.perf_counter() - started, len(runs), points)
"""
READ = """
import sys, time
from analysis.data.stored import load_stored
started = time.perf_counter()
sweep = load_stored(sys.argv[1], "big")
print(time.perf_counter() - started, len(sweep.finished), sum(len(s.steps) for r in sweep.runs for s in r.series.values()))
"""


def main() -> None:
    """Make the store, write the report from it, read it with the plain client, and count how often intervals hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "reporting.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), arguments.runs)
    measured["coverage"] = coverages(arguments.draws)
    write_result(arguments.output, __doc__ or "", measured)
    print(arguments.output.read_text())


def measure(folder: Path, runs: int) -> dict[str, Any]:
    """Seconds and peak memory of the report's process, and the seconds of both ways to read."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    make_store(folder / "mlflow.db", uri, runs)
    started = time.monotonic()
    printed = child(REPORT, "read=store", f"tracking={uri}", f"reports={folder / 'reports'}", f"output={folder}")
    seconds = time.monotonic() - started
    cpu_seconds, peak_kib = map(float, printed.splitlines()[-1].split())
    read, finished, points = map(float, child(READ, uri).split())
    searched, histories, found, client_points = map(float, child(CLIENT, uri, str(CLIENT_RUNS), *METRICS).split())
    assert finished == found == runs
    client = searched + histories * runs / CLIENT_RUNS
    return {
        "runs": runs,
        "metrics": len(METRICS),
        "points": runs * len(METRICS) * STEPS,
        "report_seconds": seconds,
        "report_cpu_seconds": cpu_seconds,
        "report_peak_mib": peak_kib / 1024,
        "page_mib": (folder / "reports" / "big" / "report.html").stat().st_size / 2**20,
        "read_seconds": read,
        "read_points": int(points),
        "client_read_seconds_scaled": client,
        "client_points_measured": int(client_points),
        "client_over_ours": client / read,
    }


def child(script: str, *arguments: str) -> str:
    """What a new process prints."""
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ended with status {done.returncode}: {done.stderr[-3000:]}")
    return done.stdout


def make_store(path: Path, uri: str, runs: int) -> None:
    """A database as the collector leaves it, written directly: the client would take an hour."""
    from efficient_rl.tracking.client import open_client

    client = open_client(uri)
    experiment = client.create_experiment("big")
    parent = client.create_run(experiment, tags={"sweep_parent": "big", "command": "python -m efficient_rl.sweep"})
    draw = random.Random(0)
    connection = sqlite3.connect(path)
    for number in range(runs):
        run_id = uuid.UUID(int=draw.getrandbits(128)).hex
        row = {"run_uuid": run_id, "status": "FINISHED", "lifecycle_stage": "active", "start_time": 0}
        row |= {"user_id": "", "source_type": "LOCAL", "artifact_uri": str(path.parent)}
        insert(connection, "runs", [row | {"experiment_id": int(experiment), "name": run_id, "end_time": 1}])
        group, seed = divmod(number, SEEDS)
        right = [sum(draw.random() < 0.2 + 0.6 * group * SEEDS / runs for _ in range(SAMPLES)) for _ in range(PROBLEMS)]
        tags = {"mlflow.parentRunId": parent.info.run_id, "config_hash": run_id[:16], "code_version": "abc"}
        tags["right"] = json.dumps(right)
        insert(connection, "tags", [{"run_uuid": run_id, "key": key, "value": value} for key, value in tags.items()])
        strategy = ("full", "lora", "last_k", "lisa")[group % 4]
        params: dict[str, Any] = {"strategy.name": strategy, "grpo.learning_rate": (group + 1) * 1e-5, "seed": seed}
        params |= {f"grpo.setting_{index}": index for index in range(30)}
        insert(
            connection, "params", [{"run_uuid": run_id, "key": key, "value": str(value)} for key, value in params.items()]
        )
        accuracy = sum(right) / PROBLEMS / SAMPLES
        fill_metrics(connection, run_id, accuracy, 1000 * 2 ** (group % 10), draw)
    connection.commit()
    connection.close()


def fill_metrics(connection: sqlite3.Connection, run_id: str, accuracy: float, size: int, draw: random.Random) -> None:
    """The history of ten metrics, and the last values of them and of the summary."""
    points = [(key, step, draw.random() + step) for key in METRICS for step in range(1, STEPS + 1)]
    base = {"run_uuid": run_id, "is_nan": False}
    insert(connection, "metrics", [base | {"key": k, "value": v, "timestamp": s, "step": s} for k, s, v in points])
    last = {key: value for key, step, value in points if step == STEPS}
    last |= {
        "accuracy": accuracy, "accuracy_before": 0.2, "greedy_accuracy": accuracy, "problems": PROBLEMS, "samples": SAMPLES,
        "eval/standard_error": 0.02, "params/trainable": size, "params/total": 512_000,
        "time/train_seconds": draw.uniform(50, 90),
    }  # fmt: skip
    rows = [base | {"key": key, "value": value, "timestamp": STEPS, "step": STEPS} for key, value in last.items()]
    insert(connection, "latest_metrics", rows)


def insert(connection: sqlite3.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    """Insert rows that have the same columns."""
    names = list(rows[0])
    marks = ", ".join("?" for _ in names)
    connection.executemany(
        f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", [tuple(row.values()) for row in rows]
    )


def coverages(draws: int) -> dict[str, float]:
    """How often 95% intervals hold the truth, with 3, 5 and 10 seeds: the report's, and what over seeds alone would."""
    rng = np.random.default_rng(0)

    def share(truth: float, estimate: Callable[[], Estimate], count: int = draws) -> float:
        found = [estimate() for _ in range(count)]
        return (
            sum(each.low is not None and each.high is not None and each.low <= truth <= each.high for each in found) / count
        )

    def solved(seeds: int) -> Any:
        easy, own = rng.normal(0, 2, (1, PROBLEMS)), rng.normal(0, 0.3, (seeds, PROBLEMS))
        chance = 1 / (1 + np.exp(-(easy + rng.normal(0, 0.2, (seeds, 1)) + own)))
        return rng.binomial(SAMPLES, chance) / SAMPLES

    found = {}
    for seeds in (3, 5, 10):

        def normal(seeds: int = seeds) -> Stratum:
            return Stratum(rng.normal(0.5, 0.03, seeds))

        found |= {
            f"accuracy, {seeds} seeds": share(0.5, lambda n=seeds: mean([crossed(solved(n))])),
            f"accuracy, over seeds alone, {seeds} seeds": share(0.5, lambda n=seeds: mean_of(solved(n).mean(axis=1))),
            f"mean over three strata, {seeds} seeds": share(0.5, lambda: mean([normal(), normal(), normal()])),
            f"interquartile mean, {seeds} seeds": share(0.5, lambda: interquartile_mean([normal()])),
            f"interquartile mean over three strata, {seeds} seeds": share(
                0.5, lambda: interquartile_mean([normal(), normal(), normal()], 1000), max(1, draws // 4)
            ),
            f"probability of improvement, {seeds} seeds": share(
                0.5, lambda: probability_of_improvement([normal().scores], [normal().scores])
            ),
        }
    return found


if __name__ == "__main__":
    main()
