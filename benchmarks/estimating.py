"""Compares what a dry run estimates with what runs take: ten runs of two models, one after another in one folder.

python -m benchmarks.estimating
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import write_result
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.sweep.estimate import estimate, known_runs
from efficient_rl.sweep.request import read_request

SMALL = ("grpo.max_steps=4", "eval.problems=64", "eval.samples=2", "grpo.train_problems=512")
LLAMA = ("model.path=llama", "grpo.beta=0.02", "grpo.per_device_train_batch_size=32")  # random: only a KL term moves it
CASES = (
    ("strategy=full",),
    ("strategy=last_k",),
    ("strategy=lora", "grpo.max_steps=8"),
    ("strategy=full", "grpo.gradient_checkpointing=true", "grpo.beta=0.04"),
    ("strategy=norms_only", "grpo.per_device_train_batch_size=64", "grpo.gradient_accumulation_steps=2"),
    (*LLAMA, "strategy=full"),
    (*LLAMA, "strategy=last_k", "grpo.num_iterations=2"),
    (*LLAMA, "strategy=galore", "grpo.per_device_train_batch_size=16"),
    (*LLAMA, "strategy=badam", "grpo.max_completion_length=32"),
    (*LLAMA, "strategy=lora", "grpo.max_steps=2"),
)


def make_llama(folder: Path) -> None:
    """A Llama of 7.7 million random parameters with the embedded model's tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    from efficient_rl.config.options import load_option
    from efficient_rl.config.schema import local_folder

    tokenizer = AutoTokenizer.from_pretrained(str(local_folder(load_option("model", "nano")["path"])))
    torch.manual_seed(0)
    sizes = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 8, "num_attention_heads": 8}
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    config = LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=4096, tie_word_embeddings=False, **ids)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure(cases: Sequence[Sequence[str]], folder: Path) -> Iterator[dict[str, Any]]:
    """Each case before and after its run."""
    for case in cases:
        placed = [text.replace("=llama", f"={folder / 'llama'}") for text in case]
        keys = {text.partition("=")[0] for text in case}
        given = [text for text in SMALL if text.partition("=")[0] not in keys]
        overrides = [*given, *placed, f"output={folder / 'outputs'}", "tracking.uri=none", "launcher.workers=1"]
        request = read_request(overrides, multirun=False)
        (run,) = request.runs
        guess = estimate(run, known_runs(request, [run.model.path]))
        subprocess.run([sys.executable, "-m", "efficient_rl.sweep", *overrides], check=True, stdout=subprocess.DEVNULL)
        result = RunDirectory(request.folder(run)).result()
        assert result is not None
        yield {
            "run": " ".join(case),
            "peak_bytes": result.highest_peak_bytes,
            "estimated_bytes": guess.peak_bytes,
            "bytes_from": guess.bytes_from,
            "seconds": result.total_seconds,
            "estimated_seconds": guess.seconds,
            "seconds_from": guess.seconds_from,
        }


def table(rows: Sequence[dict[str, Any]]) -> Table:
    shown = Table(title="estimated / measured", title_justify="left")
    for column in ("run", "MiB", "seconds"):
        shown.add_column(column, justify="left" if column == "run" else "right")
    for row in rows:
        memory, seconds = "unknown", "unknown"
        if row["estimated_bytes"] is not None:
            memory = f"{row['estimated_bytes'] / 2**20:.0f} / {row['peak_bytes'] / 2**20:.0f}"
        if row["estimated_seconds"] is not None:
            seconds = f"{row['estimated_seconds']:.0f} / {row['seconds']:.0f}"
        shown.add_row(row["run"], memory, seconds)
    return shown


def main() -> None:
    """Measure, write the JSON, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "estimating.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_llama(folder / "llama")
        rows = list(measure(CASES, folder))
    write_result(arguments.output, str(__doc__), {"runs": rows})
    Console().print(table(rows))


if __name__ == "__main__":
    main()
