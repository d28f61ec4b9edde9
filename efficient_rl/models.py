"""Loads a model and its tokenizer from the hub, a local folder, a GGUF file or the package."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efficient_rl.config.schema import ModelConfig
from efficient_rl.errors import ConfigError, first_line
from efficient_rl.files import made_once

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
CAUSAL_TOLERANCES = {4: 1e-5, 2: 3e-2}  # by the bytes of a number, relative to the largest logit


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
    installed and GPU and model have it, else sdpa, or eager for a model without. ConfigError for
    what is no causal language model, and for weights that are missing.
    """
    import torch
    from transformers import AutoModelForCausalLM

    load_config(config)
    dtype = torch.float32 if config.dtype == "auto" else getattr(torch, config.dtype)
    for attention in attentions(config):
        try:
            model = _load(AutoModelForCausalLM, config, dtype=dtype, attn_implementation=attention, output_loading_info=True)
            break
        except ConfigError:
            if attention == attentions(config)[-1]:
                raise
    model.generation_config.max_length = None
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    _check_causal(model, config.path)
    return model


def load_config(config: ModelConfig) -> Any:
    """The model's configuration; ConfigError where it is missing, or of an encoder and decoder."""
    from transformers import AutoConfig

    found = _load(AutoConfig, config)
    check_kind(found, config.path)
    return found


def check_kind(found: Any, path: str) -> None:
    """ConfigError for a configuration of an encoder and decoder, or that does not fit itself."""
    if getattr(found, "is_encoder_decoder", False):
        raise ConfigError(
            f"model.path={path} is an encoder with a decoder ({found.model_type}), and GRPO trains causal language "
            "models; use a model that only decodes"
        )
    text = found.get_text_config()
    if text.pad_token_id is not None and not 0 <= text.pad_token_id < text.vocab_size:
        raise ConfigError(
            f"pad_token_id={text.pad_token_id} in the configuration of model.path={path} is beyond its "
            f"vocab_size={text.vocab_size}; set it to a token that the model has, or to null"
        )


def attentions(config: ModelConfig) -> Sequence[str | None]:
    """The attention implementations to try, the fastest first; None is what the model has."""
    if config.attn_implementation != "auto":
        return (config.attn_implementation,)
    best = best_attention()
    return (None,) if best == "sdpa" else (best, None)


def best_attention() -> str:
    """The fastest attention implementation that this machine supports."""
    import torch
    from transformers.utils import is_flash_attn_2_available

    ampere = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    return "flash_attention_2" if ampere and is_flash_attn_2_available() else "sdpa"


def _check_causal(model: "PreTrainedModel", path: str) -> None:
    """ConfigError where a token changes what the model says before it, as in BERT."""
    import torch

    rows = len(model.get_input_embeddings().weight)
    ids = torch.arange(4, device=model.device).repeat(2, 1) % rows
    ids[1, -1] = rows - 1
    try:
        with torch.no_grad():
            one, other = model(input_ids=ids).logits[:, :-1].float()
    except Exception as error:
        raise ConfigError(
            f"{type(model).__name__} of model.path={path} fails on four tokens with this version of transformers: "
            f"{first_line(error)}; use another model"
        ) from error
    tolerance = CAUSAL_TOLERANCES[model.dtype.itemsize]
    if float((one - other).abs().max()) > tolerance * float(one.abs().max()):
        raise ConfigError(
            f"model.path={path} is no causal language model: in {type(model).__name__} a token changes what the model says "
            "before it; use a model that reads from left to right"
        )


def _load(kind: Any, config: ModelConfig, **arguments: Any) -> Any:
    try:
        if config.gguf_file is not None:
            return _converted(kind, config, config.gguf_file, arguments)
        return _complete(kind.from_pretrained(str(config.folder or config.path), **arguments), config.path)
    except (MemoryError, ConfigError):
        raise
    except Exception as error:  # whatever damaged files make the libraries raise
        raise ConfigError(f"cannot load model.path={config.path}: {first_line(error)} {_remedy(config)}") from error


def _complete(loaded: Any, path: str) -> Any:
    """What was loaded, without the report on it; ConfigError where that names missing weights."""
    if not isinstance(loaded, tuple):
        return loaded
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ConfigError(
            f"model.path={path} lacks {len(missing)} tensors of its {type(model).__name__}, such as {missing[0]}, "
            "which would start at random; give a folder with all weights"
        )
    return model


def _converted(kind: Any, config: ModelConfig, name: str, arguments: Mapping[str, Any]) -> Any:
    """What a GGUF file holds of that kind, from the folder that it was converted to.

    A conversion takes most of a minute, so the hub's cache keeps it: for a file's content, a
    version of transformers and a dtype.
    """
    import transformers
    from huggingface_hub.constants import HF_HOME
    from safetensors import SafetensorError
    from transformers.utils import cached_file

    source = str(config.folder or config.path)
    path = Path(str(cached_file(source, name)))
    digest = _digest(path, path.stat().st_mtime_ns, path.stat().st_size)
    dtype = str(arguments.get("dtype", "")).removeprefix("torch.")
    parts = (path.stem, digest, transformers.__version__, kind.__name__, dtype)
    folder = Path(HF_HOME, "efficient_rl", "-".join(filter(None, parts)))

    def convert() -> Any:
        return _plain(_complete(kind.from_pretrained(source, gguf_file=name, **arguments), config.path))

    try:
        made_once(folder, lambda draft: convert().save_pretrained(draft))
    except (OSError, SafetensorError) as error:
        logger.warning("cannot keep %s as converted, which every run repeats: %s", name, first_line(error))
        return convert()
    found = _complete(kind.from_pretrained(str(folder), **arguments), config.path)
    for named in (found, getattr(found, "config", found)):
        named.name_or_path = source  # adapters are saved with it, and must outlive the cache
    return found


@cache
def _digest(path: Path, modified: int, size: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def _plain(found: Any) -> Any:
    """A model from a GGUF file whose weights are plain tensors, to be saved as such."""
    if getattr(found, "hf_quantizer", None) is not None:
        del found.config.quantization_config
        found.hf_quantizer = None
        found.is_quantized = False
    return found


def _remedy(config: ModelConfig) -> str:
    if config.folder is not None:
        return "It must be a folder that save_pretrained wrote, of an architecture that transformers knows."
    return (
        "Without a network, download the model elsewhere and give its folder as model.path=<folder>; "
        "for a gated one accept its licence and run `hf auth login` first."
    )
