"""Forward passes over part of a batch: rows of similar length together, without the padding that none of them needs."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise

import torch
from torch.nn.functional import pad

PASS_COST_TOKENS = 256  # what one more pass costs beside its tokens, in tokens

Scores = tuple[torch.Tensor, torch.Tensor | None]
Compute = Callable[[torch.Tensor, torch.Tensor, int], tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]]
Around = Callable[[torch.Tensor, int], AbstractContextManager[None]]


def score(
    compute: Compute,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    completion_width: int,
    rows: torch.Tensor,
    buckets: Sequence[Sequence[int]] | None,
    around: Around,
) -> Scores:
    """Log-probabilities and entropies of some rows' completions, shape (len(rows), completion_width), 0 at padding.

    `input_ids` and `attention_mask` are (batch, tokens), completions last and padded on the right.
    `buckets` are positions in `rows` that go through the model together, cut to their longest
    completion; None: all at once, uncut. `around` is entered around each pass with its rows and
    their number of tokens.
    """
    prompt = input_ids.shape[1] - completion_width
    lengths = completion_lengths(attention_mask[rows], completion_width)
    order, logps, entropies = [], [], []
    for bucket in buckets or [range(len(rows))]:
        positions = torch.tensor(sorted(bucket), device=rows.device)
        width = int(lengths[positions].max()) if buckets else completion_width
        chosen, tokens = rows[positions], prompt + width
        with around(chosen, tokens):
            found, spread, _ = compute(input_ids[chosen, :tokens], attention_mask[chosen, :tokens], width)
        order.append(positions)
        logps.append(pad(found, (0, completion_width - width)))
        if spread is not None:
            entropies.append(pad(spread, (0, completion_width - width)))
    back = torch.cat(order).argsort()
    return torch.cat(logps)[back], torch.cat(entropies)[back] if entropies else None


def completion_lengths(attention_mask: torch.Tensor, completion_width: int) -> torch.Tensor:
    """Tokens up to the last one of each completion, at least 1; shape (rows,)."""
    mask = attention_mask[:, -completion_width:]
    return (mask * torch.arange(1, completion_width + 1, device=mask.device)).amax(1).clamp(min=1)


def length_buckets(lengths: Sequence[int], most_rows: int | None) -> list[list[int]]:
    """Positions of the rows, longest first, in buckets of at most `most_rows`.

    A bucket is cut where that saves the most padding, as long as it saves more than another pass
    costs.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    bounds = [0, *_cuts([lengths[row] for row in order], 0, len(order)), len(order)]
    step = most_rows or len(order)
    return [order[first : min(first + step, end)] for start, end in pairwise(bounds) for first in range(start, end, step)]


def _cuts(lengths: Sequence[int], start: int, end: int) -> list[int]:
    """Where to cut the rows from start to end, whose lengths fall."""
    saved = [(end - at) * (lengths[start] - lengths[at]) for at in range(start + 1, end)]
    if not saved or max(saved) <= PASS_COST_TOKENS:
        return []
    at = start + 1 + saved.index(max(saved))
    return [*_cuts(lengths, start, at), at, *_cuts(lengths, at, end)]
