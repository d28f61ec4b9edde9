"""Reads what the weights of a local model say about its size, without loading them."""

import json
import struct
from collections.abc import Iterator
from functools import lru_cache
from math import prod
from pathlib import Path

HEADER_BYTES = 100 << 20
ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error)  # of damaged files


@lru_cache(maxsize=64)
def count_parameters(folder: Path, fingerprint: str) -> int | None:
    """The parameters in a folder's safetensors files; None without any, or where one is damaged.

    `fingerprint` tells states of the same folder apart.
    """
    try:
        return sum(dict(tensor_sizes(folder)).values()) or None
    except ERRORS:
        return None


def tensor_sizes(folder: Path) -> Iterator[tuple[str, int]]:
    """Name and size of every tensor in the folder's weights, from the heads of its safetensors."""
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > HEADER_BYTES:
                raise ValueError(f"{path} is no safetensors file")
            header = json.loads(stream.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                yield name, prod(tensor["shape"])
