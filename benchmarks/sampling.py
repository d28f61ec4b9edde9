"""CPU seconds a token of our sampler: against transformers' own cache and forward, and beginnings computed once.

All in one process, alternating. A ratio is the median over rounds of the ratio of both arms' CPU seconds in a round.
"""

import argparse
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from benchmarks.machine import write_result
from benchmarks.steps import nano_case, nano_tokenizer, smollm2_shape
from efficient_rl.libraries import quiet_libraries
from efficient_rl.training import sampler
from efficient_rl.training.decode_step import DecodeStep
from efficient_rl.training.sampler import SamplingSettings, draws, sample

GROUP, ROWS, TOKENS = 8, 128, 44
FEW_SHOT = {"prompts": 4, "common": 150, "own": 40}  # tokens
BLOCKS = 6  # of the 30 of SmolLM2-135M

Generation = Callable[[], list[list[int]]]


def nano_arms(stops: bool) -> dict[str, Generation]:
    """Groups of 8 completions of nano: with stop tokens, or 44 tokens each."""
    case, tokenizer = nano_case(ROWS, bf16=False, gradient_checkpointing=False), nano_tokenizer()
    model = case.model()
    prompts = [tokenizer(row["prompt"])["input_ids"] for row in case.rows[: ROWS // GROUP]]
    repeated = [ids for ids in prompts for _ in range(GROUP)]
    stop = [tokenizer.eos_token_id] if stops else []

    def generate() -> list[list[int]]:
        uniform = draws([0], ROWS, TOKENS)
        return sample(model, repeated, SamplingSettings(TOKENS), stop, tokenizer.pad_token_id, uniform)

    def before() -> list[list[int]]:
        dynamic = patch.object(sampler, "growing_cache", lambda config: DynamicCache(config=config))
        with dynamic, patch.object(sampler, "step_of", DecodeStep):
            return generate()

    return {"before": before, "ours": generate}


def few_shot_arms() -> dict[str, Generation]:
    """The first token after prompts with the same examples, at SmolLM2-135M's width."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(smollm2_shape(BLOCKS)).eval()
    common = torch.randint(2, 49152, (FEW_SHOT["common"],)).tolist()
    own = torch.randint(2, 49152, (FEW_SHOT["prompts"], FEW_SHOT["own"])).tolist()

    def generate(shares: bool) -> list[list[int]]:
        settings = SamplingSettings(1, temperature=0.0, shares_beginnings=shares)
        return sample(model, [common + ids for ids in own], settings, [], 0)

    return {"before": lambda: generate(False), "ours": lambda: generate(True)}


def compared(what: str, at_most: float, arms: Mapping[str, Generation], rounds: int) -> dict[str, Any]:
    """Microseconds of CPU a token of every arm, and the ratio of ours; both write the same tokens."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    written = {name: generate() for name, generate in arms.items()}  # the first time counts for none
    assert all(tokens == written["before"] for tokens in written.values()), "the arms write other tokens"
    tokens = sum(map(len, written["before"]))
    for _ in range(rounds):
        for name, generate in arms.items():
            started = time.process_time()
            generate()
            seconds[name].append(time.process_time() - started)
    ratios = [one / other for one, other in zip(seconds["ours"], seconds["before"], strict=True)]
    return {
        "what": what, "against": "the sampler before", "at_most": at_most,
        "ratio": median(ratios), "ratios_by_round": ratios, "tokens": tokens,
        "microseconds_a_token": {name: 1e6 * median(taken) / tokens for name, taken in seconds.items()},
        "load": os.getloadavg()[0],
    }  # fmt: skip


def main() -> None:
    """Measure everything and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "sampling.json")
    arguments = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    rows = [
        compared("nano, generation, 128 rows of 44 tokens", 0.70, nano_arms(stops=False), arguments.rounds),
        compared("nano, generation, 128 rows, finished ones leave", 0.70, nano_arms(stops=True), arguments.rounds),
        compared(
            "4 few-shot prompts, 150 of 190 tokens shared, to the first token", 0.50, few_shot_arms(), arguments.rounds
        ),
    ]
    for row in rows:
        print(f"{row['what']}: {row['ratio']:.3f} (at most {row['at_most']}), load {row['load']:.1f}")
    write_result(arguments.output, __doc__ or "", {"figures": rows})


if __name__ == "__main__":
    main()
