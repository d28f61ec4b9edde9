"""Renders messages by a model's chat template, and finds what it writes of the answer itself."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from efficient_rl.errors import ConfigError, first_line
from efficient_rl.rewards.format import TAGS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]
QUESTION, ANSWER, NEXT = "Is it so?", "\N{SECTION SIGN}", "And now?"


class ChatTemplate:
    """The chat template of the tokenizer of the model at `path`, on a `day` that never changes.

    `opening` is what it writes behind the assistant's header, such as `<think>`: the beginning of
    the completion. ConfigError where the tokenizer has no template, or where the template refuses
    or leaves out a message.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", path: str, system: str | None, day: str) -> None:
        self._tokenizer, self._path, self._day = tokenizer, path, date.fromisoformat(day)
        self._before = [_message("system", system)] if system else []
        self.opening = self._opening()

    def render(self, question: str) -> str:
        """The prompt that asks the question, up to where the model goes on."""
        messages = [*self._before, _message("user", question)]
        text = self._rendered(messages, add_generation_prompt=True)
        for message in messages:
            if "".join(message["content"].split()) not in "".join(text.split()):
                raise ConfigError(
                    f"the chat template of {self._path} leaves out the {message['role']} message; {_remedy(message['role'])}"
                )
        return text

    def _opening(self) -> str:
        """What follows the header of a new answer, and not that of an answer given before.

        A template may write a tag in front of both.
        """
        asked = [*self._before, _message("user", QUESTION)]
        new = self._rendered(asked, add_generation_prompt=True).rpartition(QUESTION)[2]
        given = [*asked, _message("assistant", ANSWER), _message("user", NEXT)]
        try:
            old = self._rendered(given).rpartition(QUESTION)[2]
        except ConfigError:  # of a template for one question only
            old = new
        header = _common(new, old)
        for tag in TAGS:
            if tag in new:
                header = min(header, new.index(tag))
        return new[header:] if new[header:].strip() else ""

    def _rendered(self, messages: Sequence[Message], **settings: Any) -> str:
        try:
            with _clock_at(self._day):
                return str(self._tokenizer.apply_chat_template(messages, tokenize=False, **settings))
        except Exception as error:  # whatever a template raises
            role = "system" if self._before and self._takes(messages[len(self._before) :], settings) else "user"
            raise ConfigError(
                f"the chat template of {self._path} refuses the {role} message: {first_line(error)}; {_remedy(role)}"
            ) from error

    def _takes(self, messages: Sequence[Message], settings: Any) -> bool:
        try:
            self._tokenizer.apply_chat_template(messages, tokenize=False, **settings)
        except Exception:  # noqa: BLE001
            return False
        return True


def _common(one: str, other: str) -> int:
    """How many characters both begin with."""
    differing = (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _remedy(role: str) -> str:
    if role == "system":
        return "use prompt.system=null and no model.system_prompt, or a prompt=... without one"
    return "use model.prompt=plain, or a prompt=... that is no chat"


@contextmanager
def _clock_at(day: date) -> Iterator[None]:
    """Inside, templates that ask for the time (`strftime_now`) get midnight of that day."""
    from transformers.utils import chat_template_utils

    class Pinned(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Pinned":
            return cls(day.year, day.month, day.day, tzinfo=tz)

    with patch.object(chat_template_utils, "datetime", Pinned):
        yield
