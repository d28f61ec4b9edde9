"""What shared prompts save at SmolLM2-135M's shape: seconds after generation against stock TRL, bytes against ours without.

Seconds are of this process's CPU. A ratio is the median over rounds of the ratio of both trainers' median steps in a round.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.machine import write_result
from benchmarks.steps import Case, compare, nano_tokenizer, ours, random_case, smollm2_shape, stock
from benchmarks.training import last_blocks, with_lora
from efficient_rl.libraries import quiet_libraries
from efficient_rl.strategies.adapters import Lora
from efficient_rl.strategies.protocol import Strategy
from efficient_rl.strategies.static import Full, LastK
from efficient_rl.training.grpo import Optimizations
from efficient_rl.training.memory import PhaseMeter

TRAINED = 6  # of 30 blocks
GROUPS, SIZE, PROMPT, COMMON, COMPLETION = 4, 8, 64, 52, 8
LONG = 150  # tokens of a prompt and of a completion


def smollm_case(rows: int, prompt: int, completion: int, common: int) -> Case:
    """Random weights of SmolLM2-135M's shape."""
    config = smollm2_shape(pad_token_id=nano_tokenizer().pad_token_id)
    settings = {"bf16": False, "gradient_checkpointing": False, "num_generations": SIZE}
    return random_case(config, rows, prompt, completion, torch.float32, common, **settings)


def pairs(few_shot: Case, long: Case) -> dict[str, tuple[float, dict[str, Callable[[int], Any]]]]:
    """Every comparison: what, the bound asked for, both trainers."""
    last, lora = LastK(TRAINED), Lora(rank=8, alpha=16)
    twice = {"beta": 0.04, "num_iterations": 2}

    def pair(case: Case, freeze: Callable[..., Any], strategy: Strategy, **settings: Any) -> dict[str, Callable[[int], Any]]:
        return {
            "trl": lambda steps: stock(case, freeze, steps, **settings),
            "ours": lambda steps: ours(case, strategy, steps, **settings),
        }

    return {
        "few-shot, full": (0.28, pair(few_shot, lambda model: model, Full())),
        "few-shot, LoRA r8": (0.30, pair(few_shot, with_lora, lora)),
        "few-shot, last 6 of 30": (0.30, pair(few_shot, last_blocks(TRAINED), last)),
        "few-shot, last 6 of 30, beta 0.04, 2 updates a batch": (0.15, pair(few_shot, last_blocks(TRAINED), last, **twice)),
        "150 + 150 tokens, full": (0.62, pair(long, lambda model: model, Full())),
    }


def compared(name: str, bound: float, makers: Mapping[str, Callable[[int], Any]], steps: int, rounds: int) -> dict[str, Any]:
    """One comparison of seconds after generation."""
    timed = compare(makers, steps, rounds)
    mine, theirs = timed["ours"]["after generation"], timed["trl"]["after generation"]
    ratios = [one / other for one, other in zip(mine, theirs, strict=True)]
    return {
        "what": f"SmolLM2's shape, {name}, after generation", "against": "TRL, same settings", "at_most": bound,
        "ratio": median(ratios), "ratios_by_round": ratios,
        "ours_seconds": median(mine), "trl_seconds": median(theirs),
    }  # fmt: skip


def activations(case: Case) -> dict[str, Any]:
    """Bytes that the forward pass leaves for the backward pass, shared against plain, and the share of tokens."""
    kept = {}
    for name, shares in (("plain", False), ("shared", True)):
        meter = PhaseMeter()
        trainer = ours(case, Full(), 1, meter=meter, optimizations=Optimizations(shared_prefixes=shares))
        trainer.start_clock()
        trainer.train()
        kept[name] = meter.take_bytes()["activations"]
    rows = GROUPS * SIZE
    tokens = COMMON + GROUPS * (PROMPT - COMMON) + rows * (COMPLETION - 1)
    share = tokens / (rows * (PROMPT + COMPLETION))
    return {
        "what": "SmolLM2's shape, few-shot, full, bytes of activations", "against": "ours without", "at_most": 1.1 * share,
        "ratio": kept["shared"] / kept["plain"], "share_of_tokens": share, "bytes": kept,
    }  # fmt: skip


def main() -> None:
    """Measure what is asked for and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "prefixes.json")
    arguments = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    few_shot = smollm_case(GROUPS * SIZE, PROMPT, COMPLETION, COMMON)
    long = smollm_case(SIZE, LONG, LONG, 0)
    rows = [activations(few_shot)]
    for name, (bound, makers) in pairs(few_shot, long).items():
        rows.append(compared(name, bound, makers, arguments.steps, arguments.rounds))
        print(f"{rows[-1]['what']}: {rows[-1]['ratio']:.3f} (at most {bound})", flush=True)
    write_result(arguments.output, __doc__ or "", {"figures": rows})


if __name__ == "__main__":
    main()
