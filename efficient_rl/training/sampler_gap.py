"""How far apart sampler and trainer are in the log-probabilities of the tokens that were drawn."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

logger = logging.getLogger(__name__)
SAMPLED = "sampled_logps"  # how a batch carries what the sampler gave them: (rows, width)
FROM_TRL = "sampling_per_token_logps"
SHARE = 0.05  # of the clip range


class SamplerGap:
    """The mean absolute difference over the tokens of the first update after their generation.

    GRPO takes tokens for the policy's own: a gap g means ratios that begin about g away from 1,
    where the clip range lets a whole update move them by `epsilon`. Above a twentieth of it, 0.01
    by default, a warning is logged, once. Below lies what rounding alone gives: 3e-7 in float32, up
    to 0.004 in bfloat16, measured on nano; a sampler in another arithmetic than the trainer's came
    to 0.02. TRL reports the same for vLLM as sampling_logp_difference. Rows that take no part in
    the update do not count.
    """

    def __init__(self, epsilon: float) -> None:
        self._bound = SHARE * epsilon
        self._fresh = self._warned = False
        self._sums = torch.zeros(2, dtype=torch.float64)

    def keep(self, batch: dict[str, Any], of_vllm: bool) -> dict[str, Any]:
        """A batch that was just generated, under our own key; TRL reads its own in the loss."""
        self._fresh = True
        if FROM_TRL in batch:
            batch[SAMPLED] = batch[FROM_TRL] if of_vllm else batch.pop(FROM_TRL)
        return batch

    def see(self, logps: torch.Tensor, rows: torch.Tensor, batch: Mapping[str, Any]) -> None:
        """The trainer's, (len(rows), width), in a pass over some rows of the batch."""
        if self._fresh and SAMPLED in batch:
            sampled, mask = batch[SAMPLED][rows], (batch["completion_mask"] * batch.get("tool_mask", 1))[rows].bool()
            gaps = (logps.detach() - sampled)[mask & sampled.isfinite()].abs()
            self._sums += torch.tensor([float(gaps.sum()), float(gaps.numel())])

    def take(self, accelerator: Any) -> list[float]:
        """The gap of an update, over all processes, once it is complete; [] where none was seen."""
        sums = accelerator.reduce(self._sums.to(accelerator.device, torch.float32, copy=True), "sum").cpu()
        self._fresh = False
        self._sums.zero_()
        if not sums[1]:
            return []
        gap = float(sums[0] / sums[1])
        if gap > self._bound and not self._warned:
            self._warned = True
            logger.warning(
                "sampler and trainer are %.3g apart in a token's log-probability on average, more than %.3g (a twentieth of "
                "epsilon): it trains on tokens of another policy; use grpo.sampler=own, and model.compute=float32 or, on a "
                "GPU, model.dtype=float32",
                gap,
                self._bound,
            )
        return [gap]


def ragged(logps: torch.Tensor, completions: Sequence[Sequence[int]]) -> list[list[float]]:
    """The first numbers of each row, (rows, width), as many as its completion has tokens."""
    return [row[: len(ids)] for row, ids in zip(logps.tolist(), completions, strict=True)]
