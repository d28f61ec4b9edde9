"""The outer form of an answer: delimiters, decoration, names before an equals sign, items."""

import re

PAIRS = {"(": ")", "[": "]", "{": "}"}
CLOSERS = frozenset(PAIRS.values())
DECORATION = re.compile(r"\\(?:text|mathrm|mathbf|mathit|textbf|textit|textrm|mbox|boldsymbol|operatorname|boxed|fbox)\s*\{")
DELIMITERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("`", "`"))
ANNOUNCEMENT = re.compile(r"(?:so |therefore,? |thus,? )?(?:the )?(?:final )?answer(?: is)?\s*[:=]?\s+", re.IGNORECASE)
NAME = re.compile(
    r"(?:[A-Za-z](?:_(?:\w|\{\w{1,3}\}))?|\\[a-z]{2,7}|[A-Za-z]\((?:[A-Za-z](?:,\s*[A-Za-z])*)\)|[A-Za-z]{2,15}"
    r"(?: [A-Za-z]{1,15}){0,3})'?",
    re.ASCII,
)
TOKEN = re.compile(
    r"\\(?:begin|end)\b|\\[{}]|\\[A-Za-z]+|\\.|[()\[\]{},;]|\b(?:or|and)\b|\\|[^\\()\[\]{},;oa]+|.", re.DOTALL
)
MAX_LAYERS = 8


def unwrap(text: str) -> str:
    """The text without an announcement ("the answer is"), and delimiters around all of it."""
    for _ in range(MAX_LAYERS):
        inner = _without_layer(text.strip())
        if inner == text:
            break
        text = inner
    return text.strip()


def _without_layer(text: str) -> str:
    announced = ANNOUNCEMENT.match(text)
    if announced and announced.end() < len(text):
        return text[announced.end() :]
    text = text.removeprefix("\\displaystyle").strip()
    for opening, closing in DELIMITERS:
        inner = text[len(opening) : len(text) - len(closing)]
        enclosed = text.startswith(opening) and text.endswith(closing) and len(text) > len(opening) + len(closing)
        if enclosed and opening not in inner and not inner.endswith("\\"):
            return inner
    for layer in (DECORATION.match(text), re.match(r"\{", text)):
        if layer and closes_at(text, layer.end() - 1) == len(text) - 1:
            return text[layer.end() : -1]
    return text


def closes_at(text: str, opening: int) -> int:
    """Where the bracket at `opening` closes, counting its kind, not escaped ones; -1 if nowhere."""
    left, right = text[opening], PAIRS[text[opening]]
    depth = 0
    escaped = False
    for position in range(opening, len(text)):
        character = text[position]
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == left:
            depth += 1
        elif character == right:
            depth -= 1
            if depth == 0:
                return position
    return -1


def depth_of(text: str) -> int:
    """How deep the brackets of a text nest; a bracket of one kind may close another's."""
    deepest = depth = 0
    for character in text:
        if character in PAIRS:
            depth += 1
            deepest = max(deepest, depth)
        elif character in CLOSERS:
            depth -= 1
    return deepest


def split_items(text: str) -> list[str]:
    """The parts between commas, semicolons, `or`, `and` and \\cup outside all brackets."""
    items = [""]
    depth = 0
    for token in TOKEN.findall(text):
        if token in PAIRS or token in ("\\{", "\\begin"):
            depth += 1
        elif token in CLOSERS or token in ("\\}", "\\end"):
            depth -= 1
        if depth == 0 and token in (",", ";", "or", "and", "\\cup"):
            items.append("")
        else:
            items[-1] += token
    return [item.strip() for item in items if item.strip()]


def sides(text: str) -> list[str]:
    """The parts between equals signs, without a name in front of the first."""
    parts = [part.strip() for part in text.split("=")]
    return parts[1:] if len(parts) > 1 and is_name(parts[0]) else parts


def is_name(text: str) -> bool:
    """Whether a text can only name what follows its equals sign: a variable, f(x), a few words."""
    return NAME.fullmatch(unwrap(text)) is not None
