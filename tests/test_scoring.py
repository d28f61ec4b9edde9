"""Completions pass through the model in buckets of similar length; every row keeps its own scores."""

from contextlib import nullcontext
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from efficient_rl.training.scoring import PASS_COST_TOKENS, Tokens, completion_lengths, length_buckets, score


def test_a_bucket_is_cut_where_that_saves_more_than_a_pass_costs() -> None:
    assert length_buckets([10] * 8 + [100] * 8, None) == [list(range(8, 16)), list(range(8))]  # saves 8 x 90 tokens
    assert length_buckets([10, 100], None) == [[1, 0]]  # 90 are not worth a pass
    assert length_buckets([7] * 5, most_rows=2) == [[0, 1], [2, 3], [4]]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=80), st.one_of(st.none(), st.integers(1, 20)))
def test_every_row_is_in_one_bucket_and_cutting_never_costs_more(lengths: list[int], most_rows: int | None) -> None:
    buckets = length_buckets(lengths, most_rows)
    assert sorted(row for bucket in buckets for row in bucket) == list(range(len(lengths)))
    assert all(len(bucket) <= (most_rows or len(lengths)) for bucket in buckets)
    if most_rows is None:
        padded = sum(len(bucket) * max(lengths[row] for row in bucket) for bucket in buckets)
        assert padded + PASS_COST_TOKENS * (len(buckets) - 1) <= len(lengths) * max(lengths)


def test_lengths_are_counted_to_the_last_token() -> None:
    mask = torch.tensor([[1, 1, 1, 1, 0], [0, 1, 1, 0, 0], [1, 1, 0, 0, 0]])
    assert completion_lengths(mask, 3).tolist() == [2, 1, 1]


@given(st.permutations(range(6)), st.integers(1, 6))
def test_scores_stay_with_their_rows_however_they_are_bucketed(order: list[int], kept: int) -> None:
    ids = torch.arange(6 * 5).reshape(6, 5)
    mask = torch.ones_like(ids)
    mask[::2, 4] = 0
    rows = torch.tensor(sorted(order[:kept]))

    def compute(part: Tokens) -> tuple[torch.Tensor, Any, Any]:
        found = (part.ids * part.mask)[:, -part.width :].float()
        return found, -found, None

    positions = [position for position in order if position < kept]
    buckets = [positions[:2], positions[2:]] if len(positions) > 2 else [positions]
    logps, entropies = score(compute, Tokens(ids, mask, 3), rows, buckets, lambda *_: nullcontext())
    assert torch.equal(logps, (ids * mask)[rows, 2:].float())
    assert entropies is not None
    assert torch.equal(entropies, -logps)
