"""Scores completions under policy, old policy and reference, without redundant computation."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from typing import Any

import torch
from accelerate import Accelerator
from torch.nn.functional import pad
from transformers import PreTrainedModel

from efficient_rl.training.memory import PhaseMeter
from efficient_rl.training.model_setup import Optimizations, lean_head
from efficient_rl.training.parameters import TrainedParameters
from efficient_rl.training.prefixes import SharedPrefixes, moves_freely, plan_of
from efficient_rl.training.reference import OverlayReference
from efficient_rl.training.sampler import carries_state
from efficient_rl.training.sampler_gap import SamplerGap
from efficient_rl.training.sharding import NoShards, Shards
from efficient_rl.training.tokens import Tokens, completion_lengths
from efficient_rl.training.trunk import HIDDEN, Trunk, TrunkCache, frozen_depth

__all__ = ["PASS_COST_TOKENS", "Scorer", "Tokens", "TrlScores", "completion_lengths", "length_buckets", "score"]
PASS_COST_TOKENS = 256  # what one more pass costs beside its tokens, in tokens
UNCUT = ("pixel_values", "token_type_ids", "mm_token_type_ids", "num_images")  # left to TRL

Scores = tuple[torch.Tensor, torch.Tensor | None]
TrlScores = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]
Compute = Callable[["Tokens"], TrlScores]
Batch = Mapping[str, Any]
Around = Callable[[torch.Tensor, int], AbstractContextManager[None]]


class Scorer:
    """TRL's passes over a batch, at a lower price: log-probabilities and entropies are the same.

    Completions are rows: scores are (rows, width), advantages (rows,) or (rows, width). With
    `lockstep` all processes must compute the same number of passes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        parameters: TrainedParameters,
        reference: OverlayReference | None,
        shards: Shards | NoShards,
        optimizations: Optimizations,
        accelerator: Accelerator,
        meter: PhaseMeter,
        lockstep: bool,
        gap: SamplerGap,
    ) -> None:
        self._model, self._parameters, self._reference = model, parameters, reference
        self._shards, self._optimizations = shards, optimizations
        self._accelerator, self._meter, self._lockstep = accelerator, meter, lockstep
        self._gap = gap
        self._trunk = TrunkCache(model, optimizations.trunk_cache_bytes)
        self._movable = moves_freely(model.config.get_text_config())
        self._never_trained = frozen_depth(model, parameters.trainable)
        self._unpadded = carries_state(model) and not lockstep  # padding may enter a state, whatever the mask says
        self._micro_batch: Mapping[str, Any] | None = None
        self._skipped = False

    def begin_batch(self, rows: int) -> None:
        """Begin a batch of `rows`, before its generation; its passes may share a trunk."""
        shares = self._model.training and self._optimizations.trunk_cache_bytes > 0
        self._trunk.begin(self._frozen_now() if shares else 0, rows)

    def take_trunk(self) -> dict[str, Any]:
        """What the batch carries on to its policy passes."""
        return self._trunk.take()

    def take_skipped(self) -> bool:
        """Whether a policy pass since the last call left out all of its rows."""
        skipped, self._skipped = self._skipped, False
        return skipped

    @contextmanager
    def policy_pass(self, batch: dict[str, Any], generation: Sequence[dict[str, Any]]) -> Iterator[None]:
        """Inside, passes have gradients and are over this micro-batch of a `generation`."""
        trunk = Trunk.carried(batch)
        if trunk is not None and trunk.depth > self._frozen_now():
            # A schedule trains blocks that were frozen when the trunk was kept. The trunk stays
            # untrue even if they freeze again before the next generation: no update may use it.
            for each in (batch, *generation):
                each.pop(HIDDEN, None)
        self._micro_batch = batch
        try:
            yield
        finally:
            self._micro_batch = None

    def __call__(
        self,
        trl_pass: Callable[..., TrlScores],
        model: Any,
        is_reference: bool,
        tokens: Tokens,
        most_rows: int | None,
        settings: Mapping[str, Any],
    ) -> TrlScores:
        """What TRL's pass gives for `model`; `settings` are its further arguments."""
        overlays = is_reference and self._reference is not None
        policy = self._model if overlays else model

        def compute(part: Tokens, rows: int | None = None) -> TrlScores:
            with lean_head(self._model, self._optimizations.lean_head):
                return trl_pass(policy, *part, rows, **settings)

        images = any(settings.get(name) is not None for name in UNCUT)
        uncut = images or settings.get("compute_aux_loss")
        if self._micro_batch is not None:
            return compute(tokens) if uncut else (*self._policy(compute, policy, tokens, self._micro_batch), None)
        phase = "reference" if is_reference else "old_policy"
        with self._meter.phase(phase), self._restored(overlays):
            if uncut:
                return compute(tokens, most_rows)
            return (*self._fixed(compute, policy, tokens, most_rows, is_reference), None)

    def _fixed(self, compute: Compute, model: Any, tokens: Tokens, most_rows: int | None, is_reference: bool) -> Scores:
        """Scores of all rows without gradients; caches the trunk, or starts from a valid one."""
        same_blocks = len(self._parameters.names)  # all
        if is_reference:
            same_blocks = self._never_trained if self._reference is not None else 0

        def trunk(rows: torch.Tensor, length: int) -> AbstractContextManager[None]:
            return self._trunk.passing(rows, length, tokens.ids.shape[1], same_blocks)

        rows = torch.arange(len(tokens.ids), device=tokens.ids.device)
        buckets = self._buckets(tokens, rows, most_rows)
        return score(compute, tokens, rows, buckets, self._with_prefixes(trunk, model, tokens, rows), self._unpadded)

    def _policy(self, compute: Compute, model: Any, tokens: Tokens, batch: Batch) -> Scores:
        """Scores, (rows, width), with gradients for rows with a loss; others are constant."""
        kept = Trunk.carried(batch)

        def trunk(rows: torch.Tensor, length: int) -> AbstractContextManager[None]:
            return nullcontext() if kept is None else self._trunk.serving(kept, rows, length)

        rows, mask = self._moving_rows(batch["advantages"]), batch["completion_mask"]
        # A row left out has advantage 0: whatever its log-probabilities are, loss and gradients
        # stay the same. Its old ones stand in, so that its ratio is 1.
        logps = batch.get("old_per_token_logps", torch.zeros(mask.shape, device=mask.device))
        if len(rows) == 0:
            self._skipped = True
            return logps.detach().clone().requires_grad_(), self._with_mean_entropy(logps[rows], rows, batch)
        buckets = self._buckets(tokens, rows, None)
        around = self._with_prefixes(trunk, model, tokens, rows)
        found, entropies = score(compute, tokens, rows, buckets, around, self._unpadded)
        self._gap.see(found, rows, batch)
        if self._needs_all_rows or entropies is None:
            return found, entropies
        return logps.to(found.dtype).index_copy(0, rows, found), self._with_mean_entropy(entropies, rows, batch)

    def _with_prefixes(self, around: Around, model: Any, tokens: Tokens, rows: torch.Tensor) -> Around:
        """`around`; inside, what the rows share is computed once, where that saves tokens."""
        if not self._optimizations.shared_prefixes:
            return around
        width = tokens.ids.shape[1] - tokens.width
        plan = plan_of(tokens.ids[:, :width], tokens.mask[:, :width], rows, PASS_COST_TOKENS, self._movable)
        if plan is None:
            return around
        bare = self._model if model is self._model else self._accelerator.unwrap_model(model)
        shared = SharedPrefixes(bare, plan, self._trunk)

        @contextmanager
        def both(rows: torch.Tensor, length: int) -> Iterator[None]:
            with around(rows, length), shared.passing(rows):
                yield

        return both

    def _with_mean_entropy(self, entropies: torch.Tensor, rows: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Entropies of all rows, (rows, width), from those of `rows`; others get their mean.

        The mean is over all processes, for the metric only; NaN if no row has an advantage.
        """
        mask, moving = batch["completion_mask"], _have_advantage(batch["advantages"])[rows]
        rows, entropies = rows[moving], entropies[moving]
        sums = torch.stack([(entropies * mask[rows]).sum(), mask[rows].sum()]).detach()
        sums = self._accelerator.reduce(sums, "sum")
        return (sums[0] / sums[1]).expand(mask.shape).index_copy(0, rows, entropies)

    def _moving_rows(self, advantages: torch.Tensor) -> torch.Tensor:
        """Indices of the rows that can move the weights: all, or those with an advantage."""
        rows = torch.arange(len(advantages), device=advantages.device)
        if self._needs_all_rows:
            return rows
        moving = rows[_have_advantage(advantages)]
        # Shards are put together by all processes in every pass: none may leave one out.
        return rows[:1] if self._lockstep and not len(moving) else moving

    @property
    def _needs_all_rows(self) -> bool:
        return not (self._optimizations.skip_zero_variance and self._model.training)

    def _buckets(self, tokens: Tokens, rows: torch.Tensor, most_rows: int | None) -> list[list[int]] | None:
        lengths = [tokens.width] * len(rows)
        if self._optimizations.length_buckets:
            lengths = tokens.lengths(rows).tolist()
        elif most_rows is None and not self._unpadded:
            return None
        paddings = tokens.padding(rows).tolist() if self._unpadded else [0] * len(rows)
        buckets: list[list[int]] = []
        for padding in sorted(set(paddings)):
            alike = [position for position, columns in enumerate(paddings) if columns == padding]
            found = length_buckets([lengths[position] for position in alike], most_rows)
            buckets += [[alike[index] for index in bucket] for bucket in found]
        return buckets

    def _frozen_now(self) -> int:
        return frozen_depth(self._model, self._parameters.with_gradients)

    @contextmanager
    def _restored(self, wanted: bool) -> Iterator[None]:
        """Inside, if `wanted`, the model before training."""
        if not wanted or self._reference is None:
            yield
            return
        with self._reference.restored():
            self._shards.reshard()  # what is whole since an earlier pass is the policy
            yield
        self._shards.reshard()


def _have_advantage(advantages: torch.Tensor) -> torch.Tensor:
    """Which rows, shape (rows,), have one anywhere; `advantages` is (rows,) or (rows, width)."""
    return advantages.reshape(len(advantages), -1).abs().sum(1) > 0


def score(
    compute: Compute,
    tokens: Tokens,
    rows: torch.Tensor,
    buckets: Sequence[Sequence[int]] | None,
    around: Around,
    unpadded: bool = False,
) -> Scores:
    """Log-probabilities and entropies of some rows, shape (len(rows), width), 0 at padding.

    `buckets` are positions in `rows` that go through the model together, cut to their longest
    completion; None: all at once, uncut. `around` is entered around each pass with its rows and
    their number of tokens. `unpadded`: the prompts of each bucket are of one length, and go without
    their padding.
    """
    lengths = tokens.lengths(rows)
    starts = tokens.padding(rows) * unpadded
    order, logps, entropies = [], [], []
    for bucket in buckets or [range(len(rows))]:
        positions = torch.tensor(sorted(bucket), device=rows.device)
        width = int(lengths[positions].max()) if buckets else tokens.width
        part = tokens.cut(rows[positions], width, int(starts[positions[0]]))
        with around(rows[positions], part.ids.shape[1]):
            found, spread, _ = compute(part)
        order.append(positions)
        logps.append(pad(found, (0, tokens.width - width)))
        if spread is not None:
            entropies.append(pad(spread, (0, tokens.width - width)))
    back = torch.cat(order).argsort()
    return torch.cat(logps)[back], torch.cat(entropies)[back] if entropies else None


def length_buckets(lengths: Sequence[int], most_rows: int | None) -> list[list[int]]:
    """Positions of the rows, longest first, in buckets of at most `most_rows`.

    A bucket is cut where that saves the most padding, as long as it saves more than another pass
    costs.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    bounds = [0, *_cuts([lengths[row] for row in order], 0, len(order)), len(order)]
    step = most_rows or len(order)
    buckets: list[list[int]] = []
    for start, end in pairwise(bounds):
        buckets += [order[first : min(first + step, end)] for first in range(start, end, step)]
    return buckets


def _cuts(lengths: Sequence[int], start: int, end: int) -> list[int]:
    """Where to cut the rows from start to end, whose lengths fall."""
    saved = [(end - at) * (lengths[start] - lengths[at]) for at in range(start + 1, end)]
    if not saved or max(saved) <= PASS_COST_TOKENS:
        return []
    at = start + 1 + saved.index(max(saved))
    return [*_cuts(lengths, start, at), at, *_cuts(lengths, at, end)]
