"""Logits of one token more for every row of a batch, with a key-value cache."""

from typing import Any

import torch
from torch.nn.functional import rms_norm
from transformers import (
    DynamicCache,
    LlamaForCausalLM,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from efficient_rl.training.key_value_cache import BlockLayer
from efficient_rl.training.merging import without_adapters
from efficient_rl.training.prefixes import PLAIN_TYPES

LLAMAS = (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)  # of one form

Rotation = tuple[torch.Tensor, ...]  # cosines and signed sines, (rows, 1, 1, head) each


class DecodeStep:
    """One step after another, by the model's own forward.

    `mask`, (rows, columns), and `position`, (rows, 1), are those of what the cache holds.
    """

    def __init__(self, model: Any, cache: DynamicCache, mask: torch.Tensor, position: torch.Tensor, steps: int) -> None:
        self._model, self._cache, self._mask, self._position = model, cache, mask, position

    def keep(self, rows: torch.Tensor) -> None:
        """Leave out the other rows from now on."""
        self._cache.batch_select_indices(rows)
        self._mask, self._position = self._mask[rows], self._position[rows]

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """After one token a row, (rows,): shape (rows, vocabulary), in float32."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], dim=1)
        self._position = self._position + 1
        return last_logits(self._model, tokens[:, None], self._mask, self._position, self._cache)


class LlamaStep(DecodeStep):
    """The same logits, bit by bit, of a model in Llama's form, at less cost.

    Rotations and mask are made once. Queries and keys rotate together.
    """

    def __init__(self, model: Any, cache: DynamicCache, mask: torch.Tensor, position: torch.Tensor, steps: int) -> None:
        columns = mask.shape[1]
        added = torch.zeros(len(mask), 1, 1, columns + steps, dtype=model.dtype, device=mask.device)
        added[..., :columns].masked_fill_(mask[:, None, None] == 0, -torch.inf)
        super().__init__(without_adapters(model), cache, added, position, steps)
        self._columns, self._is_padded = columns, not bool(mask.all())
        self._autocast = torch.is_autocast_enabled(mask.device.type)
        self._norms_heads = hasattr(self._model.model.layers[0].self_attn, "q_norm")
        self._rotations = _rotations(self._model.model, int(position.max()) + 1 + steps)

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """After one token a row, (rows,): shape (rows, vocabulary), in float32."""
        backbone = self._model.model
        self._columns += 1
        self._position = self._position + 1
        turn = self._rotations[self._position].chunk(2, -1)
        mask = self._mask[..., : self._columns] if self._is_padded else None
        hidden = backbone.embed_tokens(tokens[:, None])
        for block in backbone.layers:
            hidden = hidden + self._attend(block.self_attn, self._norm(block.input_layernorm, hidden), turn, mask)
            normed, mlp = self._norm(block.post_attention_layernorm, hidden), block.mlp
            hidden = hidden + mlp.down_proj(mlp.act_fn(mlp.gate_proj(normed)) * mlp.up_proj(normed))
        found: torch.Tensor = self._model.lm_head(self._norm(backbone.norm, hidden))
        return found[:, -1].float()

    def _attend(self, attention: Any, hidden: torch.Tensor, turn: Rotation, mask: torch.Tensor | None) -> torch.Tensor:
        rows, size = len(hidden), attention.head_dim
        queries = attention.q_proj(hidden).view(rows, -1, 1, size)
        keys = attention.k_proj(hidden).view(rows, -1, 1, size)
        if self._norms_heads:
            queries, keys = self._norm(attention.q_norm, queries), self._norm(attention.k_norm, keys)
        heads, both = queries.shape[1], torch.cat((queries, keys), 1)
        both = both * turn[0] + both.roll(size // 2, -1) * turn[1]
        values = attention.v_proj(hidden).view(rows, -1, 1, size)
        keys, values = self._cache.update(both[:, heads:], values, attention.layer_idx)
        mask = None if mask is None else mask.to(both.dtype)
        found, _ = sdpa_attention_forward(attention, both[:, :heads], keys, values, mask, scaling=attention.scaling)
        attended: torch.Tensor = attention.o_proj(found.reshape(rows, 1, -1))
        return attended

    def _norm(self, norm: Any, hidden: torch.Tensor) -> torch.Tensor:
        if not self._autocast and hidden.dtype == norm.weight.dtype == torch.float32:
            return rms_norm(hidden, hidden.shape[-1:], norm.weight, norm.variance_epsilon)
        found: torch.Tensor = norm(hidden)
        return found


def step_of(
    model: PreTrainedModel, cache: DynamicCache, mask: torch.Tensor, position: torch.Tensor, steps: int
) -> DecodeStep:
    """The cheapest way to decode at most `steps` tokens a row after those in the cache."""
    known = has_form_of_llama(model) and all(type(layer) is BlockLayer for layer in cache.layers)
    return (LlamaStep if known else DecodeStep)(model, cache, mask, position, steps)


def has_form_of_llama(model: PreTrainedModel) -> bool:
    """Whether `LlamaStep` does what the model's own parts would do."""
    bare = without_adapters(model)
    if type(bare) not in LLAMAS:
        return False
    skipped = [bare, bare.model, bare.model.norm]
    if len(bare.model.layers) != bare.config.num_hidden_layers:
        return False
    for block in bare.model.layers:
        skipped += [getattr(block.self_attn, name) for name in ("q_norm", "k_norm") if hasattr(block.self_attn, name)]
        skipped += [block, block.self_attn, block.mlp, block.input_layernorm, block.post_attention_layernorm]
    rotation = (bare.config.rope_parameters or {}).get("rope_type")
    return bare.config._attn_implementation == "sdpa" and rotation in PLAIN_TYPES and all(map(_is_plain, skipped))


def _is_plain(module: Any) -> bool:
    """Whether its forward is that of transformers, and nothing listens."""
    listens = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    return type(module).__module__.startswith("transformers.models.") and not listens


def _rotations(backbone: Any, positions: int) -> torch.Tensor:
    """Cosines, and sines with the sign that swapped halves get: (positions, 1, 2 * head)."""
    weight = backbone.norm.weight  # of the hidden states' type, which embeddings that are kept narrow are not
    cosines, sines = backbone.rotary_emb(weight, torch.arange(positions, device=weight.device)[None])
    half = sines.shape[-1] // 2
    return torch.cat((cosines, -sines[..., :half], sines[..., half:]), -1)[0][:, None]


def last_logits(
    model: PreTrainedModel, tokens: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: DynamicCache
) -> torch.Tensor:
    """Logits of the last position, shape (rows, vocabulary), in float32."""
    output = model(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return output.logits[:, -1].float()
