"""What the default protocol reaches: accuracy before and after for every strategy, 3 seeds."""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from scipy.stats import ttest_1samp

from analysis.data.load import load_sweep
from analysis.stats.aggregate import summarize
from benchmarks.machine import write_result
from efficient_rl.rundir.directory import RunDirectory


def main() -> None:
    """Run the named sweep in an empty folder (or go on in `--folder`) and write the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweep", default="which_blocks")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "learning.json")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "efficient_rl.sweep", f"sweep={arguments.sweep}"]
    subprocess.run(command, cwd=folder, check=True)
    sweep = load_sweep(folder / "outputs", arguments.sweep)
    rows = [
        {
            "label": summary.label,
            "seeds": summary.seeds,
            "trainable_params": summary.trainable_params,
            "accuracy_before": summary.accuracy_before,
            "accuracy": summary.accuracy,
            "accuracy_interval": [summary.accuracy_low, summary.accuracy_high],
            "gain_points": 100 * (summary.accuracy - summary.accuracy_before),
            "train_seconds": summary.train_seconds,
            "peak_memory_bytes": summary.peak_memory_bytes,
        }
        for summary in summarize(sweep.runs)
    ]
    runs = _runs([folder / "outputs" / "runs" / run.hash for run in sweep.runs])
    measured: dict[str, Any] = {"sweep": arguments.sweep, "strategies": rows, "runs": runs}
    if len({run["curriculum"] for run in runs}) > 1:
        measured["against_uniform"] = paired(runs, "curriculum", "uniform")
    write_result(arguments.output, __doc__ or "", measured)
    print(arguments.output.read_text())


def paired(runs: Sequence[Mapping[str, Any]], part: str, control: str) -> dict[str, Any]:
    """Accuracy of every variant of a part less the control's on the same seeds: mean, 95% t interval, Holm's p."""
    by_variant: dict[str, dict[int, float]] = {}
    for run in runs:
        by_variant.setdefault(run[part], {})[run["seed"]] = run["after"]["accuracy"]
    found: dict[str, Any] = {}
    for name, values in by_variant.items():
        seeds = sorted(values.keys() & by_variant[control].keys())
        differences = [values[seed] - by_variant[control][seed] for seed in seeds]
        if name != control and len(seeds) > 1:
            test = ttest_1samp(differences, 0.0)
            low, high = test.confidence_interval(0.95)
            found[name] = {"mean": fmean(differences), "low": float(low), "high": float(high), "p": float(test.pvalue)}
    running = 0.0
    for rank, name in enumerate(sorted(found, key=lambda name: found[name]["p"])):
        running = max(running, min(1.0, (len(found) - rank) * found[name]["p"]))
        found[name]["holm_p"] = running
    return found


def _runs(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """What every run measured, with the intervals over problems of its accuracies."""
    rows = []
    for path in sorted(folders):
        found = RunDirectory(path).result()
        if found is not None:
            config = yaml.safe_load((path / "config.yaml").read_text())
            before, after = (
                {name: evaluation[name] for name in ("accuracy", "low", "high", "greedy_accuracy", "problems", "samples")}
                for evaluation in (found.evaluation_before, found.evaluation)
            )
            rows.append(
                {
                    "strategy": found.strategy,
                    "curriculum": config["curriculum"]["name"],
                    "learning_rate": config["grpo"]["learning_rate"],
                    "seed": found.seed,
                    "before": before,
                    "after": after,
                    "seconds_a_step": found.train_seconds / found.steps,
                    "total_seconds": found.total_seconds,
                    "tokens": found.tokens,
                }
            )
    return rows


if __name__ == "__main__":
    main()
