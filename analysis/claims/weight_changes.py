"""Counts which weights of a finished run are others than before training, in float32 and as bfloat16 would have shown."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import safe_open

from analysis.data.load import ReportError

BLOCK = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class Changes:
    """By matrix or vector of the model: how many values it has, and how many changed.

    `counted` compares float32 bits; `rounded` compares after rounding both to bfloat16, which hides
    small steps.
    """

    sizes: Mapping[str, int]
    counted: Mapping[str, int]
    rounded: Mapping[str, int]

    @cached_property
    def share(self) -> float:
        """Share of all weights that changed in float32."""
        return sum(self.counted.values()) / sum(self.sizes.values())

    @cached_property
    def rounded_share(self) -> float:
        """Share of all weights that changed in bfloat16."""
        return sum(self.rounded.values()) / sum(self.sizes.values())

    @cached_property
    def matrices(self) -> float:
        """Share of the matrices and vectors in which anything changed in float32."""
        return sum(count > 0 for count in self.counted.values()) / len(self.sizes)

    def by_part(self, changed: Mapping[str, int]) -> dict[str, float]:
        """Share of changed weights (`counted` or `rounded`) in each block, in order, and in every tensor outside of them."""
        found = {name: BLOCK.search(name) for name in self.sizes}
        parts = {name: f"block {match[1]}" if match else name.removesuffix(".weight") for name, match in found.items()}
        order = sorted(set(parts.values()), key=lambda part: (not part.startswith("block "), len(part), part))
        return {
            part: sum(changed[name] for name in parts if parts[name] == part)
            / sum(self.sizes[name] for name in parts if parts[name] == part)
            for part in order
        }


def count_changes(before: Path, after: Path) -> Changes:
    """Compares the safetensors of two model folders, tensor by tensor; ReportError where they hold different ones."""
    old, new = _places(before), _places(after)
    if old.keys() != new.keys():
        raise ReportError(
            f"{after} holds other weights than {before}: changed weights can be counted for runs that save whole models, "
            "such as strategy=full"
        )
    sizes, counted, rounded = {}, {}, {}
    for name in sorted(old):
        first, second = _tensor(old[name], name), _tensor(new[name], name)
        if first.shape != second.shape:
            raise ReportError(f"{name} has the shape {tuple(second.shape)} in {after} and {tuple(first.shape)} in {before}")
        sizes[name] = first.numel()
        counted[name] = int((first != second).sum())
        rounded[name] = int((first.bfloat16() != second.bfloat16()).sum())
    return Changes(sizes, counted, rounded)


def _places(folder: Path) -> dict[str, Path]:
    """The file of every tensor."""
    places: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as opened:
            places |= dict.fromkeys(opened.keys(), path)
    if not places:
        raise ReportError(f"{folder} holds no .safetensors file")
    return places


def _tensor(path: Path, name: str) -> torch.Tensor:
    with safe_open(path, framework="pt") as opened:
        tensor: torch.Tensor = opened.get_tensor(name)
    return tensor.float()
