"""Turns a configuration's layers (`last 25%`, `2:5`, `-1`, lists of them) into block numbers."""

import re
from collections.abc import Sequence
from typing import Any

from efficient_rl.errors import require

Layers = int | str | Sequence[int | str]

_FORMS = (
    "use a number (3, -1), a slice ('2:5', '-2:'), 'first 50%', 'last 25%', 'first 2', 'last 2', 'all', or a list of them"
)
_SLICE = re.compile(r"(-?\d+)?:(-?\d+)?")
_RATIO = re.compile(r"(first|last)\s+(\d+(?:\.\d+)?)(\s*%)?")
_FORM = re.compile(rf"all|-?\d+|{_SLICE.pattern}|{_RATIO.pattern}")


def resolve_layers(layers: Layers, blocks: int) -> list[int]:
    """The sorted numbers of the blocks that `layers` names, each once; never empty.

    Negative numbers count from the end, slices are Python's, and `last 25%` is rounded to the
    nearest number of blocks but at least one. Raises ValueError with value, bound and remedy for
    what is malformed, out of range or empty.
    """
    parts = [layers] if isinstance(layers, int | str) else list(layers)
    chosen = set[int]().union(*(_resolve(part, blocks) for part in parts))
    none = f"names none of the model's {blocks} blocks; {_FORMS}"
    require(bool(chosen), "layers", layers, none)
    return sorted(chosen)


def check_layers(name: str, layers: Any) -> Layers:
    """`layers` as a hashable value; raises ValueError for what no model could satisfy."""
    if isinstance(layers, int | str):
        _check_part(name, layers, layers)
        return layers
    listed = isinstance(layers, Sequence) and len(layers) > 0
    require(listed, name, layers, f"names no layers; {_FORMS}")
    for part in layers:
        _check_part(name, layers, part)
    return tuple(layers)


def _check_part(name: str, layers: Any, part: Any) -> None:
    formed = isinstance(part, str) and _FORM.fullmatch(part.strip()) is not None
    number = isinstance(part, int) and not isinstance(part, bool)
    require(formed or number, name, layers, f"holds {part!r}, which names no layers; {_FORMS}")


def _resolve(part: int | str, blocks: int) -> Sequence[int]:
    _check_part("layers", part, part)
    text = str(part).strip()
    if text == "all":
        return range(blocks)
    if found := _SLICE.fullmatch(text):
        bounds = int(found[1] or 0), int(found[2] or blocks)
        fits = max(map(abs, bounds)) <= blocks
        limits = f"exceeds the model's {blocks} blocks; use bounds from {-blocks} to {blocks}"
        require(fits, "layers", part, limits)
        named = range(blocks)[slice(*bounds)]
        none = f"names none of the model's {blocks} blocks; the start must be below the stop"
        require(bool(named), "layers", part, none)
        return named
    if found := _RATIO.fullmatch(text):
        count = _count(text, float(found[2]), bool(found[3]), blocks)
        return range(blocks)[:count] if found[1] == "first" else range(blocks)[-count:]
    number = int(text)
    limits = f"exceeds the model's {blocks} blocks; use {-blocks} to {blocks - 1}"
    require(-blocks <= number < blocks, "layers", part, limits)
    return [number % blocks]


def _count(text: str, value: float, percent: bool, blocks: int) -> int:
    if percent:
        share = f"must name above 0 and at most 100 % of the model's {blocks} blocks"
        require(0 < value <= 100, "layers", text, share)
        return max(1, int(blocks * value / 100 + 0.5))
    whole = f"must name 1 to {blocks} whole blocks, as many as the model has"
    require(value.is_integer() and 1 <= value <= blocks, "layers", text, whole)
    return int(value)
