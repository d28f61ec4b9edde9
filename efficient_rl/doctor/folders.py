"""Checks the output folder: writing, renaming, locking, free space, the server's clock."""

import os
import shutil
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

from efficient_rl.doctor.finding import Finding, ok

CLOCK_SECONDS = 60.0


def check_room(outputs: Path, needed_bytes: int) -> list[Finding]:
    """Whether the folder's file system has room for checkpoints and models."""
    free = shutil.disk_usage(outputs).free
    what = (
        f"checkpoints and trained models take up to {needed_bytes / 2**30:.1f} GiB, {free / 2**30:.1f} are free in {outputs}"
    )
    if free >= needed_bytes:
        return [ok("room", what)]
    why = "a run whose disk is full fails (and resumes later, with room)"
    return [Finding("warning", "room", what, why, "output=<a folder with more room>, or fewer runs at a time")]


def check_folder(outputs: Path) -> list[Finding]:
    """Try in the folder what a run does in it."""
    remedy = "output=<a folder that you may write, with room, on a file system that locks>"
    try:
        outputs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=outputs) as name:
            problem = _try_out(Path(name))
    except OSError as error:
        what = f"output={outputs}: {error.strerror}"
        return [Finding("failure", "folder", what, "every run writes its results there", remedy)]
    findings = []
    if problem:
        why = "two processes could write one run"
        findings.append(Finding("failure", "folder", f"output={outputs}: {problem}", why, remedy))
    skew = _clock_skew(outputs)
    if abs(skew) > CLOCK_SECONDS:
        what = f"the file server's clock is {skew:+.0f} s off this machine's"
        why = "what wrote nothing for 15 minutes is taken for dead, by these clocks"
        findings.append(Finding("warning", "folder", what, why, "chronyc makestep, or tell the administrators"))
    return findings or [ok("folder", f"{outputs} can be written, renamed in and locked")]


def _try_out(folder: Path) -> str | None:
    """Write, rename, append, lock; what does not work, in words."""
    (folder / "draft").write_text("whole")
    (folder / "draft").rename(folder / "file")
    if (folder / "file").read_text() != "whole":
        return "a renamed file does not hold what was written"
    with (folder / "file").open("a") as stream:
        stream.write("!")
        os.fsync(stream.fileno())
    try:
        with FileLock(folder / "lock", timeout=5):
            try:
                with FileLock(folder / "lock", timeout=0):
                    return "a lock does not keep a second one out"
            except Timeout:
                return None
    except (Timeout, NotImplementedError, OSError) as error:
        return f"files cannot be locked ({error})"


def _clock_skew(folder: Path) -> float:
    """Seconds by which the folder's file system runs ahead of this machine."""
    with tempfile.NamedTemporaryFile(prefix=".doctor-", dir=folder) as probe:
        before = time.time()
        os.utime(probe.name)
        return os.stat(probe.name).st_mtime - before
