"""A step in bfloat16 arithmetic against one in float32: our trainer, same process, SmolLM2's shape, tokens and seed.

Seconds are of this process's CPU. A ratio is the median over rounds of the ratio of both median steps in a round.
"""

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.machine import write_result
from benchmarks.steps import Case, compare, nano_tokenizer, ours, random_case, smollm2_shape
from efficient_rl.libraries import quiet_libraries
from efficient_rl.strategies.adapters import Lora
from efficient_rl.strategies.static import Full, LastK
from efficient_rl.training.arithmetic import has_bfloat16
from efficient_rl.training.grpo import Optimizations

BOUND = 0.75
STRATEGIES = {"full": Full(), "lora r8": Lora(rank=8, alpha=16), "last 6 of 30": LastK(6)}


def case() -> Case:
    """4 prompts of 64 tokens, 8 completions of 8 tokens each."""
    config = smollm2_shape(eos_token_id=nano_tokenizer().eos_token_id)
    return random_case(config, 32, 64, 8, torch.float32, gradient_checkpointing=False)


def figures(steps: int, rounds: int) -> list[dict[str, Any]]:
    """Of every strategy the ratio after generation, and those of generation, of the whole step and of the weights' bytes."""
    found = []
    shape = case()
    half = Optimizations(half_frozen=True)
    for name, strategy in STRATEGIES.items():
        makers = {
            "float32": lambda n, s=strategy: ours(shape, s, n, bf16=False),
            "bfloat16": lambda n, s=strategy: ours(shape, s, n, bf16=True, optimizations=half),
        }
        seconds = compare(makers, steps, rounds)
        row: dict[str, Any] = {"what": name, "at_most": BOUND}
        for part in ("after generation", "generation", "step"):
            pairs = zip(seconds["bfloat16"][part], seconds["float32"][part], strict=True)
            row[part] = median(mine / theirs for mine, theirs in pairs)
            row[f"{part}, seconds"] = {arm: median(seconds[arm][part]) for arm in seconds}
        weights = [sum(p.nbytes for p in make(1).model.parameters()) for make in makers.values()]
        row["bytes of weights"] = weights[1] / weights[0]
        print(json.dumps(row), flush=True)
        found.append(row)
    return found


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "arithmetic.json")
    arguments = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    write_result(
        arguments.output,
        __doc__ or "",
        {"has_bfloat16": has_bfloat16(), "figures": figures(arguments.steps, arguments.rounds)},
    )


if __name__ == "__main__":
    main()
