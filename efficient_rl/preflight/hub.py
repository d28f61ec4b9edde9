"""Says whether a model is on this machine: in a folder, or in the hub's cache."""

from efficient_rl.config.schema import ModelConfig

WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def is_here(model: ModelConfig) -> bool:
    """Whether the model can be loaded without a network."""
    return model.folder is not None or is_cached(model.path)


def is_cached(path: str) -> bool:
    """Whether the hub's cache has a configuration and weights, or their index."""
    from huggingface_hub import try_to_load_from_cache

    def has(name: str) -> bool:
        return isinstance(try_to_load_from_cache(path, name), str)

    try:
        return has("config.json") and any(has(name) or has(f"{name}.index.json") for name in WEIGHTS)
    except ValueError:  # no name that the hub could have
        return False
