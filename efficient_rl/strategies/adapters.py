"""Strategies that freeze the model and train low-rank adapters, through PEFT."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from efficient_rl.strategies.blocks import check_whole

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Lora:
    """LoRA (arXiv:2106.09685): W + (alpha / rank) B A with B = 0 at the start, on `target_modules` of every block.

    `target_modules` is PEFT's: `all-linear`, a list of module names, or a regular expression.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    target_modules: str | Sequence[str] = "all-linear"

    def __post_init__(self) -> None:
        check_whole("lora.rank", self.rank, low=1)
        if not self.alpha > 0:
            raise ValueError(f"lora.alpha={self.alpha!r} must be above 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout={self.dropout!r} must lie in 0 <= dropout < 1")
        if not isinstance(self.target_modules, str):
            if not self.target_modules or not all(isinstance(name, str) for name in self.target_modules):
                raise ValueError(f"lora.target_modules={list(self.target_modules)} must list names such as [q_proj, v_proj]")
            object.__setattr__(self, "target_modules", tuple(self.target_modules))

    def check_blocks(self, blocks: int) -> None:
        """Fits every number of blocks."""

    def apply(self, model: "PreTrainedModel") -> "PeftModel":
        """A PEFT model around the frozen one; only the adapters train. Raises ValueError for unknown target modules."""
        from peft import LoraConfig, get_peft_model

        targets = self.target_modules if isinstance(self.target_modules, str) else list(self.target_modules)
        return get_peft_model(
            model,
            LoraConfig(
                r=self.rank,
                lora_alpha=self.alpha,
                lora_dropout=self.dropout,
                target_modules=targets,
                task_type="CAUSAL_LM",
            ),
        )

    def schedule(self, model: "PreTrainedModel") -> None:
        """Nothing changes during training."""
