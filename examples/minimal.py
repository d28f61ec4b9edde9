"""Train the last two blocks of a small language model with GRPO; print its accuracy.

    python examples/minimal.py
    python examples/minimal.py strategy=lora lora.rank=4 grpo.max_steps=80

The model plays Countdown: make 24 from 3, 5 and 9. It samples several answers to every problem, and
GRPO makes the right ones likelier. Takes half a minute without a GPU. The result is in ./outputs;
the same command reads it again.
"""

import sys

from efficient_rl.run import train

DEFAULTS = (
    "model=nano",  # a Qwen2 of 0.3 million parameters that comes with the package
    "strategy=last_k",  # which parameters train: those of the last 2 of 6 blocks; others: full, first_k, lora
    "grpo.max_steps=30",
)


def main(overrides: list[str]) -> None:
    """Do the run of the overrides that `python -m efficient_rl.sweep --help` lists."""
    chosen = {text.split("=")[0]: text for text in (*DEFAULTS, *overrides)}.values()  # the last of a key counts
    print("training with", *chosen, flush=True)
    result = train(*chosen)
    print(
        f"accuracy {result.accuracy_before:.1%} -> {result.accuracy:.1%}, "
        f"trained {result.trainable_params:,} of {result.total_params:,} parameters"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
