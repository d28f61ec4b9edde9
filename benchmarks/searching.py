"""How much of the front a search finds with a quarter of the runs: pareto search and NSGA-II against random search.

`grid` runs every point once (nano, 20 steps each) and keeps what was measured as a table. `replay` answers the proposals of
real searches from that table, over many seeds: hypervolume reached as a share of the whole grid's.

python -m benchmarks.searching grid replay
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scipy import stats

from benchmarks.machine import write_result
from efficient_rl.config.compose import expand
from efficient_rl.config.run_config import parse_run
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.rundir.result import RunResult

RESULTS = Path(__file__).parent / "results" / "searching.json"
RUN = (
    "eval.split=validation",
    "grpo.max_steps=20",
    "grpo.per_device_train_batch_size=64",
    "eval.problems=100",
    "eval.samples=2",
)
SPACE = (
    "strategy=choice(first_k,last_k,lora)",
    "strategy.k=range(1,5)",
    "lora.rank=choice(1,4,16,64)",
    "grpo.learning_rate=choice(1e-4,4e-4,1.6e-3,6.4e-3)",
)
KINDS: Mapping[str, Sequence[str]] = {
    "random": ("search=random", "search.objectives={params/trainable:minimize}"),
    "pareto": ("search=pareto",),
    "nsga2": ("search=nsga2", "search.sampler.population_size=4"),
}
SHARE = 4  # a search gets one in so many of the grid's runs
Point = tuple[float, float]  # accuracy, trained parameters


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=["grid", "replay"])
    parser.add_argument("--seeds", type=int, default=20)
    known = parser.parse_args(arguments)
    if "grid" in known.parts:
        write_result(RESULTS, __doc__ or "", {"grid": grid()})
    if "replay" in known.parts:
        measured = json.loads(RESULTS.read_text())["grid"]
        write_result(RESULTS, __doc__ or "", {"replay": replay(measured, known.seeds), "grid": measured})


def grid() -> list[dict[str, Any]]:
    """Every distinct run of the space, with what it measured."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [parse_run(point) for point in expand([*RUN, *SPACE])]
        command = ["-m", *RUN, *SPACE, "tracking.uri=none", "launcher.workers=1", "name=grid"]
        subprocess.run([sys.executable, "-m", "efficient_rl.sweep", *command], cwd=folder, env=_environment(), check=True)
        rows = []
        for run in {run.config_hash: run for run in runs}.values():
            result = RunDirectory(Path(folder) / "outputs" / "runs" / run.config_hash).result()
            assert result is not None
            knob = {key: value for key, value in run.strategy.arguments.items() if key in ("k", "rank")}
            rows.append(
                {
                    "strategy": run.strategy.name,
                    **knob,
                    "learning_rate": run.grpo.learning_rate,
                    "accuracy": result.accuracy,
                    "trainable": result.trainable_params,
                    "seconds": result.total_seconds,
                }
            )
        return rows


def replay(measured: Sequence[Mapping[str, Any]], seeds: int) -> dict[str, Any]:
    """Shares of the grid's hypervolume that each kind of search reaches, with 95% t-intervals over the seeds."""
    trials = len(measured) // SHARE
    points = [(row["accuracy"], row["trainable"]) for row in measured]
    reached: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        _publish(measured, Path(folder) / "outputs")
        for kind, overrides in KINDS.items():
            started = time.monotonic()
            reached[kind] = [_reached(kind, overrides, seed, trials, points, Path(folder)) for seed in range(seeds)]
            seconds[kind] = (time.monotonic() - started) / seeds / trials
    return {
        "runs_of_the_grid": len(points),
        "trials": trials,
        "seeds": seeds,
        "hypervolume_share": {kind: _interval(values) | {"each": values} for kind, values in reached.items()},
        "more_than_random": {
            kind: _interval([a - b for a, b in zip(values, reached["random"], strict=True)])
            for kind, values in reached.items()
            if kind != "random"
        },
        "seconds_a_trial_without_its_run": seconds,
        "random_runs_for_the_same": {
            kind: _random_needed(points, statistics.mean(values)) for kind, values in reached.items() if kind != "random"
        },
    }


def _reached(kind: str, overrides: Sequence[str], seed: int, trials: int, points: Sequence[Point], folder: Path) -> float:
    name = f"{kind}-{seed}"
    command = [*RUN, *SPACE, *overrides, f"search.trials={trials}", f"search.seed={seed}", f"name={name}"]
    subprocess.run(
        [sys.executable, "-m", "efficient_rl.sweep", "-m", *command, "tracking.uri=none", "launcher=debug"],
        cwd=folder,
        env=_environment(),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    told = json.loads((folder / "outputs" / "sweeps" / name / "search.json").read_text())
    found = [trial["values"] for trial in told["trials"] if trial["repeat_of"] is None]
    assert len(found) == trials
    order = list(told["objectives"])
    accuracy, trainable = order.index("accuracy"), order.index("params/trainable")
    return hypervolume([(each[accuracy], each[trainable]) for each in found], points) / hypervolume(points, points)


def hypervolume(found: Sequence[Point], among: Sequence[Point]) -> float:
    """Area that `found` dominates of the square between the worst and the best of `among`; parameters in logarithms."""
    low, high = min(a for a, _ in among), max(a for a, _ in among)
    small, large = (math.log(bound(size for _, size in among)) for bound in (min, max))
    unit = [((a - low) / (high - low), (large - math.log(size)) / (large - small)) for a, size in found]
    area, height = 0.0, 0.0
    for gain, saving in sorted(unit, key=lambda point: (-point[1], -point[0])):
        area, height = area + max(0.0, gain - height) * saving, max(height, gain)
    return area


def _random_needed(points: Sequence[Point], share: float) -> int:
    """How many runs drawn evenly from the grid reach this share on average, by simulation."""
    import random

    whole, draws = hypervolume(points, points), random.Random(0)
    for count in range(1, len(points) + 1):
        reached = [hypervolume(draws.sample(list(points), count), points) / whole for _ in range(400)]
        if statistics.mean(reached) >= share:
            return count
    return len(points)


def _publish(measured: Sequence[Mapping[str, Any]], outputs: Path) -> None:
    """The table as finished runs: a search that proposes one of them is told at once."""
    for row in measured:
        knob = [f"strategy.{key}={row[key]}" for key in ("k", "rank") if key in row]
        overrides = [*RUN, f"strategy={row['strategy']}", *knob, f"grpo.learning_rate={row['learning_rate']}"]
        run = parse_run(expand(overrides)[0])
        evaluation = {
            "accuracy": row["accuracy"], "greedy_accuracy": row["accuracy"], "standard_error": 0.0, "pass_at_k": 0.0,
            "problems": run.eval.problems, "samples": run.eval.samples,
        }  # fmt: skip
        result = RunResult(
            config_hash=run.config_hash, model=run.model.name, strategy=run.strategy.name, seed=run.seed,
            trainable_params=row["trainable"], mean_active_params=float(row["trainable"]), total_params=row["trainable"],
            accuracy=row["accuracy"], accuracy_before=0.0, evaluation=evaluation, evaluation_before=evaluation,
            final_reward=0.0, peak_memory_bytes={}, memory_parts_bytes={}, phase_seconds={}, train_seconds=row["seconds"],
            total_seconds=row["seconds"], steps=run.grpo.max_steps, tokens=0, code_version="table", attempt=1,
            finished_at=time.time(),
        )  # fmt: skip
        folder = outputs / "runs" / run.config_hash
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(asdict(result)))


def _interval(values: Sequence[float]) -> dict[str, float]:
    mean = statistics.mean(values)
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[1])
    return os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    main()
