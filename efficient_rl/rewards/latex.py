"""The outer form of an answer: delimiters, decoration, brackets, items, sides of an equation."""

import re
from collections.abc import Container, Iterator

PAIRS = {"(": ")", "[": "]", "{": "}"}
CLOSERS = frozenset(PAIRS.values())
DECORATION = re.compile(
    r"\\(?:text|mathrm|mathbf|mathit|textbf|textit|textrm|mbox|boldsymbol|operatorname|boxed|fbox|underline)\s*\{"
)
DELIMITERS = (
    ("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("__", "__"), ("*", "*"), ("_", "_"),
    ("`", "`"),
)  # fmt: skip
ANNOUNCEMENT = re.compile(
    r"(?:so |therefore,? |thus,? )?(?:the |my |our )?(?:final |correct )?answer(?: is)?(?:\s*[:=]\s*|\s+)", re.IGNORECASE
)
TOKEN = re.compile(
    r"\\(?:begin|end)\b|\\[{}]|\\[A-Za-z]+|\\.|[()\[\]{},;=]|\b(?:or|and)\b|\\|[^\\()\[\]{},;=oa]+|.", re.DOTALL
)
DEEPER = {"(": 1, "[": 1, "{": 1, "\\{": 1, "\\begin": 1, ")": -1, "]": -1, "}": -1, "\\}": -1, "\\end": -1}
ITEM_MARKS = (",", ";", "or", "and", "\\cup")
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


def levels(text: str) -> Iterator[tuple[str, int]]:
    """The tokens of a text, each with the number of brackets that are open after it."""
    depth = 0
    for token in TOKEN.findall(text):
        depth += DEEPER.get(token, 0)
        yield token, depth


def split_outside(text: str, marks: Container[str]) -> list[str]:
    """The parts between the marks that stand outside all brackets; at least one."""
    parts = [""]
    for token, depth in levels(text):
        if depth == 0 and token in marks:
            parts.append("")
        else:
            parts[-1] += token
    return list(map(str.strip, parts))


def split_items(text: str) -> list[str]:
    """The parts between commas, semicolons, `or`, `and` and \\cup outside all brackets."""
    return list(filter(None, split_outside(text, ITEM_MARKS)))


def sides(text: str) -> list[str]:
    """The unwrapped parts between equals signs outside all brackets: of `P(X=2) = $1/4$` two."""
    return list(map(unwrap, split_outside(text, ("=",))))


def is_enclosed(text: str) -> bool:
    """Whether the bracket at the start closes at the end; `)` may close `[`, as in intervals."""
    *before, last = [depth for _, depth in levels(text)] or [0]
    return bool(before) and min(before) > 0 == last
