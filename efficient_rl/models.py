"""Loads a model and its tokenizer from the hub, a local folder, a GGUF file or the package, and writes its prompts."""

from typing import TYPE_CHECKING, Any

from efficient_rl.compose import ConfigError
from efficient_rl.config import ModelConfig
from efficient_rl.tasks.problem import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

INSTRUCTION = (
    "Show your work in <think> </think> tags and return the final answer in <answer> </answer> tags, "
    "for example <answer> (1 + 2) / 3 </answer>."
)


def load_tokenizer(config: ModelConfig) -> "PreTrainedTokenizerBase":
    """The tokenizer, padding on the left; ConfigError where it, or the chat template the prompt needs, is missing."""
    from transformers import AutoTokenizer

    tokenizer = _load(AutoTokenizer, config)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    if config.prompt == "chat" and not tokenizer.chat_template:
        raise ConfigError(
            f"the tokenizer of {config.path} has no chat template, which model.prompt=chat needs; "
            "use model.prompt=plain, or the instruction-tuned version of the model"
        )
    return tokenizer


def load_model(config: ModelConfig) -> "PreTrainedModel":
    """The causal language model on the best device of this machine.

    `dtype=auto` keeps the weights in float32, since GRPO's small steps vanish in bfloat16; on a GPU training then runs under
    autocast. `attn_implementation=auto` takes flash attention where it is installed and the GPU has it, else sdpa.
    """
    import torch
    from transformers import AutoModelForCausalLM

    attention = best_attention() if config.attn_implementation == "auto" else config.attn_implementation
    dtype = torch.float32 if config.dtype == "auto" else getattr(torch, config.dtype)
    model = _load(AutoModelForCausalLM, config, dtype=dtype, attn_implementation=attention)
    model.generation_config.max_length = None
    if config.gguf_file is not None:
        del model.config.quantization_config  # the weights are plain tensors now, and shall be saved as such
        model.hf_quantizer = None
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
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConfigError(
            f"cannot load model.path={config.path}: {first} "
            "Without a network, download the model elsewhere and give its folder as model.path=<folder>; "
            "for a gated one accept its licence and run `hf auth login` first."
        ) from error


def stop_token_ids(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The tokens that end a completion: the generation configuration's and the tokenizer's."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return sorted({int(i) for i in [*ids, tokenizer.eos_token_id] if i is not None})


def write_prompt(problem: Problem, tokenizer: "PreTrainedTokenizerBase", config: ModelConfig) -> str:
    """The text that the model continues: bare symbols, a plain question, or the model's own chat template."""
    if config.prompt == "symbols":
        return problem.symbols
    question = f"{problem.question} {INSTRUCTION}"
    if config.prompt == "plain":
        return f"{question}\n"
    messages = [{"role": "user", "content": question}]
    if config.system_prompt:
        messages.insert(0, {"role": "system", "content": config.system_prompt})
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def encode_prompt(prompt: str, tokenizer: "PreTrainedTokenizerBase", config: ModelConfig) -> list[int]:
    """Token ids of a prompt; a chat template already wrote its special tokens. ConfigError for unknown characters."""
    ids: list[int] = tokenizer(prompt, add_special_tokens=config.prompt != "chat")["input_ids"]
    lost = {character for character in prompt if not character.isspace()} - set(tokenizer.decode(ids))
    if lost:
        raise ConfigError(
            f"{config.path} has no tokens for {''.join(sorted(lost))!r} in the prompt {prompt!r}; "
            "nano reads only its own notation: use model.prompt=symbols with task=countdown or task=arithmetic"
        )
    return ids
