"""Formats a problem as a prompt: in the model's own format, or by a template of conf/prompt."""

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from efficient_rl.config.schema import ModelConfig, PromptSettings
from efficient_rl.errors import ConfigError
from efficient_rl.tasks.problem import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

INSTRUCTION = (
    "Show your work in <think> </think> tags and return the final answer in <answer> </answer> tags, "
    "for example <answer> (1 + 2) / 3 </answer>."
)
PLACEHOLDER = re.compile(r"\{(question|symbols|solution|examples|numbers|target)\}")


class Prompts:
    """Writes, encodes and bounds the prompts of one run.

    `examples` are solved problems for few-shot templates, as many as `settings.shots`.
    """

    def __init__(
        self,
        model: ModelConfig,
        settings: PromptSettings,
        tokenizer: "PreTrainedTokenizerBase",
        examples: Sequence[Problem] = (),
    ) -> None:
        self._model, self._settings, self._tokenizer = model, settings, tokenizer
        self._is_chat = settings.chat
        if settings.template is None:
            self._is_chat = model.prompt == "chat"
        if self._is_chat and not tokenizer.chat_template:
            raise ConfigError(
                f"the tokenizer of {model.path} has no chat template, which prompt={settings.name} with "
                f"model.prompt={model.prompt} needs; use model.prompt=plain, or the instruction-tuned version of the model"
            )
        self._examples = "".join(_filled(settings.example, example) for example in examples[: settings.shots])

    def write(self, problem: Problem) -> str:
        """The text of one problem, and what the template writes of the completion."""
        settings = self._settings
        if settings.template is None and self._model.prompt == "symbols":
            return problem.symbols
        own = "{question} " + INSTRUCTION
        text = _filled(settings.template or own, problem, self._examples)
        if not settings.template and not self._is_chat:
            text += "\n"
        if self._is_chat:
            messages = [{"role": "user", "content": text}]
            if system := settings.system or self._model.system_prompt:
                messages.insert(0, {"role": "system", "content": system})
            text = str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        return text + settings.lead + settings.prefill

    def encode(self, text: str) -> list[int]:
        """Token ids; ConfigError for characters without a token.

        A chat template has already written its special tokens.
        """
        ids: list[int] = self._tokenizer(text, add_special_tokens=not self._is_chat)["input_ids"]
        kept = unicodedata.normalize("NFKC", self._tokenizer.decode(ids))
        wanted = "".join(unicodedata.normalize("NFKC", text).split())
        if lost := set(wanted) - set(kept):
            raise ConfigError(
                f"{self._model.path} has no tokens for {''.join(sorted(lost))!r} in the prompt {text!r}; nano reads only "
                "its own notation: use prompt=model with task=countdown or task=arithmetic, or another model"
            )
        return ids

    def row(self, problem: Problem) -> dict[str, Any]:
        """One row of training data: what the trainer, the curriculum and the rewards read."""
        text = self.write(problem)
        return {
            "prompt": text,
            "prompt_ids": self.encode(text),
            "difficulty": problem.difficulty,
            "source": problem.source,
            "check": problem.check,
            "gold": json.dumps(problem.gold),
            "place": self._settings.place,
            "prefill": self._settings.prefill,
        }

    def stop_ids(self, model: "PreTrainedModel") -> list[int]:
        """The tokens that end a completion: the model's, the tokenizer's, those with `stop`."""
        configured = model.generation_config.eos_token_id
        ids = {self._tokenizer.eos_token_id}
        ids.update(configured if isinstance(configured, list) else [configured])
        if self._settings.stop is not None:
            ends = {i for i in range(len(self._tokenizer)) if self._settings.stop in self._tokenizer.decode([i])}
            if not ends:
                raise ConfigError(
                    f"prompt.stop={self._settings.stop!r} is in no token of {self._model.path}, so nothing would stop; "
                    "use a shorter text such as '\\n', or null"
                )
            ids |= ends
        return sorted(map(int, ids - {None}))


def _filled(template: str, problem: Problem, examples: str = "") -> str:
    """The template with its placeholders replaced once; braces in a problem's text stay."""
    values = {
        "question": problem.question,
        "symbols": problem.symbols,
        "solution": problem.solution,
        "examples": examples,
        "numbers": str(problem.gold.get("numbers", "")),
        "target": str(problem.gold.get("target", "")),
    }
    for name in set(PLACEHOLDER.findall(template)):
        if not values[name] and name != "examples":
            raise ConfigError(f"the prompt's template needs {{{name}}}, which problems of {problem.source} do not have")
    return PLACEHOLDER.sub(lambda match: values[match[1]], template)
