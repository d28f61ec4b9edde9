"""Registers the commands that control a sweep, so that other commands can name or stop them."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from efficient_rl.rundir.process import Owner, this_process


@dataclass(frozen=True)
class ActiveController:
    """A sweep command. `here`: alive on this machine; liveness elsewhere is unknown."""

    path: Path
    host: str
    pid: int
    here: bool

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def stop(self, seconds: float) -> bool:
        """Stop it as Ctrl-C does; whether it has left the sweep within `seconds`."""
        try:
            os.kill(self.pid, signal.SIGTERM)
        except (ProcessLookupError, PermissionError):
            return not self.path.exists()
        deadline = time.monotonic() + seconds
        while self.path.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        return not self.path.exists()


@contextmanager
def registered(folder: Path) -> Iterator[None]:
    """Register this process in the folder of the sweep while it controls the sweep."""
    me = this_process()
    path = folder / "watchers" / f"{me.host}-{me.pid}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(me.to_json())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def active_controllers(folder: Path) -> tuple[ActiveController, ...]:
    """The commands that control the sweep; dead ones of this machine are removed."""
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
            found.append(ActiveController(path, owner.host, owner.pid, owner.is_here))
    return tuple(found)
