"""Owns `sweep.json`, the list of a sweep's runs: reads, writes and validates it."""

import json
import logging
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from math import isfinite
from operator import attrgetter
from pathlib import Path
from typing import Any, Self

from filelock import FileLock

from efficient_rl.errors import ConfigError, did_you_mean
from efficient_rl.files import write_atomic

logger = logging.getLogger(__name__)
FILE = "sweep.json"
EXAMPLE = "python -m efficient_rl.sweep -m strategy=first_k,last_k,lora"


@dataclass(frozen=True)
class ListedRun:
    """A run of a sweep: the hash that names its directory, its label, and its flat parameters."""

    hash: str
    label: str
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Manifest:
    """The distinct runs of a sweep; `created`: Unix seconds, `detaches`: on a cluster."""

    name: str
    command: str
    question: str | None
    detaches: bool
    runs: tuple[ListedRun, ...]
    created: float = field(default_factory=time.time)

    def write(self, outputs: Path) -> None:
        """Write the file. Runs that it listed before stay in the list."""
        folder = outputs / "sweeps" / self.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "sweep.lock"):
                content = asdict(self._joined_to(read_manifest(outputs, self.name)))
                write_atomic(folder / FILE, json.dumps(content))
        except OSError as error:
            raise ConfigError(
                f"cannot write to output={outputs}: {error.strerror}; choose a folder you may write"
            ) from error

    def _joined_to(self, before: Self | None) -> Self:
        """The same with the other runs of the list before, and its command where that made all."""
        if before is None:
            return self
        hashes = set(map(attrgetter("hash"), self.runs))
        others = [run for run in before.runs if run.hash not in hashes]
        whole = len(before.runs) == len(others) + len(hashes) and bool(others)
        command, question = (before.command, before.question) if whole else (self.command, self.question)
        return replace(self, command=command, question=question, runs=(*self.runs, *others))


def read_manifest(outputs: Path, name: str) -> Manifest | None:
    """The manifest of the sweep; None where its file is missing or damaged."""
    try:
        raw = json.loads((outputs / "sweeps" / name / FILE).read_text(encoding="utf-8"))
        runs = {run.hash: run for run in map(_listed_run, raw["runs"])}
        command, question, created = raw["command"], raw.get("question"), raw["created"]
        _require(isinstance(command, str) and isinstance(question, str | None))
        _require(type(created) in (int, float) and isfinite(created))
        return Manifest(name, command, question, bool(raw.get("detaches")), (*runs.values(),), float(created))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None


def find_manifest(outputs: Path, name: str | None) -> Manifest:
    """The manifest of the named or the newest sweep; ConfigError lists the sweeps."""
    names = sweep_names(outputs)
    if not names:
        raise ConfigError(f"there is no sweep in {outputs / 'sweeps'}; make one with: {EXAMPLE}")
    if name is not None and name not in names:
        raise ConfigError(f"unknown sweep {name!r}; {did_you_mean(name, names)}")
    wanted = names if name is None else [name]
    found = list(filter(None, map(partial(read_manifest, outputs), wanted)))
    if not found:
        files = ", ".join(str(outputs / "sweeps" / each / FILE) for each in wanted)
        raise ConfigError(f"damaged: {files}; the command that made a sweep rewrites its file")
    return max(found, key=attrgetter("created", "name"))


def read_manifests(outputs: Path) -> Iterable[Manifest]:
    """Every manifest of an output folder that is not damaged."""
    return filter(None, map(partial(read_manifest, outputs), sweep_names(outputs)))


def sweep_names(outputs: Path) -> list[str]:
    """All sweeps of an output folder, damaged ones too."""
    return sorted(path.parent.name for path in outputs.glob(f"sweeps/*/{FILE}"))


def _listed_run(entry: Any) -> ListedRun:
    """One run of the file; ValueError, or what reading it raises, where it is damaged."""
    key, label, params = entry["hash"], entry.get("label", entry["hash"]), dict(entry["params"])
    _require(isinstance(key, str) and key.isalnum() and isinstance(label, str))
    _require(type(params.get("grpo.max_steps", 0)) is int)
    return ListedRun(key, label, params)


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError


def set_aside(folder: Path, hashes: Collection[str]) -> None:
    """Keep a list of other runs beside the one that a later stage of the same sweep will write."""
    listed = read_manifest(folder.parents[1], folder.name)
    others = set() if listed is None else set(map(attrgetter("hash"), listed.runs)).difference(hashes)
    if listed is not None and others:
        kept = folder / f"sweep-{int(listed.created)}.json"
        (folder / FILE).rename(kept)
        logger.warning("sweep %s named %d other runs before; that list is kept in %s", folder.name, len(others), kept)
