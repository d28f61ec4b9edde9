"""Makes the embedded model from a seed: `python -m efficient_rl.nano.make` (`make nano`).

Takes about an hour on one core.

Nano is a small Qwen2 with a character vocabulary, taught by supervised training on generated
problems in a mixture of behaviours. Only some of them are worth a reward, so that GRPO has
something to choose from; all problems come from the training side of the split.
"""

import argparse
import hashlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from tokenizers import AddedToken
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from efficient_rl.tasks.arithmetic import Arithmetic
from efficient_rl.tasks.countdown import Countdown
from efficient_rl.tasks.problem import Problem, Task

CONTROL = ["<pad>", "<eos>", "<unk>"]
TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
CHARACTERS = "0123456789+-*/()=,;:?. \nx<>%^"
BYTE_LEVEL: dict[str, str | int | None] = {" ": "Ġ", "\n": "Ċ"}  # how byte-level tokenizers write them
FOLDER = Path(__file__).parent / "model"
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
}
POOLS: dict[float, tuple[Task, int]] = {  # how often each source is drawn, and from how many problems
    0.10: (Countdown(operands=(2,)), 400),
    0.45: (Countdown(operands=(3,)), 12_000),
    0.20: (Countdown(operands=(4,)), 40_000),
    0.25: (Arithmetic(digits=(1, 2)), 10_000),
}


def make_tokenizer() -> Qwen2Tokenizer:
    """One token a character and the four tags, in Qwen2's own tokenizer class without merges."""
    letters = CHARACTERS.translate(str.maketrans(BYTE_LEVEL))
    tokens = [*CONTROL, *TAGS, *letters]
    tokenizer = Qwen2Tokenizer(
        vocab=dict(zip(tokens, range(len(tokens)), strict=True)),
        merges=[],
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=SHAPE["max_position_embeddings"],
    )
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])  # not special: decoding keeps them
    return tokenizer


def behave(problem: Problem, random: Random) -> str:
    """A completion in one of the behaviours: 30% right and in format, the rest lack something."""
    think = f"<think>{';'.join(problem.steps)}</think>"
    answer = f"<answer>{problem.solution}</answer>"
    choice = random.random()
    if choice < 0.30:
        return think + answer
    if choice < 0.50:
        return answer
    if choice < 0.70:
        return think + problem.solution
    if choice < 0.85:
        return _corrupt(think, random) + _corrupt(answer, random)
    return _corrupt(problem.solution, random)


def _corrupt(text: str, random: Random) -> str:
    """The text with one to three of its digits replaced."""
    places = [index for index, character in enumerate(text) if character.isdigit()]
    characters = list(text)
    for index in random.sample(places, min(len(places), random.randint(1, 3))):
        characters[index] = random.choice("0123456789")
    return "".join(characters)


def batch(
    pools: Sequence[Sequence[Problem]], tokenizer: Qwen2Tokenizer, random: Random, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels, shape (size, longest), right-padded; completions alone have labels."""
    rows = []
    for pool in random.choices(pools, weights=list(POOLS), k=size):
        problem = random.choice(pool)
        prompt = tokenizer.encode(problem.symbols)
        completion = [*tokenizer.encode(behave(problem, random)), tokenizer.eos_token_id]
        rows.append((prompt + completion, [-100] * len(prompt) + completion))
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [tokenizer.pad_token_id] * (longest - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in rows])
    return ids, labels


def train(steps: int, seed: int, size: int = 128, peak: float = 3e-3) -> tuple[Qwen2ForCausalLM, Qwen2Tokenizer]:
    """The trained model; the rate warms up for 100 steps and falls to a tenth by a cosine."""
    torch.manual_seed(seed)
    random = Random(seed)
    tokenizer = make_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        tie_word_embeddings=True,
        use_cache=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **SHAPE,
    )
    model = Qwen2ForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 100, 0.55 + 0.45 * math.cos(math.pi * step / steps))
    )
    pools = [task.problems("train", count, seed) for task, count in POOLS.values()]
    started = time.monotonic()
    for step in range(1, steps + 1):
        ids, labels = batch(pools, tokenizer, random, size)
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}/{steps} loss {loss.item():.4f} {time.monotonic() - started:.0f} s", flush=True)
    return model, tokenizer


def save(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, folder: Path, recipe: dict[str, int]) -> None:
    """Write model and tokenizer, and `recipe.json` with the digest of every file."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    digests = {path.name: digest(path) for path in sorted(folder.iterdir()) if path.name != "recipe.json"}
    (folder / "recipe.json").write_text(json.dumps({**recipe, "sha256": digests}, indent=1) + "\n")


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = train(arguments.steps, arguments.seed)
    save(model, tokenizer, arguments.output, {"steps": arguments.steps, "seed": arguments.seed})


if __name__ == "__main__":
    main()
