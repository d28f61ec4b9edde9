"""The trainer of a configured run: silent, and reproducible in any number of processes."""

from typing import Any

import torch
from transformers import PrinterCallback

from efficient_rl.training.generation import check_generates
from efficient_rl.training.grpo import EfficientGRPOTrainer


class RunTrainer(EfficientGRPOTrainer):
    """Prints no log lines and writes no model cards: `RunLogger` and the report replace them."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.remove_callback(PrinterCallback)

    def stop_at(self, stop_ids: list[int]) -> None:
        """Let these tokens end completions; ConfigError where the model cannot write any."""
        with self.accelerator.autocast():
            check_generates(self._bare, stop_ids, self._tokenizer.pad_token_id)
        self.eos_token_ids = self.generation_config.eos_token_id = stop_ids

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No model card beside every checkpoint."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """All randomness from here to the next generation follows from seed and step.

        So a resumed run repeats it, where a script relies on the saved states of the generators,
        which are those of as many processes.
        """
        if self.model.training:
            torch.manual_seed(self.draws.seed(self.state.global_step))
        return super()._generate_and_score_completions(inputs)

    def _save_rng_state(self, output_dir: str) -> None:
        """By one process, since none of them needs it."""
        if self.args.should_save:
            super()._save_rng_state(output_dir)
