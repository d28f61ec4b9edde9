"""Makes batches of the problems that a curriculum draws, and reports their rewards to it."""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn.functional import pad

from efficient_rl.curricula.protocol import Curriculum

PROMPT_IDS = "prompt_ids"
ROUNDING = 1e-6  # of float32, relative
LEFT_PADDED = ("prompt_ids", "prompt_mask")

Row = dict[str, Any]
Scored = tuple[dict[str, Any], torch.Tensor]  # a batch; rewards of all processes, (groups, size)
Score = Callable[[list[Row]], Scored]
Metrics = MutableMapping[str, list[float]]


class CurriculumSampler:
    """The training problems and the curriculum that chooses among them.

    `problems` are rows with the columns of the training data, `difficulty`, and where the caller
    has them the `prompt_ids`. A group is `size` completions of one problem; every process draws
    the problems of all and takes the rows of its own.
    """

    def __init__(
        self, problems: Sequence[Mapping[str, Any]], curriculum: Curriculum, size: int, pad_id: int, accelerator: Accelerator
    ) -> None:
        self.curriculum = curriculum
        self._size, self._pad_id = size, pad_id
        self._process, self._processes = accelerator.process_index, accelerator.num_processes
        if curriculum.refills and self._processes > 1:
            raise ValueError("a curriculum with refills (dapo) works in one process only; use curriculum=learnability")
        self._rows = [dict(row) for row in problems]
        with_ids = [row for row in self._rows if PROMPT_IDS in row]
        self._encoded = {row["prompt"]: list(row.pop(PROMPT_IDS)) for row in with_ids}
        self._difficulties = np.array([row["difficulty"] for row in self._rows], dtype=float)

    def begin(self, seed: int, steps: int) -> None:
        """Show the curriculum its problems and the number of steps."""
        self.curriculum.begin(self._difficulties.tolist(), seed, steps)

    def batch(self, scored: Score, rows: int, step: int, metrics: Metrics) -> dict[str, Any]:
        """A batch of `rows` completions in this process.

        Groups without a signal are replaced as often as the curriculum says. `scored` completes and
        scores the problems of the rows it gets, and adds to TRL's `metrics`.
        """
        batch, drawn = self._observed(scored, rows, step)
        before = {name: len(values) for name, values in metrics.items()}
        refilled = 0
        for _ in range(self.curriculum.refills):
            lacking = groups_without_signal(batch["advantages"], self._size)
            if not lacking:
                break
            more, _ = self._observed(scored, len(lacking) * self._size, step)
            batch = with_groups_replaced(batch, lacking, more, self._size, self._pad_id)
            refilled += len(lacking)
        # Refills are no sample of all problems: of what TRL noted during them only the tokens stay.
        for name, values in metrics.items():
            del values[max(before.get(name, 0), int(name == "num_tokens")) :]
        if self.curriculum.refills:
            metrics["curriculum/refilled_groups"].append(refilled)
        metrics["difficulty"].append(float(self._difficulties[drawn].mean()))
        for name, value in self.curriculum.beliefs().items():
            metrics[f"curriculum/{name}"].append(value)
        return batch

    def _observed(self, scored: Score, rows: int, step: int) -> tuple[dict[str, Any], list[int]]:
        """`rows` completions of new problems, with indices; the curriculum gets the rewards."""
        drawn = self.curriculum.draw(rows * self._processes // self._size, step)
        copies = [dict(self._rows[index]) for index in drawn for _ in range(self._size)]
        batch, rewards = scored(copies[self._process * rows :][:rows])
        self.curriculum.observe(drawn, rewards.tolist(), step)
        return batch, drawn

    def encoded(self, prompts: Sequence[str]) -> list[list[int]] | None:
        """Token ids of the prompts, as in evaluation; None where the rows came without."""
        return list(map(self._encoded.__getitem__, prompts)) if self._encoded else None


def rows_of_level_groups(rewards: torch.Tensor, size: int) -> torch.Tensor:
    """Which rows, shape (rows,), belong to a group with equal rewards, up to rounding."""
    groups = rewards.view(-1, size)
    spread = groups.amax(1) - groups.amin(1)
    return (spread <= ROUNDING * groups.abs().amax(1)).repeat_interleave(size)


def groups_without_signal(advantages: torch.Tensor, size: int) -> list[int]:
    """Which groups of consecutive rows move nothing; `advantages` is (rows,) or (rows, tokens)."""
    moving = advantages.reshape(len(advantages) // size, -1).abs().sum(1) > 0
    return (~moving).nonzero().flatten().tolist()


def with_groups_replaced(
    batch: Mapping[str, Any], groups: Sequence[int], by: Mapping[str, Any], size: int, pad_id: int
) -> dict[str, Any]:
    """The batch with those groups' rows taken from another one, padded to the wider of the two."""
    device = batch["advantages"].device
    rows = (torch.tensor(groups)[:, None] * size + torch.arange(size)).flatten().to(device)
    replaced = dict(batch)
    for name, values in batch.items():
        if isinstance(values, torch.Tensor) and values.dim() > 0:
            wider = max(values.shape[-1], by[name].shape[-1])
            padding = (wider, name in LEFT_PADDED, pad_id * name.endswith("_ids"))
            replaced[name] = _padded(values, *padding).index_copy(0, rows, _padded(by[name], *padding))
    replaced["num_items_in_batch"] = replaced["completion_mask"].sum()
    return replaced


def _padded(values: torch.Tensor, width: int, on_the_left: bool, fill: int) -> torch.Tensor:
    if values.dim() == 1:
        return values
    missing = width - values.shape[-1]
    return pad(values, (missing * on_the_left, missing * (not on_the_left)), value=fill)
