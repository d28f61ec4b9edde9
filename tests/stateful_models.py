"""Small configurations of models whose layers carry a state: linear attention, state spaces, convolutions."""

from collections.abc import Callable
from typing import Any

import transformers

COMMON = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}  # fmt: skip
DELTA = {
    "head_dim": 8, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
SCAN = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_chunk_size": 16}
ONE_HEAD = {"num_key_value_heads": 1, "num_hidden_layers": 3, "intermediate_size": 96, "lru_width": 32}
PURE = {"hidden_size": 32, "num_hidden_layers": 4, "state_size": 8}
Configuration = Callable[..., Any]

MODELS: dict[str, Configuration] = {
    "qwen3_5": lambda **v: transformers.Qwen3_5TextConfig(**COMMON, **DELTA, **v),
    "qwen3_next": lambda **v: transformers.Qwen3NextConfig(**COMMON, **DELTA, **EXPERTS, **v),
    "lfm2": lambda **v: transformers.Lfm2Config(**COMMON, layer_types=["conv", "full_attention"] * 2, **v),
    "mamba": lambda **v: transformers.MambaConfig(**PURE, **v),
    "mamba2": lambda **v: transformers.Mamba2Config(**PURE, num_heads=8, head_dim=8, n_groups=2, chunk_size=16, **v),
    "bamba": lambda **v: transformers.BambaConfig(**COMMON, **SCAN, attn_layer_indices=[1, 3], **v),
    "granitemoehybrid": lambda **v: transformers.GraniteMoeHybridConfig(
        **COMMON, **SCAN, layer_types=["mamba", "attention"] * 2, num_local_experts=0, shared_intermediate_size=48, **v
    ),
    "recurrent_gemma": lambda **v: transformers.RecurrentGemmaConfig(**(COMMON | ONE_HEAD), attention_window_size=64, **v),
    "falcon_h1": lambda **v: transformers.FalconH1Config(**COMMON, **SCAN, mamba_d_ssm=64, head_dim=8, **v),
    "jamba": lambda **v: transformers.JambaConfig(
        **COMMON, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1, num_experts=2,
        num_experts_per_tok=1, mamba_d_state=8, mamba_d_conv=4, mamba_dt_rank=4, **v,
    ),
}  # fmt: skip
