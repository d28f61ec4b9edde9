"""Formats a problem as a prompt: in the model's own format, or by a template of conf/prompt."""

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from efficient_rl.chat import ChatTemplate
from efficient_rl.config.schema import ModelConfig, PromptSettings
from efficient_rl.errors import ConfigError
from efficient_rl.fit import Bounds, check_fit, complete_tokenizer
from efficient_rl.tasks.problem import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

INSTRUCTION = (
    "Show your work in <think> </think> tags and return the final answer in <answer> </answer> tags, "
    "for example <answer> {} </answer>."
)
EXAMPLES = {"countdown": "(1 + 2) / 3", "number": "42", "math": "42", "choice": "B"}  # by what checks the answer
PLACEHOLDER = re.compile(r"\{(question|symbols|solution|examples|numbers|target)\}")


class Prompts:
    """Writes, encodes and bounds the prompts of one run.

    `examples` are solved problems for few-shot templates, as many as `settings.shots`. `prefill` is
    what every prompt already writes of the completion: what the chat template opens, such as
    `<think>`, with all that follows it, or else the settings' own.
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
        self._chat = self._chat_template() if self._is_chat else None
        self._examples = "".join(_filled(settings.example, example) for example in examples[: settings.shots])
        opening = self._chat.opening if self._chat else ""
        own = settings.prefill
        if own.strip() and opening.strip().endswith(own.strip()):
            own = ""  # it stands there already
        self._end = settings.lead + own
        self.prefill = opening + self._end if opening else own

    def _chat_template(self) -> ChatTemplate:
        model, settings = self._model, self._settings
        if not self._tokenizer.chat_template:
            raise ConfigError(
                f"the tokenizer of {model.path} has no chat template, which prompt={settings.name} with "
                f"model.prompt={model.prompt} needs; use model.prompt=plain, or the instruction-tuned version of the model"
            )
        return ChatTemplate(self._tokenizer, model.path, settings.system or model.system_prompt, settings.date)

    def write(self, problem: Problem) -> str:
        """The text of one problem, and what it already holds of the completion."""
        settings = self._settings
        if settings.template is None and self._model.prompt == "symbols":
            return problem.symbols
        text = _filled(settings.template or own_form(problem), problem, self._examples)
        if self._chat is not None:
            text = self._chat.render(text)
        elif settings.template is None:
            text += "\n"
        return text + self._end

    def encode(self, text: str) -> list[int]:
        """Token ids; ConfigError for characters without a token."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """As `encode`, of many texts at once in a tenth of the time.

        A chat template has already written its special tokens.
        """
        encoded: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=not self._is_chat)["input_ids"]
        for text, kept in zip(texts, self._tokenizer.batch_decode(encoded), strict=True):
            lost = _letters(text) - _letters(kept) if text != kept else None
            if lost:
                raise ConfigError(
                    f"{self._model.path} has no tokens for {''.join(sorted(lost))!r} in the prompt {text!r}; nano reads "
                    "only its own notation: use prompt=model with task=countdown or task=arithmetic, or another model"
                )
        return encoded

    def encoded(self, problem: Problem) -> list[int]:
        """Token ids of one problem's prompt."""
        return self.encode(self.write(problem))

    def rows(self, problems: Sequence[Problem]) -> list[dict[str, Any]]:
        """Training data: what the trainer, the curriculum and the rewards read, a row a problem."""
        texts = list(map(self.write, problems))
        rows = []
        for problem, text, ids in zip(problems, texts, self.encode_all(texts), strict=True):
            row: dict[str, Any] = {"prompt": text, "prompt_ids": ids, "place": self._settings.place, "prefill": self.prefill}
            row |= {"check": problem.check, "gold": json.dumps(problem.gold)}
            rows.append(row | {"difficulty": problem.difficulty, "source": problem.source})
        return rows

    def stop_ids(self, model: "PreTrainedModel") -> list[int]:
        """The tokens that end a completion: the model's, the tokenizer's, those with `stop`.

        A tokenizer without a token for the end or for padding is given one.
        """
        ids = end_ids(model, self._tokenizer)
        if self._settings.stop is not None:
            ends = {i for i in range(len(self._tokenizer)) if self._settings.stop in self._tokenizer.decode([i])}
            if not ends:
                raise ConfigError(
                    f"prompt.stop={self._settings.stop!r} is in no token of {self._model.path}, so nothing would stop; "
                    "use a shorter text such as '\\n', or null"
                )
            ids |= ends
        complete_tokenizer(self._tokenizer, self._model.path, sorted(ids), end_ids(model, self._tokenizer))
        return sorted(ids)

    def fitting_stop_ids(self, model: "PreTrainedModel", encoded: Sequence[list[int]], completion: int) -> list[int]:
        """As `stop_ids`; ConfigError where encoded prompts with completions exceed the model."""
        stop_ids = self.stop_ids(model)
        check_fit(Bounds.of(model, self._model.path), self._tokenizer, encoded, stop_ids, completion)
        return stop_ids


def _letters(text: str) -> set[str]:
    """The characters of a text but for spaces; different forms of one count as one."""
    return set("".join(unicodedata.normalize("NFKC", text).split()))


def own_form(problem: Problem) -> str:
    """The template of `prompt=model`: the question, and the request for tags with an example."""
    example = EXAMPLES.get(problem.check, "...")
    return "{question} " + INSTRUCTION.format(example)


def end_ids(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """The tokens that end any completion of the model."""
    configured = model.generation_config.eos_token_id
    ids = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])}
    return {int(index) for index in ids if index is not None}


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
