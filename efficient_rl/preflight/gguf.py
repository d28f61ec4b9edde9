"""Reads a GGUF file's settings and the sizes of its tensors, without its weights.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, LIST = 8, 9
MOST = 10_000_000  # entries of a list, characters of a text: more is no GGUF file


def read_gguf(path: Path) -> tuple[Mapping[str, Any], Mapping[str, tuple[int, ...]]]:
    """Settings, lists as their lengths, and tensors' dimensions; ValueError where it is no GGUF."""
    with path.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise ValueError(f"{path} is no GGUF file")
        _, tensors, settings = struct.unpack("<IQQ", stream.read(20))
        values = {}
        for _ in range(settings):
            name = _text(stream)
            values[name] = _value(stream, _number(stream, "I"))
        sizes = {}
        for _ in range(tensors):
            name = _text(stream)
            sizes[name] = tuple(_number(stream, "Q") for _ in range(_number(stream, "I")))
            stream.read(12)  # type and place
    return values, sizes


def as_configuration(path: Path) -> tuple[Mapping[str, Any], Mapping[str, int]]:
    """The settings under transformers' names, and the size of every tensor."""
    values, tensors = read_gguf(path)
    kind = str(values["general.architecture"])
    found = {
        "model_type": kind,
        "hidden_size": values[f"{kind}.embedding_length"],
        "num_hidden_layers": values[f"{kind}.block_count"],
        "num_attention_heads": values[f"{kind}.attention.head_count"],
        "num_key_value_heads": values.get(f"{kind}.attention.head_count_kv"),
        "head_dim": values.get(f"{kind}.attention.key_length"),
        "intermediate_size": values[f"{kind}.feed_forward_length"],
        "num_experts": values.get(f"{kind}.expert_count"),
        "vocab_size": tensors["token_embd.weight"][-1],
    }
    return found, dict(zip(tensors, map(math.prod, tensors.values()), strict=True))


def _number(stream: BinaryIO, kind: str) -> Any:
    return struct.unpack(f"<{kind}", stream.read(struct.calcsize(kind)))[0]


def _text(stream: BinaryIO) -> str:
    return stream.read(_length(stream)).decode("utf-8", "replace")


def _length(stream: BinaryIO) -> int:
    length: int = _number(stream, "Q")
    if length > MOST:
        raise ValueError("a list or text of a GGUF file is longer than any")
    return length


def _value(stream: BinaryIO, kind: int) -> Any:
    if kind == TEXT:
        return _text(stream)
    if kind != LIST:
        return _number(stream, NUMBERS[kind])
    inner = _number(stream, "I")
    length = _length(stream)
    if inner in NUMBERS:
        stream.read(length * struct.calcsize(NUMBERS[inner]))
    else:
        for _ in range(length):
            _value(stream, inner)
    return length
