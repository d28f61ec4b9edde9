"""A GGUF file is converted once; every load gives the weights and tokens that transformers reads."""

import logging
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from efficient_rl.config.schema import ModelConfig
from efficient_rl.errors import ConfigError
from efficient_rl.models import load_model, load_tokenizer

HIDDEN, INNER, BLOCKS, HEADS = 32, 64, 2, 2
LETTERS = "0123456789+=abcdefgh"
TOKENS = ["<s>", "</s>", *LETTERS, "12", "ab", "abc"]
MERGES = ["1 2", "a b", "ab c"]
TEXT = "12+3=abc1212a"


def write_gguf(path: Path, seed: int = 0, left_out: str = "") -> ModelConfig:
    """A small Llama, half of its weights in 16 bits, with a tokenizer of bytes."""
    writer, random = gguf.GGUFWriter(path, "llama"), np.random.default_rng(seed)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(BLOCKS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_merges(MERGES)
    writer.add_token_types([gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL] * (len(TOKENS) - 2))
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (len(TOKENS), HIDDEN), "output_norm.weight": (HIDDEN,)}
    for block in range(BLOCKS):
        shapes |= {f"blk.{block}.attn_{name}.weight": (HIDDEN, HIDDEN) for name in ("q", "k", "v", "output")}
        shapes |= {f"blk.{block}.ffn_{name}.weight": (INNER, HIDDEN) for name in ("gate", "up")}
        shapes |= {f"blk.{block}.ffn_down.weight": (HIDDEN, INNER)}
        shapes |= {f"blk.{block}.{name}_norm.weight": (HIDDEN,) for name in ("attn", "ffn")}
    for name, shape in shapes.items():
        kind = np.float16 if "ffn_gate" in name else np.float32
        if name != left_out:
            writer.add_tensor(name, random.normal(size=shape, scale=0.1).astype(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return ModelConfig("tiny", str(path.parent), "plain", "auto", "auto", gguf_file=path.name)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "efficient_rl"


def contents(cache: Path) -> dict[Path, int]:
    """Every file of the cache, and when it was written."""
    return {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_second_load_reads_the_same_weights_and_tokens_from_the_cache(tmp_path: Path, cache: Path, dtype: str) -> None:
    config = write_gguf(tmp_path / "tiny.gguf")
    config = ModelConfig(**{**vars(config), "dtype": dtype})
    stock = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=getattr(torch, dtype))
    tokens = AutoTokenizer.from_pretrained(tmp_path, gguf_file="tiny.gguf")(TEXT)["input_ids"]
    load_tokenizer(config), load_model(config)
    before = contents(cache)
    tokenizer, model = load_tokenizer(config), load_model(config)
    assert contents(cache) == before
    assert {path.suffix for path in before} >= {".safetensors", ".json"}
    assert tokenizer(TEXT)["input_ids"] == tokens
    assert len(tokens) < len(TEXT)
    own = model.state_dict()
    assert own.keys() == stock.state_dict().keys()
    for name, tensor in stock.state_dict().items():
        assert torch.equal(own[name], tensor), name
    assert model.dtype == getattr(torch, dtype)
    assert not hasattr(model.config, "quantization_config")
    assert model.name_or_path == model.config.name_or_path == str(tmp_path), "adapters name their base so, not a cache"


def test_every_data_type_is_converted_by_itself(tmp_path: Path, cache: Path) -> None:
    config = write_gguf(tmp_path / "tiny.gguf")
    for dtype in ("float32", "bfloat16"):
        assert load_model(ModelConfig(**{**vars(config), "dtype": dtype})).dtype == getattr(torch, dtype)
    assert len({path.parent for path in cache.rglob("*.safetensors")}) == 2


def test_another_file_under_the_same_name_is_another_model(tmp_path: Path, cache: Path) -> None:
    first = load_model(write_gguf(tmp_path / "tiny.gguf", seed=0)).lm_head.weight
    second = load_model(write_gguf(tmp_path / "tiny.gguf", seed=1)).lm_head.weight
    assert not torch.equal(first, second)
    assert torch.equal(load_model(write_gguf(tmp_path / "tiny.gguf", seed=0)).lm_head.weight, first)


def test_without_a_cache_to_write_to_the_file_itself_is_loaded(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = write_gguf(tmp_path / "tiny.gguf")
    cache.parent.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        model = load_model(config)
    assert "cannot keep tiny.gguf as converted" in caplog.text
    assert len(model.lm_head.weight) == len(TOKENS)


def test_a_file_without_some_weights_is_refused_each_time(tmp_path: Path, cache: Path) -> None:
    config = write_gguf(tmp_path / "tiny.gguf", left_out="blk.1.ffn_down.weight")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"lacks 1 tensors .* such as model\.layers\.1\.mlp\.down_proj\.weight"):
            load_model(config)
