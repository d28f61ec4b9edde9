"""Writes files whole or not at all. Imports nothing of ours."""

import os
from pathlib import Path


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
