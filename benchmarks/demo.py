"""Measures the time of the demo's sweep and report, and tracking's share of a nano run's time."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import spread, write_result
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.tracking.collector import Collector
from efficient_rl.tracking.experiment import TrackedRun

SYNCS_A_RUN = 8  # a nano run takes about 40 s, the collector looks every 5


def demo_seconds(folder: Path) -> float:
    """Wall seconds of the two commands of `make demo` in an empty folder."""
    started = time.monotonic()
    sweep = [sys.executable, "-m", "efficient_rl.sweep", "-m", "strategy=first_k,last_k,lora"]
    subprocess.run(sweep, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([sys.executable, "-m", "analysis.report"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def tracking_shares(outputs: Path) -> list[float]:
    """For each finished run: CPU seconds of sending it piece by piece as it grows, over the seconds that the run took."""
    shares = []
    with tempfile.TemporaryDirectory() as name:
        copies = Path(name)
        collector = Collector(f"sqlite:///{copies}/mlflow.db", "tracking", "benchmark", copies / "outputs")
        collector.sync([_grown(outputs / "runs" / path.name, copies / "warm", 1.0) for path in _runs(outputs)[:1]])
        for path in _runs(outputs):
            result = RunDirectory(path).result()
            assert result is not None
            started = time.process_time()
            for piece in range(1, SYNCS_A_RUN + 1):
                collector.sync([_grown(path, copies, piece / SYNCS_A_RUN)])
            shares.append((time.process_time() - started) / result.total_seconds)
    return shares


def _runs(outputs: Path) -> list[Path]:
    return sorted(path for path in (outputs / "runs").iterdir() if RunDirectory(path).result() is not None)


def _grown(source: Path, copies: Path, share: float) -> TrackedRun:
    """A copy of a run as it was when that share of its metrics was written; whole, with its result, at 1."""
    folder = copies / source.name
    if not folder.exists():
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("tracking", "result.json", "metrics.jsonl", "model"))
    os.utime(folder / "attempts")  # as a worker that goes on with it would
    lines = (source / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_bytes(b"".join(lines[: round(share * len(lines))]))
    if share == 1:
        shutil.copy(source / "result.json", folder / "result.json")
    return TrackedRun(folder, source.name, {"strategy.name": "any"})


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "demo.json")
    arguments = parser.parse_args()
    seconds, shares = [], []
    for _ in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as folder:
            seconds.append(demo_seconds(Path(folder)))
            shares += tracking_shares(Path(folder) / "outputs")
    write_result(arguments.output, __doc__ or "", {"demo_seconds": spread(seconds), "tracking_share": spread(shares)})
    print(arguments.output.read_text())


if __name__ == "__main__":
    main()
