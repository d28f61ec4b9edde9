"""Measures accuracy on held-out problems: avg@k at the training temperature, pass@k, and greedy beside them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

from efficient_rl.rewards.verify import is_correct
from efficient_rl.tasks.problem import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from efficient_rl.training.sampler import SamplingSettings

ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Evaluation:
    """`accuracy` is pass@1 estimated as avg@k; `standard_error` is that over problems, for this one model."""

    accuracy: float
    greedy_accuracy: float
    pass_at_k: float
    standard_error: float
    by_difficulty: dict[str, float]
    problems: int
    samples: int
    tokens: int


def evaluate(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    problems: Sequence[Problem],
    prompts: Sequence[list[int]],
    stop_ids: Sequence[int],
    sampling: "SamplingSettings",
    samples: int,
    between: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Score `samples` completions and a greedy one for every problem; `prompts` are their token ids.

    The random draws are the same in every call. `between` is called after each batch, to stop early by raising.
    """
    from dataclasses import replace

    greedy = _scores(model, tokenizer, problems, prompts, stop_ids, replace(sampling, temperature=0.0), 1, between)
    drawn = _scores(model, tokenizer, problems, prompts, stop_ids, sampling, samples, between)
    shares = [sum(scores) / samples for scores, _ in drawn]
    mean = sum(shares) / len(shares)
    spread = sum((share - mean) ** 2 for share in shares) / max(1, len(shares) - 1)
    levels: dict[str, list[float]] = {}
    for problem, share in zip(problems, shares, strict=True):
        levels.setdefault(f"{problem.difficulty:g}", []).append(share)
    return Evaluation(
        accuracy=mean,
        greedy_accuracy=sum(scores[0] for scores, _ in greedy) / len(greedy),
        pass_at_k=sum(any(scores) for scores, _ in drawn) / len(drawn),
        standard_error=sqrt(spread / len(shares)),
        by_difficulty={level: sum(of) / len(of) for level, of in sorted(levels.items())},
        problems=len(problems),
        samples=samples,
        tokens=sum(tokens for _, tokens in (*greedy, *drawn)),
    )


def _scores(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    problems: Sequence[Problem],
    prompts: Sequence[list[int]],
    stop_ids: Sequence[int],
    sampling: "SamplingSettings",
    samples: int,
    between: Callable[[], None],
) -> list[tuple[list[bool], int]]:
    """For every problem whether each of its completions is right, and how many tokens they have together."""
    import torch

    from efficient_rl.training.sampler import sample

    generator = torch.Generator(model.device).manual_seed(0)
    width = max(1, ROWS_AT_ONCE // samples)
    results = []
    for start in range(0, len(problems), width):
        batch = [ids for ids in prompts[start : start + width] for _ in range(samples)]
        completions = sample(model, batch, sampling, stop_ids, tokenizer.pad_token_id, generator)
        texts = tokenizer.batch_decode(completions, skip_special_tokens=True)
        for index, problem in enumerate(problems[start : start + width]):
            own = slice(index * samples, (index + 1) * samples)
            right = [is_correct(text, problem.check, problem.gold) for text in texts[own]]
            results.append((right, sum(len(ids) for ids in completions[own])))
        between()
    return results
