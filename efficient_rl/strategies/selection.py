"""Turns what a configuration says about layers (`last 25%`, `2:5`, `-1`, lists of them) into block numbers."""

import re
from collections.abc import Sequence
from typing import Any

Layers = int | str | Sequence[int | str]

_FORMS = (
    "use a number (3, -1), a slice ('2:5', '-2:'), 'first 50%', 'last 25%', 'first 2', 'last 2', 'all', or a list of them"
)
_SLICE = re.compile(r"(-?\d+)?:(-?\d+)?")
_RATIO = re.compile(r"(first|last)\s+(\d+(?:\.\d+)?)(\s*%)?")


def resolve_layers(layers: Layers, blocks: int) -> list[int]:
    """The sorted block numbers, each once, that `layers` names in a model of `blocks` blocks; never empty.

    Negative numbers count from the end, slices are Python's, and `last 25%` is rounded to the
    nearest number of blocks but at least one. Raises ValueError with value, bound and remedy for
    what is malformed, out of range or empty.
    """
    parts = [layers] if isinstance(layers, int | str) else list(layers)
    chosen = sorted({number for part in parts for number in _resolve(part, blocks)})
    if not chosen:
        raise ValueError(f"layers={layers!r} names none of the model's {blocks} blocks; {_FORMS}")
    return chosen


def check_layers(name: str, layers: Any) -> Layers:
    """`layers` as a hashable value; raises ValueError for what no model could satisfy."""
    parts = (layers,) if isinstance(layers, int | str) else layers
    if not isinstance(parts, Sequence) or not parts:
        raise ValueError(f"{name}={layers!r} names no layers; {_FORMS}")
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, int | str) or (isinstance(part, str) and not _well_formed(part)):
            raise ValueError(f"{name}={layers!r} holds {part!r}, which names no layers; {_FORMS}")
    return layers if isinstance(layers, int | str) else tuple(layers)


def _well_formed(text: str) -> bool:
    text = text.strip()
    return text == "all" or any(pattern.fullmatch(text) for pattern in (_SLICE, _RATIO, re.compile(r"-?\d+")))


def _resolve(part: int | str, blocks: int) -> Sequence[int]:
    if isinstance(part, bool) or not isinstance(part, int | str) or (isinstance(part, str) and not _well_formed(part)):
        raise ValueError(f"layers={part!r} names no layers; {_FORMS}")
    text = str(part).strip()
    if text == "all":
        return range(blocks)
    if found := _SLICE.fullmatch(text):
        start, stop = (None if bound is None else int(bound) for bound in found.groups())
        for bound in (start, stop):
            if bound is not None and not -blocks <= bound <= blocks:
                raise ValueError(
                    f"layers={part!r} exceeds the model's {blocks} blocks; use bounds from {-blocks} to {blocks}"
                )
        named = range(blocks)[start:stop]
        if not named:
            raise ValueError(f"layers={part!r} names none of the model's {blocks} blocks; the start must be below the stop")
        return named
    if found := _RATIO.fullmatch(text):
        count = _count(text, float(found[2]), bool(found[3]), blocks)
        return range(count) if found[1] == "first" else range(blocks - count, blocks)
    number = int(text)
    if not -blocks <= number < blocks:
        raise ValueError(f"layers={part!r} exceeds the model's {blocks} blocks; use {-blocks} to {blocks - 1}")
    return [number % blocks]


def _count(text: str, value: float, percent: bool, blocks: int) -> int:
    if percent:
        if not 0 < value <= 100:
            raise ValueError(f"layers={text!r} must name above 0 and at most 100 % of the model's {blocks} blocks")
        return max(1, int(blocks * value / 100 + 0.5))
    if not value.is_integer() or not 1 <= value <= blocks:
        raise ValueError(f"layers={text!r} must name 1 to {blocks} whole blocks, as many as the model has")
    return int(value)
