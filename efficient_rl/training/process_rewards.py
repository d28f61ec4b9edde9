"""Process supervision (DeepSeekMath, arXiv:2402.03300): step rewards become token advantages."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from efficient_rl.rewards.columns import text_of
from efficient_rl.rewards.process import step_advantages, token_ends


class ProcessRewards:
    """Reward functions of steps, with their weights; the sum of whole rewards excludes them.

    Such a function has `steps(completion, check, gold, place)`, with `prefill` where the prompt
    wrote the completion's beginning: the ends of the steps in characters, and their rewards.
    `whole` and `earned`, shape (rows,), are what all processes' completions of the last batch
    earned without and with these functions.
    """

    whole: torch.Tensor
    earned: torch.Tensor

    def __init__(self, functions: Sequence[Any], weights: torch.Tensor, tokenizer: PreTrainedTokenizerBase) -> None:
        self._functions, self._tokenizer = [], tokenizer
        self._all_weights, self._weights = weights.clone(), weights
        for index, function in enumerate(functions):
            if hasattr(function, "steps"):
                self._functions.append((function, float(weights[index])))
                weights[index] = 0.0

    def __bool__(self) -> bool:
        return bool(self._functions)

    def token_advantages(
        self, rows: Sequence[Mapping[str, Any]], completions: Sequence[Any], ids: Sequence[Sequence[int]], size: int
    ) -> list[list[float]]:
        """Advantages of every token of every completion; `size` consecutive rows are a group."""
        totals = [np.zeros(len(each)) for each in ids]
        for function, weight in self._functions:
            for start in range(0, len(ids), size):
                group = slice(start, start + size)
                found = self._of_group(function, rows[group], completions[group], ids[group])
                for row, values in enumerate(found, start):
                    totals[row] += weight * np.array(values)
        return [each.tolist() for each in totals]

    def _of_group(
        self, function: Any, rows: Any, completions: Sequence[Any], ids: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        ends, rewards = [], []
        for row, text, tokens in zip(rows, map(text_of, completions), ids, strict=True):
            opened = {"prefill": row["prefill"]} if row.get("prefill") else {}
            steps = function.steps(text, row["check"], json.loads(row["gold"]), row.get("place"), **opened)
            pieces = self._tokenizer.batch_decode([[token] for token in tokens])
            ends.append(token_ends([end for end, _ in steps], pieces, text))
            rewards.append([reward for _, reward in steps])
        return step_advantages(ends, rewards, list(map(len, ids)))

    def see(self, rewards: torch.Tensor) -> None:
        """Note the rewards of all processes, shape (rows, functions)."""
        self.whole = (rewards * self._weights.to(rewards.device)).nansum(1)
        earned = (rewards * self._all_weights.to(rewards.device)).nansum(1)
        self.earned = earned.masked_fill(rewards.isnan().all(1), torch.nan)  # no verdict is no failure


def added_to(advantages: torch.Tensor, by_token: Sequence[Sequence[float]], width: int) -> torch.Tensor:
    """Advantages of whole completions, shape (rows,), plus those of their tokens: (rows, width)."""
    padded = advantages.new_zeros(len(by_token), width)
    for row, values in zip(padded, by_token, strict=True):
        row[: len(values)] = torch.tensor(values)
    return advantages[:, None] + padded
