"""Notes what was sent where: of a run in its directory, of a sweep's parent run in the sweep's."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from efficient_rl.files import write_atomic
from efficient_rl.rundir.result import MISSING
from efficient_rl.tracking.client import database_path

RUNNING = "RUNNING"


@dataclass
class Cursor:
    """How far a run directory has been sent to one experiment."""

    run_id: str
    offset: int = 0
    attempt: int = 0
    status: str = RUNNING
    store: str = ""  # which database file it was, so that a new one under the same name is seen


@dataclass
class ParentNote:
    """The parent run of a sweep, its experiment and the status that it was given last."""

    experiment: str
    run_id: str
    status: str = RUNNING
    store: str = ""


Note = TypeVar("Note", Cursor, ParentNote)


def key_of(uri: str) -> str:
    """Names a store in the names of files."""
    return hashlib.sha256(uri.encode()).hexdigest()[:8]


def read_note(kind: type[Note], path: Path, uri: str) -> Note | None:
    """The note of this store; None where there is none, or where its database was replaced."""
    try:
        note = kind(**json.loads(path.read_text()))
    except (*MISSING, ValueError, TypeError):
        return None
    return note if note.store == store_identity(uri) else None


def write_note(note: Cursor | ParentNote, path: Path) -> None:
    """Replace the note."""
    write_atomic(path, json.dumps(asdict(note)))


def store_identity(uri: str) -> str:
    """Tells a local database from another in its place; "" for a server, and without one."""
    database = database_path(uri)
    return str(database.stat().st_ino) if database is not None and database.exists() else ""
