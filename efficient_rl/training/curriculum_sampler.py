"""Serves a curriculum's problems to the trainer, and tells it what rewards they earned."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import pad

from efficient_rl.curricula.protocol import Curriculum

PROMPT_IDS = "prompt_ids"
ROUNDING = 1e-6  # of float32, relative
LEFT_PADDED = ("prompt_ids", "prompt_mask")


class CurriculumSampler:
    """The training problems and the curriculum that chooses among them.

    `problems` are rows with the columns of the training data, `difficulty`, and where the caller
    has them the `prompt_ids`.
    """

    def __init__(self, problems: Sequence[Mapping[str, Any]], curriculum: Curriculum) -> None:
        self.curriculum = curriculum
        self.difficulties = [float(row["difficulty"]) for row in problems]
        self._problems = [{key: value for key, value in row.items() if key != PROMPT_IDS} for row in problems]
        self._encoded = {row["prompt"]: list(row[PROMPT_IDS]) for row in problems if PROMPT_IDS in row}

    def draw(self, count: int, copies: int, step: int) -> tuple[list[int], list[dict[str, Any]]]:
        """Indices of the step's next problems, and their rows, each `copies` times."""
        indices = self.curriculum.draw(count, step)
        return indices, [dict(self._problems[index]) for index in indices for _ in range(copies)]

    def encoded(self, prompts: Sequence[str]) -> list[list[int]] | None:
        """Token ids of the prompts, as the evaluation writes them too; None where the rows came without."""
        return [self._encoded[prompt] for prompt in prompts] if self._encoded else None

    def metrics(self, indices: Sequence[int]) -> dict[str, float]:
        """What it served, and what the curriculum believes now."""
        served = [self.difficulties[index] for index in indices]
        return {
            "difficulty": sum(served) / len(served),
            **{f"curriculum/{name}": value for name, value in self.curriculum.beliefs().items()},
        }


def rows_of_level_groups(rewards: torch.Tensor, size: int) -> torch.Tensor:
    """Which rows, shape (rows,), belong to a group of `size` whose rewards are equal up to rounding."""
    groups = rewards.view(-1, size)
    spread = groups.amax(1) - groups.amin(1)
    return (spread <= ROUNDING * groups.abs().amax(1)).repeat_interleave(size)


def groups_without_signal(advantages: torch.Tensor, size: int) -> list[int]:
    """Which groups of `size` consecutive rows move nothing; `advantages` is (rows,) or (rows, tokens)."""
    moving = advantages.reshape(len(advantages) // size, -1).abs().sum(1) > 0
    return (~moving).nonzero().flatten().tolist()


def with_groups_replaced(
    batch: Mapping[str, Any], groups: Sequence[int], by: Mapping[str, Any], size: int, pad_id: int
) -> dict[str, Any]:
    """The batch with those groups' rows taken from another one, in order; both padded to the wider of the two."""
    device = batch["advantages"].device
    rows = torch.tensor([group * size + row for group in groups for row in range(size)], device=device)
    replaced = dict(batch)
    for name, values in batch.items():
        if isinstance(values, torch.Tensor) and values.dim() > 0:
            fill = pad_id if name.endswith("_ids") else 0
            wider = max(values.shape[-1], by[name].shape[-1])
            mine, other = (_padded(each, wider, name in LEFT_PADDED, fill) for each in (values, by[name]))
            replaced[name] = mine.index_copy(0, rows, other)
    replaced["num_items_in_batch"] = replaced["completion_mask"].sum()
    return replaced


def _padded(values: torch.Tensor, width: int, on_the_left: bool, fill: int) -> torch.Tensor:
    if values.dim() == 1:
        return values
    missing = width - values.shape[-1]
    return pad(values, (missing, 0) if on_the_left else (0, missing), value=fill)
