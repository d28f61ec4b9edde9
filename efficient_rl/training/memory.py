"""Measures seconds and peak memory of every phase of a run: resident memory on a CPU, the allocator's peak on a GPU."""

import ctypes
import gc
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

PROCESS = Path("/proc/self")


class PhaseMeter:
    """Counts phases that may nest; time and memory belong to the innermost one.

    Bytes are those above `baseline`, what the process held when the meter was made, so that a run's figure does not contain
    the libraries that every run shares.
    """

    def __init__(self, use_gpu: bool) -> None:
        self._use_gpu = use_gpu
        self._resettable = os.access(PROCESS / "clear_refs", os.W_OK)
        self._stack: list[str] = []
        _give_back_freed_memory()
        self._since = time.perf_counter()
        self._reset()
        self.baseline = self._peak()
        self.seconds: dict[str, float] = {}
        self.peak_bytes: dict[str, int] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Everything inside counts for `name`, except for phases inside it."""
        self.begin(name)
        try:
            yield
        finally:
            self.end()

    def begin(self, name: str) -> None:
        """Enter a phase."""
        self._close()
        self._stack.append(name)

    def end(self) -> None:
        """Leave the innermost phase."""
        self._close()
        self._stack.pop()

    def take_seconds(self) -> dict[str, float]:
        """Seconds by phase since the last call."""
        taken, self.seconds = self.seconds, {}
        return taken

    def _close(self) -> None:
        now = time.perf_counter()
        if self._stack:
            name = self._stack[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
            self.peak_bytes[name] = max(self.peak_bytes.get(name, 0), self._peak() - self.baseline)
        self._reset()
        self._since = now

    def _peak(self) -> int:
        if self._use_gpu:
            import torch

            return torch.cuda.max_memory_allocated()
        if self._resettable:
            match = re.search(r"VmHWM:\s+(\d+) kB", (PROCESS / "status").read_text())
            if match:
                return int(match.group(1)) * 1024
        return psutil.Process().memory_info().rss  # no peak on this system: what is held at the end of the phase

    def _reset(self) -> None:
        if self._use_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()
        elif self._resettable:
            (PROCESS / "clear_refs").write_text("5")  # 5 resets the peak resident size, see proc(5)


def _give_back_freed_memory() -> None:
    """Return what earlier work of this process freed to the system, or the baseline would hide as much of this run."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl does not
        if trim is not None:
            trim(0)
