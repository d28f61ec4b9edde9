"""Prompts and completions of a batch as padded token ids, and parts of them."""

from typing import NamedTuple

import torch


class Tokens(NamedTuple):
    """Prompts, padded on the left, then completions, padded on the right to `width` tokens."""

    ids: torch.Tensor  # (rows, tokens)
    mask: torch.Tensor  # (rows, tokens)
    width: int

    def cut(self, rows: torch.Tensor, width: int, start: int = 0) -> "Tokens":
        """Some rows from column `start` on, and of their completions the first `width` tokens."""
        tokens = self.ids.shape[1] - self.width + width
        return Tokens(self.ids[rows, start:tokens], self.mask[rows, start:tokens], width)

    def padding(self, rows: torch.Tensor) -> torch.Tensor:
        """The columns before each prompt; shape (len(rows),)."""
        return self.mask[rows].argmax(1)

    def lengths(self, rows: torch.Tensor) -> torch.Tensor:
        """Tokens up to the last one of these rows' completions, at least 1; shape (len(rows),)."""
        return completion_lengths(self.mask[rows], self.width)


def completion_lengths(attention_mask: torch.Tensor, completion_width: int) -> torch.Tensor:
    """Tokens up to the last one of each completion, at least 1; shape (rows,)."""
    mask = attention_mask[:, -completion_width:]
    return (mask * torch.arange(1, completion_width + 1, device=mask.device)).amax(1).clamp(min=1)
