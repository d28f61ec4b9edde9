"""One training step, ours against stock TRL: same process, model, tokens and seed; and every strategy against full training.

Seconds are of this process's CPU. A ratio is the median over rounds of the ratio of both trainers' median steps in a round.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel, Qwen2Config

from benchmarks.machine import write_result
from benchmarks.steps import Case, compare, nano_case, nano_tokenizer, ours, random_case, stock
from efficient_rl.config.compose import expand
from efficient_rl.config.options import group_options
from efficient_rl.config.run_config import parse_run
from efficient_rl.libraries import quiet_libraries
from efficient_rl.strategies.adapters import Lora
from efficient_rl.strategies.blocks import find_blocks
from efficient_rl.strategies.protocol import Strategy
from efficient_rl.strategies.static import Full, LastK
from efficient_rl.training.grpo import Optimizations
from efficient_rl.training.memory import PhaseMeter
from efficient_rl.training.sampler import DROP_SHARE, SamplingSettings, draws, sample
from efficient_rl.training.scoring import length_buckets

BLOCKS, TRAINED = 12, 3
DYNAMIC = ("adalora", "auto_rgn", "auto_snr", "autofreeze", "badam", "lisa", "slimfit")
PAPERS = {
    "slimfit": "SlimFit (arXiv:2305.18513): 2.2 times less memory on average",
    "autofreeze": "AutoFreeze (arXiv:2102.01386): up to 2.55 times less time",
    "lora": "PE-RLHF (arXiv:2403.10704): 27% less memory and 30% less time; LoRA Without Regret: 2/3 of the compute",
}
PAPER_STEPS = 40


def deep_case(**settings: Any) -> Case:
    """12 blocks of width 256 with gradient checkpointing, 16 completions of 16 + 32 tokens."""
    config = Qwen2Config(
        vocab_size=len(nano_tokenizer()), hidden_size=256, intermediate_size=1024, num_hidden_layers=BLOCKS,
        num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=False,
    )  # fmt: skip
    return random_case(config, 16, 16, 32, torch.float32, bf16=False, **({"gradient_checkpointing": True} | settings))


def last_blocks(count: int) -> Callable[[PreTrainedModel], PreTrainedModel]:
    """Freezes all but the last blocks, as one does for TRL."""

    def freeze(model: PreTrainedModel) -> PreTrainedModel:
        model.requires_grad_(False)
        for block in find_blocks(model)[-count:]:
            block.requires_grad_(True)
        return model

    return freeze


def with_lora(model: PreTrainedModel) -> PreTrainedModel:
    """LoRA of rank 8 on all linear modules, as one does for TRL."""
    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))


def figures(steps: int, rounds: int) -> list[dict[str, Any]]:
    """Every figure: what, against what, the bound asked for, the ratio measured, and the count of work behind it."""
    nano = nano_case(128, bf16=False, gradient_checkpointing=False)
    deep = deep_case()

    def run(makers: Mapping[str, Callable[[int], Any]]) -> dict[str, dict[str, list[float]]]:
        return compare(makers, steps, rounds)

    def full(model: PreTrainedModel) -> PreTrainedModel:
        return model

    on_nano = run(
        {
            "defaults": lambda n: stock(nano, full, n, bf16=True, gradient_checkpointing=True),
            "tuned": lambda n: stock(nano, full, n),
            "ours": lambda n: ours(nano, Full(), n),
        }
    )
    last = {
        count: run(
            {"trl": lambda n, k=count: stock(deep, last_blocks(k), n), "ours": lambda n, k=count: ours(deep, LastK(k), n)}
        )
        for count in (TRAINED, 1)
    }
    with_kl = run(
        {
            "trl": lambda n: stock(deep, last_blocks(TRAINED), n, beta=0.04),
            "ours": lambda n: ours(deep, LastK(TRAINED), n, beta=0.04),
        }
    )
    without_cache = Optimizations(trunk_cache_bytes=0)
    cached = run(
        {
            "without cache": lambda n: ours(
                deep, LastK(TRAINED), n, beta=0.04, num_iterations=4, optimizations=without_cache
            ),
            "ours": lambda n: ours(deep, LastK(TRAINED), n, beta=0.04, num_iterations=4),
        }
    )
    lora = run({"trl": lambda n: stock(deep, with_lora, n), "ours": lambda n: ours(deep, Lora(rank=8, alpha=16), n)})

    def row(
        what: str, against: str, bound: float, timed: Mapping[str, Any], other: str, part: str, count: str
    ) -> dict[str, Any]:
        mine, theirs = timed["ours"][part], timed[other][part]
        ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
        return {
            "what": what,
            "against": against,
            "at_most": bound,
            "ratio": median(ratios),
            "ratios_by_round": ratios,
            "ours_seconds": median(mine),
            "other_seconds": median(theirs),
            "count": count,
        }

    same = "TRL, same settings"
    return [
        row("nano, full, step", "TRL's defaults", 0.45, on_nano, "defaults", "step", ""),
        row("nano, full, step", "TRL tuned by hand", 0.70, on_nano, "tuned", "step", token_units(nano)),
        row("last 3 of 12 blocks, backward", same, 0.40, last[TRAINED], "trl", "backward", backward_units(TRAINED)),
        row("last of 12 blocks, backward", same, 0.20, last[1], "trl", "backward", backward_units(1)),
        row("last 3 of 12, beta 0.04, after generation", same, 0.50, with_kl, "trl", "after generation", after_units(1)),
        row("last 3 of 12, beta 0.04, whole step", same, 0.65, with_kl, "trl", "step", ""),
        reference_row(deep),
        row("last 3 of 12, beta 0.04, 4 updates a generation, after generation", "ours without the trunk cache", 0.60,
            cached, "without cache", "after generation", after_units(4)),
        row("LoRA r8, step", same, 0.85, lora, "trl", "step", lora_units()),
    ]  # fmt: skip


def token_units(case: Case) -> str:
    """What dropping finished rows and padding saves on real completions: row steps of generation, tokens of the passes."""
    model, tokenizer, group, batches = case.model(), nano_tokenizer(), 8, 8
    most = case.settings["max_completion_length"]
    steps = {"ours": 0, "trl": 0}
    tokens = {"ours": 0, "trl": 0}
    for batch in range(batches):
        prompts = [tokenizer(row["prompt"])["input_ids"] for row in case.rows[16 * batch : 16 * (batch + 1)]]
        repeated = [ids for ids in prompts for _ in range(group)]
        uniform = draws([batch], len(repeated), most)
        stop, pad = [tokenizer.eos_token_id], tokenizer.pad_token_id
        lengths = [len(ids) for ids in sample(model, repeated, SamplingSettings(most), stop, pad, uniform)]
        rows, prompt = len(lengths), max(map(len, prompts))
        kept = rows
        for done in range(1, max(lengths)):
            alive = sum(length > done for length in lengths)
            kept = alive if alive <= DROP_SHARE * kept else kept
            steps["ours"] += kept
        steps["trl"] += rows * (max(lengths) - 1)
        buckets = length_buckets(lengths, None)
        tokens["ours"] += sum(len(bucket) * (prompt + max(lengths[row] for row in bucket)) for bucket in buckets)
        tokens["trl"] += rows * (prompt + max(lengths))
    generated, passed = (count["ours"] / count["trl"] for count in (steps, tokens))
    return f"{generated:.2f} of the row steps of generation, {passed:.2f} of the tokens of the passes"


def lora_units() -> str:
    """Merged adapters save their own products while sampling; after generation the work is the same."""
    width, inner, rank = 256, 1024, 8
    shapes = [(width, width)] * 4 + [(width, inner)] * 2 + [(inner, width)]
    base = sum(rows * columns for rows, columns in shapes)
    adapters = sum(rank * (rows + columns) for rows, columns in shapes)
    return f"generation {base / (base + adapters):.2f} of the multiplications in a third of the products, then the same"


def backward_units(trained: int) -> str:
    """Backward pass in units of one block's forward pass: recomputation 1, gradients of input and of weights 1 each."""
    theirs, mine = BLOCKS + BLOCKS + trained, 3 * trained
    return f"{mine} of {theirs} block units: {mine / theirs:.2f}"


def after_units(updates: int) -> str:
    """Work after generation: old-policy pass (only with several updates), reference pass, and the updates."""
    old, mine_old = (BLOCKS, TRAINED) if updates > 1 else (0, 0)
    frozen = BLOCKS - TRAINED
    theirs = old + BLOCKS + updates * (BLOCKS + 3 * TRAINED if updates > 1 else 3 * BLOCKS + TRAINED)
    mine = frozen + mine_old + TRAINED + updates * (TRAINED + 3 * TRAINED)
    return f"{mine} of {theirs} block units: {mine / theirs:.2f}"


def reference_row(case: Case) -> dict[str, Any]:
    """Bytes of our reference against TRL's second model; the bound is the share that trains, and 1%."""
    theirs = stock(case, last_blocks(TRAINED), 1, beta=0.04)
    mine = ours(case, LastK(TRAINED), 1, beta=0.04)
    second = sum(p.nbytes for p in theirs.ref_model.parameters())
    share = mine.parameters.trainable_count / sum(p.numel() for p in mine.model.parameters())
    return {"what": "last 3 of 12, bytes for the reference", "against": "TRL's second model", "at_most": share * 1.01,
            "ratio": mine.reference_bytes / second, "ours_bytes": mine.reference_bytes, "other_bytes": second,
            "count": f"{share:.4f} of the numbers train"}  # fmt: skip


def build(option: str, *overrides: str) -> Strategy:
    """A strategy of conf/ by its option."""
    strategy: Strategy = parse_run(expand([f"strategy={option}", *overrides])[0]).strategy.build()
    return strategy


def bookkeeping(steps: int) -> dict[str, float]:
    """For every dynamic strategy on nano, the share of a step that choosing, observing and freeing takes."""
    nano = nano_case(128, bf16=False, gradient_checkpointing=False)
    shares = {}
    for option in DYNAMIC:
        trainer = ours(nano, build(option), steps)
        trainer.start_clock()
        spent: list[float] = []
        for name in ("begin_step", "finish_gradients", "before_update", "after_update"):
            setattr(trainer.parameters, name, _clocked(getattr(trainer.parameters, name), spent))
        trainer.train()
        shares[option] = sum(spent) / sum(trainer.seconds["step"])
    return shares


def _clocked(function: Callable[..., None], spent: list[float]) -> Callable[..., None]:
    def call(*arguments: Any) -> None:
        started = time.process_time()
        function(*arguments)
        spent.append(time.process_time() - started)

    return call


def every_strategy(steps: int) -> dict[str, dict[str, Any]]:
    """For every option of conf/strategy, on 12 blocks: numbers trained, bytes by part and phase, seconds by phase."""
    case = deep_case(gradient_checkpointing=False)
    return {
        option: _measured(case, option, steps) for option in ["full", *sorted(set(group_options()["strategy"]) - {"full"})]
    }


def _measured(case: Case, option: str, steps: int, *overrides: str) -> dict[str, Any]:
    meter = PhaseMeter()
    try:
        trainer = ours(case, build(option, *overrides), steps, meter=meter)
    except ValueError as error:
        return {"refused": str(error)}
    trainer.start_clock()
    found: dict[str, int] = {}
    seconds: list[dict[str, float]] = []
    active: list[int] = []
    end = trainer.end

    def step_ends() -> None:
        end()
        for name, size in meter.take_bytes().items():
            found[name] = max(found.get(name, 0), size)
        seconds.append(meter.take_seconds())
        active.append(trainer.parameters.active_count)

    trainer.end = step_ends  # type: ignore[method-assign]
    trainer.train()
    kept = seconds[2:]  # the first two count bytes too
    peaks = {name: size for name, size in found.items() if name.endswith("_peak")}
    return {
        "trained": trainer.parameters.trainable_count,
        "mean_active": sum(active) / len(active),
        "bytes": found,
        "peak_bytes": max(peaks.values()),
        "seconds": {name: median(each.get(name, 0.0) for each in kept) for name in kept[0]},
        "step_seconds": median(trainer.seconds["step"][2:]),
        "all_steps_seconds": sum(trainer.seconds["step"][2:]),
    }


def promises() -> dict[str, dict[str, Any]]:
    """What a paper promised beside what one run of 40 steps measured here, against full training of the same length."""
    case = deep_case(gradient_checkpointing=False)
    measured = {option: _measured(case, option, PAPER_STEPS) for option in ("full", *PAPERS)}
    full = measured["full"]
    return {
        option: {
            "promised": text,
            "peak_memory_of_full": measured[option]["peak_bytes"] / full["peak_bytes"],
            "time_of_full": measured[option]["all_steps_seconds"] / full["all_steps_seconds"],
        }
        for option, text in PAPERS.items()
    }


@contextmanager
def _said(what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - started:.0f} s", flush=True)


def main() -> None:
    """Measure everything and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "training.json")
    parser.add_argument("--figures-only", action="store_true", help="keep the rest of the result file")
    arguments = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    measured: dict[str, Any] = {}
    with _said("figures"):
        measured["figures"] = figures(arguments.steps, arguments.rounds)
    if arguments.figures_only:
        before = json.loads(arguments.output.read_text())
        measured = {name: before[name] for name in ("bookkeeping_share", "strategies", "promises")} | measured
        write_result(arguments.output, __doc__ or "", measured)
        return
    with _said("bookkeeping"):
        measured["bookkeeping_share"] = bookkeeping(8 * arguments.steps)
    with _said("every strategy"):
        measured["strategies"] = every_strategy(2 + arguments.steps)
    with _said("promises"):
        measured["promises"] = promises()
    write_result(arguments.output, __doc__ or "", measured)
    for row in measured["figures"]:
        print(f"{row['what']} / {row['against']}: {row['ratio']:.3f} (at most {row['at_most']:.3f}) {row['count']}")


if __name__ == "__main__":
    main()
