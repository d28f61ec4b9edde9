"""One training step at Qwen2.5-0.5B's shape on a GPU, by strategy: ours, stock TRL's, and what the card could do.

Needs no network: the weights are random, from the model's configuration. bfloat16, 256 prompt and 512 completion tokens.
"""

import argparse
import re
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import PreTrainedModel, Qwen2Config

from benchmarks.machine import write_result
from benchmarks.steps import Case, Ours, Stock, ours, random_case, stock
from benchmarks.training import build, last_blocks, with_lora
from efficient_rl.libraries import quiet_libraries
from efficient_rl.training.memory import PhaseMeter

QWEN_05B = {
    "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4_864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 32_768, "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
}  # fmt: skip
TINY = {**QWEN_05B, "vocab_size": 200, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 2, "num_key_value_heads": 1}  # fmt: skip
STRATEGIES = (
    "full",
    "first_k",
    "last_k",
    "elsa",
    "lora",
    "lora_last",
    "dora",
    "bitfit",
    "lisa",
    "badam",
    "slimfit",
    "autofreeze",
)
EXACT = {"beta": 0.04, "logging_strategy": "steps", "logging_steps": 1, "optim": "sgd", "lr_scheduler_type": "constant"}
BY_HAND: dict[str, Callable[[PreTrainedModel], PreTrainedModel]] = {
    "full": lambda model: model, "last_k": last_blocks(2), "lora": with_lora
}  # fmt: skip


def card_limits() -> dict[str, float]:
    """What the card reaches: bytes a second of a large copy, operations a second of a large bfloat16 product."""
    source = torch.empty(1 << 29, dtype=torch.bfloat16, device="cuda")
    target = torch.empty_like(source)
    a = torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda")
    copied = _seconds(lambda: target.copy_(source))
    multiplied = _seconds(lambda: torch.mm(a, a))
    return {"bytes_a_second": 2 * source.nbytes / copied, "flops": 2 * 8192**3 / multiplied}


def _seconds(work: Callable[[], Any]) -> float:
    taken = []
    for _ in range(10):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return median(taken[2:])


def measure(trainer: Ours | Stock, case: Case, tokens: int) -> dict[str, float]:
    """Median seconds of a step and its parts, tokens a second, and the allocator's peak of generation and of the rest."""
    trainer.start_clock()
    use_gpu = torch.cuda.is_available()
    if use_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    found = {f"{name}_seconds": median(values[1:]) for name, values in trainer.seconds.items()}
    found["tokens_a_second"] = case.settings["per_device_train_batch_size"] * tokens / found["step_seconds"]
    found["peak_bytes"] = float(torch.cuda.max_memory_allocated()) if use_gpu else 0.0
    return found


def limits_share(
    found: dict[str, float], limits: dict[str, float], model_bytes: int, rows: int, tokens: int
) -> dict[str, float]:
    """How close the step comes to the card: generation to reading all weights a token, the rest to 6 operations a weight."""
    parameters = model_bytes / 2
    read = model_bytes * tokens / limits["bytes_a_second"]
    computed = 6 * parameters * rows * tokens / limits["flops"]
    return {
        "generation_of_bandwidth": read / found["generation_seconds"],
        "rest_of_flops": computed / found["after generation_seconds"],
    }


def equality(case: Case) -> dict[str, dict[str, float]]:
    """How far our first update is from TRL's on the same completions: loss, gradient's norm, and weights by their change."""
    found = {}
    for option, freeze in BY_HAND.items():
        trained: dict[str, Any] = {}
        mine, theirs = ours(case, build(option), 1, **EXACT), stock(case, freeze, 1, **EXACT)
        theirs.model.load_state_dict(mine.model.state_dict(), strict=False)  # TRL adds a reference adapter
        for name, trainer in (("ours", mine), ("trl", theirs)):
            before = _trained(trainer)
            trainer._generate_single_turn = _same_completions
            trainer.train()
            trained[name] = (trainer.state.log_history[0], before, _trained(trainer))
        (logged, _, ended), (wanted, before, expected) = trained["ours"], trained["trl"]
        found[option] = {
            "loss": abs(logged["loss"] - wanted["loss"]),
            "gradient_norm": abs(logged["grad_norm"] / wanted["grad_norm"] - 1),
            "weights": float((ended - expected).norm() / (expected - before).norm()),
        }
    return found


def _same_completions(prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
    return [[5 + row % 7, 6 + row % 5, 7, 8 + row % 3] for row in range(len(prompt_ids))], None


def _trained(trainer: Ours | Stock) -> torch.Tensor:
    """All weights that train, in a row."""
    weights = sorted((n, p) for n, p in trainer.model.named_parameters() if p.requires_grad)
    return torch.cat([weight.detach().float().flatten().cpu() for _, weight in weights])


def main() -> None:
    """Measure on the GPU that is there; `--tiny` runs the same on a CPU with a small model, to see that it works."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    parser.add_argument("--minutes", type=float, default=8.0, help="begin no strategy after this time")
    parser.add_argument(
        "--checkpointing", action="store_true", help="gradient checkpointing, under which prompts are not shared"
    )
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if not torch.cuda.is_available() and not arguments.tiny:
        raise SystemExit("error: no GPU here; --tiny runs a small model on the CPU, to see that the benchmark works")
    quiet_libraries()
    prompt, completion = (8, 8) if arguments.tiny else (256, 512)
    rows = 8 if arguments.tiny else arguments.rows
    case = random_case(
        Qwen2Config(**(TINY if arguments.tiny else QWEN_05B)), rows, prompt, completion, torch.bfloat16,
        bf16=True, gradient_checkpointing=arguments.checkpointing, beta=0.04, learning_rate=1e-3,
    )  # fmt: skip
    small = random_case(
        Qwen2Config(**TINY), 8, 24, 4, torch.float32, 16, bf16=False, gradient_checkpointing=False, learning_rate=1e-3
    )
    exact = equality(small)
    print("difference from TRL's first update", exact, flush=True)
    model_bytes = sum(p.nbytes for p in case.model().parameters())
    limits = {} if arguments.tiny else card_limits()
    results: dict[str, Any] = {}
    started, left_out = time.monotonic(), []
    for option in arguments.strategies:
        if time.monotonic() - started > 60 * arguments.minutes:
            left_out.append(option)
            continue
        own = measure(
            ours(case, build(option), arguments.steps, meter=PhaseMeter(count_bytes=False)), case, prompt + completion
        )
        results[option] = {"ours": own}
        if limits:
            results[option]["of_the_card"] = limits_share(own, limits, model_bytes, rows, completion)
        if option in BY_HAND:
            theirs = measure(stock(case, BY_HAND[option], arguments.steps), case, prompt + completion)
            results[option] |= {"trl": theirs, "step_ratio": own["step_seconds"] / theirs["step_seconds"]}
        print(option, results[option], flush=True)
    card = "cpu" if arguments.tiny else torch.cuda.get_device_name()
    name = re.sub(r"[^a-z0-9]+", "_", card.lower())
    output = arguments.output or Path(__file__).parent / "results" / f"training_{name}.json"
    measured = {"card": card, "limits": limits, "rows": rows, "checkpointing": arguments.checkpointing}
    measured |= {"difference_of_first_update": exact, "strategies": results, "left_out": left_out}
    write_result(output, __doc__ or "", measured)


if __name__ == "__main__":
    main()
