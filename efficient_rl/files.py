"""Writes files and folders whole or not at all. Imports nothing of ours."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

CONTENTS = ".contents.json"  # of a folder that was made whole: every file with its size


def write_atomic(path: Path, content: str | bytes, durable: bool = False) -> None:
    """Replace a file in one step: readers see the old content or the new, never a part.

    `durable` waits until the disk has it. The folder is made where it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    # Not mkstemp: its files are private to the user, a draft opened by name follows the umask.
    draft = path.with_name(f".{path.name}.{os.urandom(6).hex()}.draft")
    try:
        with draft.open("xb") as stream:
            stream.write(data)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, made by the first who needs it while the others wait.

    `make` fills a draft beside it, which takes its name when the disk has it; what a process that
    was killed left of one is removed. A folder that lacks a part of a file is made again.
    """
    if _is_whole(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}.draft")
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not _is_whole(folder):
            for left in (draft, folder):
                shutil.rmtree(left, ignore_errors=True)
            draft.mkdir()
            try:
                make(draft)
                write_atomic(draft / CONTENTS, json.dumps(_sizes(draft, flush=True)), durable=True)
                draft.rename(folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    return folder


def _is_whole(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / CONTENTS).read_text()).items() <= _sizes(folder).items())
    except (OSError, ValueError, AttributeError):
        return False


def _sizes(folder: Path, flush: bool = False) -> dict[str, int]:
    """The size of every file below the folder, by relative path; `flush`: the disk has them."""
    found = {}
    for path in filter(Path.is_file, folder.rglob("*")):
        found[str(path.relative_to(folder))] = path.stat().st_size
        if flush:
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    return found
