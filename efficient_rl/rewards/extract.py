"""Finds the answer in a completion: in the last tags or box, on a line, after the hashes."""

import re
from collections.abc import Callable

BOX = re.compile(r"\\boxed\s*(?P<box>\{)|\\[{}]|[{}]")
ANY_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?P<box>[{\d])|\\(?!\\(?:boxed|fbox)\s*[{\d]).|[{}]", re.DOTALL)
THINKING = "<think>", "</think>"
TAGS = "<answer>", "</answer>"
DEFAULT_PLACE = "tags_or_boxed"


def extract_answer(completion: str, place: str = DEFAULT_PLACE) -> str | None:
    """The answer's text, stripped, or None where there is none; an unclosed tag or box is none.

    Places: `tags`, the last pair of answer tags (DeepSeek-R1, TinyZero); `boxed`, the last complete
    LaTeX box, by where it starts; `tags_or_boxed`, the tags, or the last box inside them if there
    is one, or without tags the last box; `first_line`, the first line that is not empty (few-shot
    base models); `hash`, the rest of the line after the last `#### ` (GSM8K). Only what is not
    thought is searched (see `spoken`). ValueError for any other place.
    """
    try:
        find = FINDERS[place]
    except KeyError:
        raise ValueError(f"place={place!r} is unknown; use one of {', '.join(PLACES)}") from None
    found = find(spoken(completion))
    return None if found is None else found.strip()


def spoken(completion: str) -> str:
    """What a completion says after thinking: all that follows the last `</think>`.

    Of thinking that is never closed only answer tags count: they end it.
    """
    opening, closing = THINKING
    said, _, thought = completion.rpartition(closing)[2].partition(opening)
    start, end = thought.find(TAGS[0]), thought.rfind(TAGS[1])
    return said + thought[start : end + len(TAGS[1])] if 0 <= start < end else said


def _tagged(text: str) -> str | None:
    opening, closing = TAGS
    start = text.rfind(opening, 0, max(text.rfind(closing), 0))
    return text[start + len(opening) : text.find(closing, start)] if start >= 0 else None


def last_box(text: str, *, any_form: bool = False, last_only: bool = False) -> str | None:
    r"""What the last complete \boxed{...} holds, by where it starts, in one pass over all braces.

    `any_form` reads \fbox{...} and \boxed 5 too, which solutions in data sets contain. `last_only`:
    a last box that stays open is no answer, and hides those before it.
    """
    opened: list[tuple[int, bool]] = []
    newest, last = -1, (-1, -1)
    for mark in (ANY_BOX if any_form else BOX).finditer(text):
        box = mark["box"]
        if box == "{":
            newest = mark.end()
            opened.append((newest, True))
        elif box:
            newest = mark.end() - 1
            last = newest, mark.end()
        elif mark[0] == "{":
            opened.append((mark.end(), False))
        elif mark[0] == "}" and opened:
            start, boxed = opened.pop()
            if boxed and start > last[0]:
                last = start, mark.start()
    if last[0] < 0 or (last_only and last[0] < newest):
        return None
    return text[slice(*last)]


def _tagged_or_boxed(text: str) -> str | None:
    tagged = _tagged(text)
    boxed = last_box(text if tagged is None else tagged)
    return tagged if boxed is None else boxed


def _first_line(text: str) -> str | None:
    return text.lstrip().partition("\n")[0] or None


def _hashed(text: str) -> str | None:
    start = text.rfind("#### ")
    return text[start + len("#### ") :].partition("\n")[0] if start >= 0 else None


FINDERS: dict[str, Callable[[str], str | None]] = {
    "tags": _tagged,
    "boxed": last_box,
    "tags_or_boxed": _tagged_or_boxed,
    "first_line": _first_line,
    "hash": _hashed,
}
PLACES = tuple(FINDERS)
