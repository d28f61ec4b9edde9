"""Reads from a tokenizer's file which characters it has no tokens for, without loading it."""

import json
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

BYTES = 256


@dataclass(frozen=True)
class Alphabet:
    """The bytes that a byte-level vocabulary can write, where it cannot write all."""

    known: frozenset[int]

    def unknown(self, text: str) -> str:
        """The characters of the text that the tokenizer loses, in order; spaces may be lost."""
        letters = set("".join(unicodedata.normalize("NFC", text).split()))
        return "".join(sorted(letter for letter in letters if not set(letter.encode()) <= self.known))


@lru_cache(maxsize=64)
def read_alphabet(folder: Path | None) -> Alphabet | None:
    """The alphabet of a folder's tokenizer; None where it writes everything, or that is unknown."""
    try:
        content: dict[str, Any] = json.loads(((folder or Path()) / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary, decoder = content["model"]["vocab"], content["decoder"] or {}
        if decoder.get("type") != "ByteLevel" or content["model"].get("type") != "BPE":
            return None
        known = frozenset(byte for byte, letter in enumerate(_letters()) if letter in vocabulary)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Alphabet(known) if len(known) < BYTES else None


def _letters() -> list[str]:
    """How byte-level vocabularies write every byte: printable ones as they are (GPT-2's table)."""
    letters, spare = [], BYTES
    for byte in range(BYTES):
        printable = 33 <= byte <= 126 or (161 <= byte <= 255 and byte != 173)
        letters.append(chr(byte if printable else spare))
        spare += not printable
    return letters
