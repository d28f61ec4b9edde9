"""Notes which sweep commands are at work on a sweep, so that another command can name them, or stop them."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from efficient_rl.rundir.process import Owner, this_process


@dataclass(frozen=True)
class Watcher:
    """A sweep command. `here`: it is a live process of this machine; of another machine's nobody can tell."""

    path: Path
    host: str
    pid: int
    here: bool

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def stop(self, seconds: float) -> bool:
        """Ask it to end as Ctrl-C does; whether it has let go of the sweep within so many seconds."""
        try:
            os.kill(self.pid, signal.SIGTERM)
        except (ProcessLookupError, PermissionError):
            return not self.path.exists()
        deadline = time.monotonic() + seconds
        while self.path.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        return not self.path.exists()


@contextmanager
def watching(folder: Path) -> Iterator[None]:
    """Note in the sweep's folder that this process works on the sweep."""
    me = this_process()
    path = folder / "watchers" / f"{me.host}-{me.pid}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(me.to_json())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def watchers(folder: Path) -> tuple[Watcher, ...]:
    """Who works on the sweep; the notes of commands of this machine that were killed are removed."""
    found = []
    for path in sorted(folder.glob("watchers/*.json")):
        try:
            owner = Owner.parse(path.read_text())
        except (OSError, UnicodeDecodeError):  # just being removed
            continue
        if owner is None:  # just being written
            continue
        if owner.is_here and not owner.is_alive():
            path.unlink(missing_ok=True)
        else:
            found.append(Watcher(path, owner.host, owner.pid, owner.is_here))
    return tuple(found)
