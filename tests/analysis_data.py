"""Shared by the tests of analysis: results, runs and sweeps, in memory and in an output folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.data.load import REWARD, Run, SweepData, make_series
from analysis.report.results import compute_results
from analysis.report.sentences import sentences_of
from analysis.stats.aggregate import Summary, summarize
from efficient_rl.rundir.result import RunResult

# One finished run as efficient_rl.rundir.directory.RunResult writes it.
EVALUATION = {
    "accuracy": 0.5,
    "greedy_accuracy": 0.6,
    "pass_at_k": 0.7,
    "standard_error": 0.025,
    "problems": 200,
    "samples": 4,
}
RESULT: dict[str, Any] = {
    "model": "nano",
    "strategy": "full",
    "seed": 0,
    "trainable_params": 1000,
    "mean_active_params": 1000.0,
    "total_params": 4000,
    "accuracy": 0.5,
    "accuracy_before": 0.2,
    "evaluation": EVALUATION,
    "evaluation_before": EVALUATION,
    "final_reward": 0.7,
    "peak_memory_bytes": {"generation": 2**20, "backward": 3 * 2**20},
    "memory_parts_bytes": {"parameters": 2**19},
    "phase_seconds": {},
    "train_seconds": 12.5,
    "train_cpu_seconds": None,
    "total_seconds": 15.0,
    "steps": 3,
    "tokens": 1234,
    "code_version": "abc",
    "attempt": 1,
    "finished_at": 1.0,
}


def result(accuracy: float, trainable: int = 1000, **changes: Any) -> RunResult:
    """A result; what an evaluation holds goes there, with `_before` into the one before training."""
    known: dict[str, Any] = {**RESULT, "config_hash": "it"}
    known |= {"trainable_params": trainable, "mean_active_params": float(trainable)}
    evaluations = {"evaluation": {**EVALUATION}, "evaluation_before": {**EVALUATION}}
    for name, value in changes.items():
        if name in RESULT:
            known[name] = value
        else:
            part = "evaluation_before" if name.endswith("_before") else "evaluation"
            evaluations[part][name.removesuffix("_before")] = value
    return RunResult(**{**known, **evaluations, "accuracy": float(accuracy)})


def rewarded(run: Run, *values: float) -> Run:
    """The run with these rewards at steps 1, 2, ..."""
    return replace(run, series={REWARD: make_series(enumerate(values, 1))})


def runs_of(strategy: str, accuracies: Sequence[float | None], trainable: int = 1000, **changes: Any) -> list[Run]:
    """A run for every accuracy, with seeds 0, 1, ...; None is a run that is not finished."""
    return [
        Run(
            f"{strategy}-{trainable}-{seed}",
            {"strategy.name": strategy, "model.name": changes.get("model", "nano"), "seed": seed},
            None if value is None else result(value, trainable, **{k: v for k, v in changes.items() if k != "model"}),
        )
        for seed, value in enumerate(accuracies)
    ]


def sentences(*runs: Run) -> list[str]:
    return sentences_of(compute_results(SweepData("s", 0.0, "c", None, runs)))


def write_run(outputs: Path, key: str, rewards: Sequence[float] = (0.1, 0.2, 0.3), **changes: Any) -> Path:
    folder = outputs / "runs" / key
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({**RESULT, "config_hash": key, **changes}))
    lines = [{"step": 0, "time": 0.0, "metrics": {"eval/accuracy": 0.2}}]
    lines += [{"step": step, "time": 0.0, "metrics": {"train/reward": reward}} for step, reward in enumerate(rewards, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def write_sweep(
    outputs: Path, name: str, runs: Mapping[str, Mapping[str, Any]], created: float = 1.0, **changes: Any
) -> None:
    folder = outputs / "sweeps" / name
    folder.mkdir(parents=True)
    manifest = {
        "name": name,
        "created": created,
        "command": "python -m efficient_rl.sweep",
        "question": None,
        "runs": [{"hash": key, "params": params} for key, params in runs.items()],
    }
    (folder / "sweep.json").write_text(json.dumps({**manifest, **changes}))


def demo_outputs(tmp_path: Path) -> Path:
    """The outputs of the sweep `demo`: full and lora, two seeds each, all finished."""
    folder = tmp_path / "outputs"
    params = {f"{name}{seed}": {"strategy.name": name, "seed": seed} for name in ("full", "lora") for seed in (0, 1)}
    write_sweep(folder, "demo", params, question="Is it worth it?")
    for key, accuracy, size in (("full0", 0.5, 4000), ("full1", 0.7, 4000), ("lora0", 0.4, 500), ("lora1", 0.5, 500)):
        write_run(folder, key, accuracy=accuracy, trainable_params=size, mean_active_params=float(size))
    return folder


def summaries_at(*places: tuple[int, float]) -> list[Summary]:
    """Summaries of one seed with these trained parameters and accuracies, all in one setting."""
    return summarize([Run(str(i), {"strategy.name": f"s{i}"}, result(y, x)) for i, (x, y) in enumerate(places)])
