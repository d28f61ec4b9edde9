"""Small random models of three architectures, and a plain training loop in the order of the strategies' protocol."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedModel, Qwen2Config

from efficient_rl.models import load_model
from efficient_rl.strategies.protocol import Schedule, Strategy
from tests.conftest import tiny_run

BLOCKS = 4
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 50,
}
GPT2_SIZES = {"n_embd": 16, "n_layer": BLOCKS, "n_head": 2, "vocab_size": 50, "n_positions": 32}


def _made(config: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return model.eval()  # no dropout


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "qwen2-tied": lambda: _made(Qwen2Config(**SIZES, tie_word_embeddings=True)),
    "qwen2-untied": lambda: _made(Qwen2Config(**SIZES, tie_word_embeddings=False)),
    "llama-tied": lambda: _made(LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "llama-untied": lambda: _made(LlamaConfig(**SIZES, tie_word_embeddings=False)),
    "gpt2-tied": lambda: _made(GPT2Config(**GPT2_SIZES, tie_word_embeddings=True)),
    "gpt2-untied": lambda: _made(GPT2Config(**GPT2_SIZES, tie_word_embeddings=False)),
    "nano": lambda: load_model(tiny_run().model),
}


def trainable(model: PreTrainedModel) -> set[str]:
    """The names of what trains."""
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def backward(model: PreTrainedModel, step: int) -> None:
    """Gradients of a batch that follows from the step alone."""
    ids = torch.randint(0, 30, (2, 6), generator=torch.Generator().manual_seed(step))
    model(ids, labels=ids).loss.backward()


class Loop:
    """Training by a dynamic strategy, one `step` at a time."""

    def __init__(self, model: PreTrainedModel, strategy: Strategy, steps: int, seed: int = 0) -> None:
        self.model = strategy.apply(model)
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW([{"params": [p]} for p in self.parameters.values()], lr=1e-3)
        schedule = strategy.schedule(model, seed, steps)
        assert schedule is not None
        self.schedule: Schedule = schedule
        self.done = 0

    def step(self) -> set[str]:
        """One step; the names of what it updated."""
        self.schedule.begin_step(self.done)
        backward(self.model, self.done)
        self.schedule.see_gradients()
        active = set(self.schedule.active)
        factors = self.schedule.learning_rate_factors()
        for group, (name, parameter) in zip(self.optimizer.param_groups, self.parameters.items(), strict=True):
            if name not in active:
                parameter.grad = None
                self.optimizer.state.pop(parameter, None)
            group["lr"] = 1e-3 * factors.get(name, 1.0)
        before = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.optimizer.step()
        self.schedule.see_update()
        self.optimizer.zero_grad()
        self.done += 1
        assert {n for n, p in self.model.named_parameters() if not torch.equal(before[n], p)} <= active
        return active

    def rest(self, steps: int) -> Iterator[set[str]]:
        """All steps up to number `steps`."""
        while self.done < steps:
            yield self.step()

    def checkpoint(self) -> bytes:
        """Everything as bytes; the schedule's part holds nothing but tensors, numbers, strings and containers."""
        stream = io.BytesIO()
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "done": self.done}
        torch.save(state | {"schedule": self.schedule.state_dict()}, stream)
        return stream.getvalue()

    def resume(self, checkpoint: bytes) -> None:
        """Go on from a checkpoint."""
        state = torch.load(io.BytesIO(checkpoint), weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.done = state["done"]
