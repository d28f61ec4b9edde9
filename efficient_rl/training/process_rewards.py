"""Process supervision: rewards of a completion's steps become advantages of its tokens (DeepSeekMath, arXiv:2402.03300)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from efficient_rl.rewards.process import step_advantages, token_ends


class ProcessRewards:
    """The reward functions that judge steps, with their weights; the trainer's sum of whole rewards leaves them out.

    Such a function has `steps(completion, check, gold, place)`: the ends of the steps in
    characters, and their rewards. `whole` and `earned`, shape (rows,), are what all processes'
    completions of the last batch earned without and with these functions.
    """

    whole: torch.Tensor
    earned: torch.Tensor

    def __init__(self, functions: Sequence[Any], weights: torch.Tensor, tokenizer: PreTrainedTokenizerBase) -> None:
        found = [index for index, function in enumerate(functions) if hasattr(function, "steps")]
        self._functions = [(functions[index], float(weights[index])) for index in found]
        self._tokenizer = tokenizer
        self._all_weights, self._weights = weights.clone(), weights
        weights[found] = 0.0

    def __bool__(self) -> bool:
        return bool(self._functions)

    def token_advantages(
        self, rows: Sequence[Mapping[str, Any]], completions: Sequence[str], ids: Sequence[Sequence[int]], size: int
    ) -> list[list[float]]:
        """Advantages of every token of every completion; `size` consecutive rows are a group."""
        totals = [[0.0] * len(each) for each in ids]
        pieces = [self._tokenizer.batch_decode([[token] for token in each]) for each in ids]
        for function, weight in self._functions:
            steps = [
                function.steps(text, row["check"], json.loads(row["gold"]), row.get("place"))
                for text, row in zip(completions, rows, strict=True)
            ]
            for start in range(0, len(ids), size):
                group = range(start, start + size)
                ends = [token_ends([end for end, _ in steps[row]], pieces[row], completions[row]) for row in group]
                rewards = [[reward for _, reward in steps[row]] for row in group]
                found = step_advantages(ends, rewards, [len(ids[row]) for row in group])
                for row, values in zip(group, found, strict=True):
                    totals[row] = [total + weight * value for total, value in zip(totals[row], values, strict=True)]
        return totals

    def see(self, rewards: torch.Tensor) -> None:
        """Note the rewards of all processes, shape (rows, functions)."""
        self.whole = (rewards * self._weights.to(rewards.device)).nansum(1)
        earned = (rewards * self._all_weights.to(rewards.device)).nansum(1)
        self.earned = earned.masked_fill(rewards.isnan().all(1), torch.nan)  # no verdict is no failure


def added_to(advantages: torch.Tensor, by_token: Sequence[Sequence[float]], width: int) -> torch.Tensor:
    """Advantages of whole completions, shape (rows,), plus those of their tokens: (rows, width)."""
    padded = [[*values, *[0.0] * (width - len(values))] for values in by_token]
    return advantages[:, None] + torch.tensor(padded, device=advantages.device, dtype=advantages.dtype)
