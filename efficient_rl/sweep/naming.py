"""Names sweeps: what was asked for, readable, and a digest of it where that does not say all."""

import hashlib
import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from efficient_rl.errors import ConfigError
from efficient_rl.sweep.manifest import read_manifest

SHARED_KEYS = (
    *("launcher", "watch", "tracking", "search", "output", "dry_run", "force", "name", "sweep"),
    *("check_models", "checkpoint_steps", "checkpoint_minutes"),
)
LONGEST = 80  # characters
DIGEST = 8
PLAIN = re.compile(r"[A-Za-z0-9_.]+=[A-Za-z0-9_.,]+")  # in a name, its `=` and `,` become `-`


@dataclass(frozen=True)
class Asked:
    """What names a sweep: its file, and the overrides of its runs and the filters, as typed."""

    file: str | None
    words: tuple[str, ...]

    @classmethod
    def read(cls, texts: Sequence[str], file: str | None) -> "Asked":
        """From the overrides of a command line; `search=tpe` names a sweep, `search.trials` not."""
        filters = [text for text in texts if text.startswith("filter=")]
        others = [text for text in texts if text not in filters and _names_runs(text)]
        return cls(file, (*others, *filters))

    @property
    def name(self) -> str:
        """The readable name, with a digest where other words could read the same."""
        if len(self._readable) <= LONGEST and all(map(PLAIN.fullmatch, self.words)):
            return self._readable
        return self._with_digest("\n".join([self.file or "", *self.words]))

    @property
    def earlier_name(self) -> str:
        """What version 0.1 called it: `<` and `>` read the same there."""
        return self._readable if len(self._readable) <= LONGEST else self._with_digest(self._readable)

    @property
    def _readable(self) -> str:
        text = "_".join(filter(None, [self.file, *self.words]))
        text = re.sub(r"[^A-Za-z0-9_.,=-]+", "-", text).translate(str.maketrans(",=", "--"))
        return text.strip("-") or "default"

    def _with_digest(self, content: str) -> str:
        return f"{self._readable[: LONGEST - DIGEST - 1]}-{_digest(content)}"


def find_name(outputs: Path, asked: Asked, hashes: Collection[str]) -> str:
    """The name of a sweep of these runs: no other runs are listed under it.

    A sweep that version 0.1 made keeps its name. `hashes` are empty for a search, whose list grows.
    """
    if _is_of(outputs, asked) and not other_runs(outputs, asked.earlier_name, hashes):
        return asked.earlier_name
    if not other_runs(outputs, asked.name, hashes):
        return asked.name
    return f"{asked.name}-{_digest(' '.join(sorted(hashes)))}"


def check_name(outputs: Path, name: str, hashes: Collection[str]) -> None:
    """ConfigError if the name that was given is that of a sweep of other runs."""
    if others := other_runs(outputs, name, hashes):
        folder = outputs / "sweeps" / name
        raise ConfigError(
            f"name={name!r} is a sweep that lists {len(others)} runs which are not asked for here; "
            f"choose another name, or remove {folder}"
        )


def other_runs(outputs: Path, name: str, hashes: Collection[str]) -> set[str]:
    """The runs of another sweep under this name; none where one list continues the other."""
    listed = read_manifest(outputs, name)
    if listed is None:
        return set()
    known = set(map(attrgetter("hash"), listed.runs))
    return known.difference(hashes) if not known.issuperset(hashes) else set()


def _is_of(outputs: Path, asked: Asked) -> bool:
    """Whether the sweep under the earlier name was made by the same words."""
    name = asked.earlier_name
    for each in (name, f"{name}-tuning"):
        found = read_manifest(outputs, each)
        if found is not None and _asked_by(found.command) == asked.words:
            return True
    return False


def _asked_by(command: str) -> tuple[str, ...] | None:
    """The words of a command that was recorded; None where it is damaged."""
    try:
        texts = shlex.split(command)[3:]  # python -m efficient_rl.sweep
    except ValueError:
        return None
    if texts[:1] == ["-m"]:
        texts = texts[1:]
    if texts[:1] == ["--config-dir"]:
        texts = texts[2:]
    return Asked.read(texts, None).words


def _names_runs(text: str) -> bool:
    key = text.partition("=")[0].lstrip("+~")
    return key == "search" or key.split(".")[0] not in SHARED_KEYS


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST]
