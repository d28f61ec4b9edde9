"""Loads a model and its tokenizer from the hub, a local folder, a GGUF file or the package."""

from typing import TYPE_CHECKING, Any

from efficient_rl.config.schema import ModelConfig
from efficient_rl.errors import ConfigError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_tokenizer(config: ModelConfig) -> "PreTrainedTokenizerBase":
    """The tokenizer, padding on the left; ConfigError where it is missing."""
    from transformers import AutoTokenizer

    tokenizer = _load(AutoTokenizer, config)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def load_model(config: ModelConfig) -> "PreTrainedModel":
    """The causal language model on the best device of this machine.

    `dtype=auto` keeps the weights in float32, since GRPO's small steps vanish in bfloat16; on a GPU
    training then runs under autocast. `attn_implementation=auto` takes flash attention where it is
    installed and the GPU has it, else sdpa.
    """
    import torch
    from transformers import AutoModelForCausalLM

    attention = config.attn_implementation
    if attention == "auto":
        attention = best_attention()
    dtype = torch.float32 if config.dtype == "auto" else getattr(torch, config.dtype)
    model = _load(AutoModelForCausalLM, config, dtype=dtype, attn_implementation=attention)
    model.generation_config.max_length = None
    if config.gguf_file is not None:
        del model.config.quantization_config  # the weights are plain tensors now, and shall be saved as such
        model.hf_quantizer = None
        model.is_quantized = False
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def best_attention() -> str:
    """The fastest attention implementation that this machine supports."""
    import torch
    from transformers.utils import is_flash_attn_2_available

    ampere = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    return "flash_attention_2" if ampere and is_flash_attn_2_available() else "sdpa"


def _load(kind: Any, config: ModelConfig, **arguments: Any) -> Any:
    source = str(config.folder or config.path)
    if config.gguf_file is not None:
        arguments["gguf_file"] = config.gguf_file
    try:
        return kind.from_pretrained(source, **arguments)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot load model.path={config.path}: {first_line(error)} "
            "Without a network, download the model elsewhere and give its folder as model.path=<folder>; "
            "for a gated one accept its licence and run `hf auth login` first."
        ) from error
