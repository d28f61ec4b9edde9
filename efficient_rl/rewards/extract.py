"""Where in a completion the answer is: the last pair of answer tags, the last complete box, a line, or after the hashes."""

import re
from collections.abc import Callable

BRACES = re.compile(r"\\boxed\s*\{|\\[{}]|[{}]")
BOX = "\\boxed"
THINKING_ENDS = "</think>"


def extract_answer(completion: str, place: str = "tags_or_boxed") -> str | None:
    """The answer's text, stripped, or None where there is none; an unclosed tag or box is none.

    Places: `tags`, the last pair of answer tags (DeepSeek-R1, TinyZero); `boxed`, the last complete
    LaTeX box, by where it starts; `tags_or_boxed`, the tags, or the last box inside them if there
    is one, or without tags the last box; `first_line`, the first line that is not empty (few-shot
    base models); `hash`, the rest of the line after the last `#### ` (GSM8K). What follows the last
    `</think>` is searched first, all of the text only if no answer is there. ValueError for any
    other place.
    """
    try:
        find = FINDERS[place]
    except KeyError:
        raise ValueError(f"place={place!r} is unknown; use one of {', '.join(PLACES)}") from None
    after = completion.rfind(THINKING_ENDS)
    if after >= 0:
        found = find(completion[after + len(THINKING_ENDS) :])
        if found is not None:
            return found.strip()
    found = find(completion)
    return None if found is None else found.strip()


def _tagged(text: str) -> str | None:
    start = text.rfind("<answer>", 0, max(text.rfind("</answer>"), 0))
    return text[start + len("<answer>") : text.find("</answer>", start)] if start >= 0 else None


def _boxed(text: str) -> str | None:
    last = text.rfind(BOX)
    if last < 0:
        return None
    found = _last_complete_box(text[last:])
    return found if found is not None else _last_complete_box(text)


def _last_complete_box(text: str) -> str | None:
    """One pass over all braces: of the boxes that close, the one that starts last."""
    opened: list[tuple[int, bool]] = []
    last: tuple[int, int] | None = None
    for brace in BRACES.finditer(text):
        if brace[0].endswith("{") and brace[0] != "\\{":
            opened.append((brace.end(), brace[0] != "{"))
        elif brace[0] == "}" and opened:
            start, boxed = opened.pop()
            if boxed and (last is None or start > last[0]):
                last = (start, brace.start())
    return text[last[0] : last[1]] if last is not None else None


def _tagged_or_boxed(text: str) -> str | None:
    tagged = _tagged(text)
    if tagged is None:
        return _boxed(text)
    boxed = _boxed(tagged)
    return tagged if boxed is None else boxed


def _first_line(text: str) -> str | None:
    return text.lstrip().partition("\n")[0] or None


def _hashed(text: str) -> str | None:
    start = text.rfind("#### ")
    return text[start + len("#### ") :].partition("\n")[0] if start >= 0 else None


FINDERS: dict[str, Callable[[str], str | None]] = {
    "tags": _tagged,
    "boxed": _boxed,
    "tags_or_boxed": _tagged_or_boxed,
    "first_line": _first_line,
    "hash": _hashed,
}
PLACES = tuple(FINDERS)
