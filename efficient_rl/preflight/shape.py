"""Reads the shape of a model from the files of its folder, without loading it."""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from efficient_rl.config.model_files import ERRORS, tensor_sizes
from efficient_rl.config.schema import ModelConfig
from efficient_rl.preflight.gguf import as_configuration
from efficient_rl.strategies.extent import Linear, Shape

# What a configuration of blocks of another kind than attention and one MLP names.
OTHER = (
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "state_size",
    "mamba_d_state",
    "text_config",
    "conv_L_cache",
)
ATTENTION = ("full_attention", "sliding_attention")
GATED = ("llama", "qwen", "mistral", "gemma", "smollm", "phi3", "olmo", "granite", "cohere", "stablelm", "glm", "exaone")
HEADS = ("lm_head.weight", "output.weight")  # of transformers and GGUF; tied ones are not saved


def read_shape(model: ModelConfig) -> Shape | None:
    """The shape of a model in a local folder; None where it is not here or of another kind."""
    return None if model.folder is None else _read(model.folder, model.gguf_file)


@lru_cache(maxsize=64)
def _read(folder: Path, gguf_file: str | None) -> Shape | None:
    try:
        if gguf_file is not None:
            return _shape(*as_configuration(folder / gguf_file))
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return _shape(values, dict(tensor_sizes(folder)))
    except ERRORS:
        return None


def _shape(values: Mapping[str, Any], sizes: Mapping[str, int]) -> Shape | None:
    layers = set(values.get("layer_types") or ATTENTION)
    if any(values.get(key) for key in OTHER) or not layers <= set(ATTENTION):
        return None
    hidden, blocks = _first(values, "hidden_size", "n_embd"), _first(values, "num_hidden_layers", "n_layer")
    heads = _first(values, "num_attention_heads", "n_head")
    width = values.get("head_dim") or hidden // heads
    keys = width * (values.get("num_key_value_heads") or heads)
    inner = values.get("intermediate_size") or values.get("n_inner") or 4 * hidden
    vocabulary = int(values["vocab_size"])
    linear = _llama(hidden, inner, heads * width, keys)
    if "n_embd" in values:
        linear = _gpt2(hidden, inner)
    elif not str(values.get("model_type", "")).startswith(GATED):
        return None
    matrices = blocks * sum(inputs * outputs for _, inputs, outputs in linear)
    embedding, positions = vocabulary * hidden, values.get("n_positions", 0) * hidden  # GPT-2 learns positions
    parameters = sum(sizes.values())
    rest = parameters - matrices - positions
    tied = not any(map(sizes.__contains__, HEADS))
    vectors = max(0, rest - (1 if tied else 2) * embedding) // blocks
    if rest < embedding:
        return None  # other blocks than the configuration seems to say
    return Shape(hidden, inner, blocks, heads, keys, vocabulary, tied, linear, vectors, parameters)


def _first(values: Mapping[str, Any], *names: str) -> int:
    for name in names:
        if values.get(name):
            return int(values[name])
    raise KeyError(names[0])


def _llama(hidden: int, inner: int, queries: int, keys: int) -> tuple[Linear, ...]:
    return (
        ("self_attn.q_proj", hidden, queries),
        ("self_attn.k_proj", hidden, keys),
        ("self_attn.v_proj", hidden, keys),
        ("self_attn.o_proj", queries, hidden),
        ("mlp.gate_proj", hidden, inner),
        ("mlp.up_proj", hidden, inner),
        ("mlp.down_proj", inner, hidden),
    )


def _gpt2(hidden: int, inner: int) -> tuple[Linear, ...]:
    return (
        ("attn.c_attn", hidden, 3 * hidden),
        ("attn.c_proj", hidden, hidden),
        ("mlp.c_fc", hidden, inner),
        ("mlp.c_proj", inner, hidden),
    )
