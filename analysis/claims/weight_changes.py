"""Counts which weights of a run training changed, in float32 and as bfloat16 would have shown."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from efficient_rl.errors import ConfigError

BLOCK = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class WeightChanges:
    """By matrix or vector of the model: how many values it has, and how many changed.

    `counted` compares float32 bits; `rounded` compares after rounding both to bfloat16, which hides
    small steps.
    """

    sizes: Mapping[str, int]
    counted: Mapping[str, int]
    rounded: Mapping[str, int]

    @property
    def share(self) -> float:
        """Share of all weights that changed in float32."""
        return sum(self.counted.values()) / sum(self.sizes.values())

    @property
    def rounded_share(self) -> float:
        """Share of all weights that changed in bfloat16."""
        return sum(self.rounded.values()) / sum(self.sizes.values())

    @property
    def matrices(self) -> float:
        """Share of the matrices and vectors in which anything changed in float32."""
        return sum(map(bool, self.counted.values())) / len(self.sizes)

    def by_part(self, changed: Mapping[str, int]) -> dict[str, float]:
        """Share of changed weights in each block, in order, and in every tensor outside of them."""
        totals, counts = Counter[str](), Counter[str]()
        for name, size in self.sizes.items():
            totals[_part(name)] += size
            counts[_part(name)] += changed[name]
        order = sorted(totals, key=lambda part: (not part.startswith("block "), len(part), part))
        return {part: counts[part] / totals[part] for part in order}


def count_changes(before: Path, after: Path) -> WeightChanges:
    """Compares the safetensors of two folders; ConfigError if their tensors differ by name."""
    old, new = _files(before), _files(after)
    if old.keys() != new.keys():
        raise ConfigError(
            f"{after} holds other weights than {before}: changed weights can be counted for runs "
            "that save whole models, such as strategy=full"
        )
    sizes, counted, rounded = {}, {}, {}
    for name in sorted(old):
        first, second = _tensor(old[name], name), _tensor(new[name], name)
        if first.shape != second.shape:
            shapes = f"{tuple(second.shape)} in {after} and {tuple(first.shape)} in {before}"
            raise ConfigError(f"{name} has the shape {shapes}")
        sizes[name] = first.numel()
        counted[name] = int((first != second).sum())
        rounded[name] = int((first.bfloat16() != second.bfloat16()).sum())
    return WeightChanges(sizes, counted, rounded)


def _files(folder: Path) -> dict[str, Path]:
    """The file of every tensor."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as opened:
            found |= dict.fromkeys(opened.keys(), path)
    if not found:
        raise ConfigError(f"{folder} holds no .safetensors file")
    return found


def _part(name: str) -> str:
    """The block of a tensor, or the tensor itself outside of them."""
    block = BLOCK.search(name)
    return f"block {block[1]}" if block else name.removesuffix(".weight")


def _tensor(path: Path, name: str) -> torch.Tensor:
    with safe_open(path, framework="pt") as opened:
        tensor: torch.Tensor = opened.get_tensor(name)
    return tensor.float()
