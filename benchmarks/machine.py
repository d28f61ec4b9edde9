"""What the benchmarks share: the machine, the cost of a command, the file of results."""

import ctypes
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PR_SET_CHILD_SUBREAPER = 36  # of linux/prctl.h
LEFTOVER_SECONDS = 60.0  # how long processes may outlive the command that started them


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds until it ended, CPU seconds of it and all its descendants, and what it printed."""

    wall_seconds: float
    cpu_seconds: float
    output: str


def machine() -> dict[str, Any]:
    """Where the numbers come from: usable cores, Python version, operating system and architecture."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def write_result(path: Path, what: str, measured: dict[str, Any]) -> None:
    """Write a benchmark's JSON: what it measures, on which machine, and the numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"what": what.strip(), "machine": machine(), **measured}, indent=1) + "\n")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest of repeated measurements."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def spread_text(values: Mapping[str, float], digits: int) -> str:
    """`median (min..max)` for a table."""
    return f"{values['median']:.{digits}f} ({values['min']:.{digits}f}..{values['max']:.{digits}f})"


def cost_of(command: Sequence[str], cwd: Path) -> Cost:
    """Run a command; RuntimeError if it fails. Linux only: orphans, such as a fork server, are adopted and counted."""
    if sys.platform != "linux":
        raise RuntimeError(f"sys.platform={sys.platform!r} does not say what a command's descendants cost; use Linux")
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    cpu_before = _children_cpu_seconds()
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        started = time.monotonic()
        process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
        code = process.wait()
        wall_seconds = time.monotonic() - started
        _reap_orphans()
        output.seek(0)
        errors.seek(0)
        if code:
            raise RuntimeError(f"{list(command)} ended with status {code}: {output.read()[-1000:]}{errors.read()[-3000:]}")
        return Cost(wall_seconds, _children_cpu_seconds() - cpu_before, output.read())


def _children_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _reap_orphans() -> None:
    deadline = time.monotonic() + LEFTOVER_SECONDS
    while time.monotonic() < deadline:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            time.sleep(0.01)
    raise RuntimeError(f"processes of the command were still alive {LEFTOVER_SECONDS:.0f} s after it ended")
