"""Maps names to those that MLflow takes, one to one: what it refuses becomes `:` + hex code + `:`.

It takes letters, digits and `/ _ . -`, colons and spaces, in at most 250 characters that are a
path of their own. `Counting & Probability` is `Counting :26: Probability`.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping

LONGEST = 250  # characters
DIGEST = 16
REFUSED = re.compile(
    r"[^/\w.\- ]"  # not in the alphabet, or the colon
    r"|^/|(?<=/)/|/$"  # an empty part of a path
    r"|^\.(?=\.)|(?:^|(?<=/))\.(?=\.?(?:/|$))"  # a part that is `.` or `..`, a name that begins with `..`
)
ESCAPED, LOOKS_ESCAPED = re.compile(r":([0-9a-f]+):"), re.compile(r":[0-9a-f]*:")
EMPTY, SHORTENED = "::", re.compile(rf"::([0-9a-f]{{{DIGEST}}})$")
TAG = "name."  # of a run, followed by a digest: the whole of a name that was shortened


def stored_name(name: str) -> str:
    """The name in the store: itself where MLflow takes it. A long one ends in a digest."""
    text = name
    if not name or REFUSED.search(name.replace(":", " ")) or LOOKS_ESCAPED.search(name):
        text = REFUSED.sub(lambda match: f":{ord(match[0]):x}:", name) or EMPTY
    if len(text) <= LONGEST:
        return text
    digest = hashlib.sha256(name.encode(errors="backslashreplace")).hexdigest()[:DIGEST]
    return f"{text[: LONGEST - DIGEST - 2]}::{digest}"


def name_tags(names: Iterable[str]) -> dict[str, str]:
    """The tags that keep those of the names that are shortened in the store."""
    tags = {}
    for name in names:
        if shortened := SHORTENED.search(stored_name(name)):
            tags[f"{TAG}{shortened[1]}"] = name
    return tags


def read_name(stored: str, tags: Mapping[str, str]) -> str:
    """The name that was stored so, in a run with these tags."""
    if stored == EMPTY:
        return ""
    if shortened := SHORTENED.search(stored):
        return tags.get(f"{TAG}{shortened[1]}", stored)
    return ESCAPED.sub(lambda match: chr(int(match[1], 16)), stored)
