"""Seals a run's checkpoints with the digest of every file, and finds the newest intact one."""

import hashlib
import json
from pathlib import Path

from efficient_rl.files import write_atomic

SEAL = "complete.json"


def file_digests(folder: Path) -> dict[str, str]:
    """The BLAKE2b digest of every file below the folder, in hexadecimal, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): _digest(path) for path in files}


def seal(folder: Path, digests: dict[str, str]) -> None:
    """Mark the checkpoint as complete."""
    write_atomic(folder / SEAL, json.dumps(digests))


def newest_checkpoint(run: Path) -> Path | None:
    """The checkpoint of the highest step whose files match their seal."""
    folders = (run / "checkpoints").glob("**/checkpoint-*")
    return next(filter(_is_intact, sorted(folders, key=_step, reverse=True)), None)


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def _is_intact(folder: Path) -> bool:
    try:
        sealed = json.loads((folder / SEAL).read_text())
        return all(_digest(folder / name) == value for name, value in sealed.items())
    except (OSError, ValueError, AttributeError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()
