"""Small models with byte-level tokenizers: random ones of any shape, and chains whose answer is known."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast

ROLES = ("<|begin|>", "<|end|>")
HEADER = "<|begin|>assistant\n"
TEMPLATE = (
    "{% for message in messages %}<|begin|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
NEWLINE = "\u010a"  # as a byte-level vocabulary writes it


def byte_tokenizer(
    special: Sequence[str] = (),
    plain: Sequence[str] = (),
    end: str | None = "<eos>",
    pad: str | None = "<pad>",
    template: str | None = TEMPLATE,
) -> PreTrainedTokenizerFast:
    """One token a byte, the roles of a chat, and further tokens that are special or are not."""
    bytes_ = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE(vocab=bytes_, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(word, special=True) for word in (end, pad) if word])
    inner.add_tokens([AddedToken(word, normalized=False) for word in plain])
    inner.add_special_tokens([AddedToken(word, special=True) for word in (*ROLES, *special)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=end, pad_token=pad)
    tokenizer.chat_template = template
    return tokenizer


def llama(vocabulary: int, **sizes: Any) -> LlamaConfig:
    """A Llama of two small blocks."""
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"num_key_value_heads": 2, "vocab_size": vocabulary, "max_position_embeddings": 1024}
    return LlamaConfig(**(shape | sizes))


def saved(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Path:
    """The folder, with both in it."""
    for settings in (model.config.get_text_config(), model.generation_config):
        settings.eos_token_id, settings.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
        settings.bos_token_id = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def random_model(folder: Path, tokenizer: PreTrainedTokenizerFast, config: Any = None) -> Path:
    """A folder with a random model; a small Llama by default."""
    torch.manual_seed(0)
    return saved(folder, AutoModelForCausalLM.from_config(config or llama(len(tokenizer))), tokenizer)


def chain(folder: Path, tokenizer: PreTrainedTokenizerFast, words: Sequence[str], logit: float = 40.0) -> Path:
    """A folder with a Llama that writes words[1] after words[0], then words[2], and so on."""
    size = len(tokenizer) + len(tokenizer) % 2
    config = llama(
        len(tokenizer), hidden_size=size, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, tie_word_embeddings=False,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    ids = tokenizer.convert_tokens_to_ids(list(words))
    with torch.no_grad():
        for weight in model.model.layers.parameters():
            weight.mul_(0.01 if weight.dim() > 1 else 1)
        embedding.zero_()
        head.zero_()
        embedding[:, : len(tokenizer)].fill_diagonal_(1)
        for before, after in pairwise(ids):
            head[after, before] = logit / size**0.5
    return saved(folder, model, tokenizer)
