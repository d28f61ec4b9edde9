"""Decodes completions to the text that rewards and checkers read."""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from efficient_rl.rewards.format import TAGS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARKS = (*TAGS, r"\boxed", r"\fbox", "####")  # of answers, whatever the rewards are


class CompletionDecoder:
    """Token ids of completions as text.

    Tokens that end or pad a completion are dropped, and so are special tokens, except those that
    answers are marked with (`MARKS`) and those that `code`, the rewards' own, names. A tokenizer
    has its tags as special tokens where they were added so for supervised training.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", end_ids: Iterable[int], code: str = "") -> None:
        special = special_ids(tokenizer)
        control = {*_named_ids(tokenizer), *end_ids}
        written = _bare(code)
        kept = set[int]()
        for index in special | control:
            token = _bare(tokenizer.convert_ids_to_tokens(index) or "")
            is_mark = any(_bare(mark) in token for mark in MARKS)
            if is_mark or (index not in control and token and token in written):
                kept.add(index)
        self._decode = tokenizer.batch_decode
        self._dropped = (special | control) - kept
        self._keeps = bool(kept)

    @property
    def rule(self) -> tuple[list[int], bool]:
        """What decides the text of a completion: the tokens it drops, whether special ones stay."""
        return sorted(self._dropped), self._keeps

    def __call__(self, completions: Iterable[Sequence[int]]) -> list[str]:
        """The text of each completion."""
        rows = [[index for index in ids if index not in self._dropped] for ids in completions]
        return list(self._decode(rows, skip_special_tokens=not self._keeps))

    @contextmanager
    def replacing(self, processor: Any) -> Iterator[None]:
        """Inside, the processor's own `batch_decode` without special tokens decodes so."""
        whole = processor.batch_decode

        def decode(rows: Any, skip_special_tokens: bool = False, **settings: Any) -> Any:
            return self(rows) if skip_special_tokens else whole(rows, **settings)

        with patch.object(processor, "batch_decode", decode):
            yield


def code_of(functions: Iterable[Any]) -> str:
    """The settings of reward functions, and the source of the modules that they are written in."""
    texts = []
    for function in functions:
        while isinstance(function, partial):
            function = function.func
        written = getattr(function, "original", function)
        texts += [repr(function), _source(written)]
    return "\n".join(texts)


def _source(function: Any) -> str:
    owner = function if inspect.isroutine(function) or inspect.isclass(function) else type(function)
    try:
        return inspect.getsource(inspect.getmodule(owner) or owner)
    except (OSError, TypeError):  # typed in at a prompt
        return repr(getattr(getattr(function, "__code__", None), "co_consts", ""))


def special_ids(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """The tokens that stand for no text."""
    added = tokenizer.added_tokens_decoder
    return set(tokenizer.all_special_ids) | {index for index, token in added.items() if token.special}


def _named_ids(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """The tokens with a role of their own: end, padding, beginning, unknown."""
    found = {tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id}
    return {index for index in found if isinstance(index, int)}


def _bare(text: str) -> str:
    """The text without what regular expressions and byte-level vocabularies add to it."""
    return text.replace("\\", "").strip()
