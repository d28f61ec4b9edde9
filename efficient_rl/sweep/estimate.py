"""Says before a launch how long runs will take and how much memory: from finished runs like them, else from arithmetic."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from efficient_rl.config.run_config import RunConfig
from efficient_rl.rundir.result import RunResult

CPU_FLOPS = 2e10  # float32 multiply-adds and adds a core reaches on small matrices, to the order of magnitude
GPU_FLOPS = 2e13  # bfloat16 on a data-centre GPU that also samples, to the order of magnitude
BYTES_A_PARAMETER = 16  # float32 weight, gradient and Adam's two moments
TOKENS_BEFORE_COMPLETION = 64


@dataclass(frozen=True)
class Estimate:
    """Seconds and peak bytes of one run; None where nothing is known. `source` says from what."""

    seconds: float | None
    peak_bytes: float | None
    source: str


def estimate(run: RunConfig, known: Sequence[tuple[RunConfig, RunResult]], gpu: bool = False) -> Estimate:
    """The estimate of one run: the median of finished runs with the same model and strategy, scaled to its work.

    Without such runs it is arithmetic, for a core or for a GPU.
    """
    alike = [
        (seen, result)
        for seen, result in known
        if seen.model.path == run.model.path and seen.grpo.max_completion_length == run.grpo.max_completion_length
    ]
    same = [pair for pair in alike if pair[0].strategy.target == run.strategy.target]
    chosen = same or alike
    if chosen:
        seconds = median(
            result.total_seconds - result.train_seconds + result.train_seconds * _work(run) / _work(seen)
            for seen, result in chosen
        )
        peak = median(max(result.peak_memory_bytes.values(), default=0) for _, result in chosen)
        return Estimate(seconds, peak, f"{len(chosen)} finished {'like it' if same else 'with this model'}")
    parameters = _parameters(run)
    if parameters is None:
        return Estimate(None, None, "unknown until the first run")
    tokens = run.grpo.max_completion_length / 2 + TOKENS_BEFORE_COMPLETION
    flops = 8.0 * parameters * tokens * _work(run)  # forward 2, backward 4, sampling 2 a parameter and token
    return Estimate(flops / (GPU_FLOPS if gpu else CPU_FLOPS), float(parameters * BYTES_A_PARAMETER), "arithmetic")


def _work(run: RunConfig) -> float:
    """Completions trained on, over the whole run."""
    grpo = run.grpo
    return grpo.max_steps * grpo.per_device_train_batch_size * grpo.gradient_accumulation_steps


def _parameters(run: RunConfig) -> int | None:
    """Parameters of the model: as its option says, or from the shape of a model in a local folder."""
    folder = run.model.folder
    if run.model.parameters is not None:
        return run.model.parameters
    if folder is None or not (folder / "config.json").is_file():
        return None
    shape = json.loads((folder / "config.json").read_text())
    try:
        hidden, inner, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
        return int(layers * (4 * hidden * hidden + 3 * hidden * inner) + shape["vocab_size"] * hidden)
    except KeyError:
        return None
