"""Measures seconds and bytes of training by phase: tensors on a CPU, allocator peaks on a GPU."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import methodcaller
from typing import Any

import torch
from torch._C._autograd import _disable_profiler, _enable_profiler, _prepare_profiler
from torch._C._profiler import ProfilerActivity, ProfilerConfig, ProfilerState, RecordScope, _ExperimentalConfig
from torch.autograd.profiler import record_function

from efficient_rl.training.sharding import local

MARK = "efficient_rl.phase:"
FIRST_STEPS, EVERY = 2, 17  # a prime, so that no method's own interval hides between two measurements
GROWTH = 1.1  # beyond what was measured, after which a step is measured too


class PhaseMeter:
    """Counts phases that may nest; seconds and bytes belong to the innermost one.

    Seconds are counted always. Bytes are those of whole steps: on a GPU of all, on a CPU of the
    first two, every 17th, and those that are larger than any measured before (a profiler counts
    every allocation, which costs a quarter of such a step). The peak of a phase is all that tensors
    held in it: what was there before the step, and what was allocated since.
    """

    def __init__(self, count_bytes: bool = True) -> None:
        self._count_bytes = count_bytes
        self._stack: list[str] = []
        self._since = time.perf_counter()
        self._probe: _CpuProbe | _GpuProbe | None = None
        self.seconds: dict[str, float] = {}
        self._step_bytes: dict[str, int] = {}
        self._largest: list[float] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Everything inside counts for `name`, except for phases inside it."""
        self.begin(name)
        try:
            yield
        finally:
            self.end()

    def begin(self, name: str) -> None:
        self._close()
        self._stack.append(name)
        self._mark()

    def end(self) -> None:
        self._close()
        self._stack.pop()
        self._mark()

    def take_seconds(self) -> dict[str, float]:
        """Seconds by phase since the last call."""
        taken, self.seconds = self.seconds, {}
        return taken

    def start_step(self, step: int, held_bytes: Callable[[], int], sizes: Sequence[float] = ()) -> None:
        """Begin a step; `held_bytes`: held before it (weights, optimizer state, copies).

        `sizes` are numbers that memory grows with, such as how much trains.
        """
        self.abandon_step()
        self._step_bytes = {}
        if self._count_bytes and torch.cuda.is_available():
            self._probe = _GpuProbe()
        elif self._count_bytes and not torch._C._autograd._profiler_enabled():
            largest = self._largest or [0.0] * len(sizes)
            grown = any(size > GROWTH * most for size, most in zip(sizes, largest, strict=True))
            if step < FIRST_STEPS or step % EVERY == 0 or grown:
                self._largest = list(map(max, sizes, largest))
                self._probe = _CpuProbe(held_bytes())

    def abandon_step(self) -> None:
        """The step will not end: training was cut off in it."""
        if self._probe is not None:
            self._probe.close()
            self._probe = None

    def end_step(self) -> None:
        """The step is over: its bytes are known."""
        if self._probe is not None:
            self._step_bytes |= self._probe.close()
            self._probe = None

    @property
    def measuring(self) -> bool:
        """Whether the bytes of this step are being counted."""
        return self._probe is not None

    def note(self, name: str, count: Callable[[], int]) -> None:
        """Record bytes that the caller counts (gradients, ...), if this step is measured."""
        if self.measuring:
            self._step_bytes[name] = count()

    def take_bytes(self) -> dict[str, int]:
        """Bytes of the last step; empty where it was not measured."""
        taken, self._step_bytes = self._step_bytes, {}
        return taken

    def _close(self) -> None:
        now = time.perf_counter()
        if self._stack:
            self.seconds[self._stack[-1]] = self.seconds.get(self._stack[-1], 0.0) + now - self._since
        self._since = now

    def _mark(self) -> None:
        if self._probe is not None:
            self._probe.mark(self._stack[-1] if self._stack else "")


class _CpuProbe:
    """Counts every CPU allocation by torch's profiler, and its phase by marks between events.

    Of all that the profiler can record it is asked for allocations and these marks only.
    """

    def __init__(self, held_bytes: int) -> None:
        self._held_bytes = held_bytes
        config = ProfilerConfig(ProfilerState.KINETO, False, True, False, False, False, _ExperimentalConfig())
        _prepare_profiler(config, {ProfilerActivity.CPU})
        _enable_profiler(config, {ProfilerActivity.CPU}, {RecordScope.USER_SCOPE})  # type: ignore[call-arg]

    def mark(self, phase: str) -> None:
        with record_function(MARK + phase):
            pass

    def close(self) -> dict[str, int]:
        """Peak bytes by phase, and what the forward pass left for the backward pass."""
        return _peaks(_disable_profiler().events(), self._held_bytes)


def _peaks(events: Iterable[Any], held_bytes: int) -> dict[str, int]:
    """Peak bytes by phase from the profiler's events; `activations`: growth in forward."""
    peaks: dict[str, int] = {}
    now, phase, activations, at_start = held_bytes, "", 0, 0
    for event in sorted(events, key=methodcaller("start_ns")):
        size = event.nbytes()
        if size:
            now += size
        elif event.name().startswith(MARK):
            entered = event.name().removeprefix(MARK)
            if phase == "forward":
                activations = max(activations, now - at_start)
            if entered == "forward":
                at_start = now
            phase = entered
        if phase:
            peaks[phase] = max(peaks.get(phase, 0), now)
    return {f"{name}_peak": peak for name, peak in peaks.items()} | {"activations": activations}


class _GpuProbe:
    """Reads the allocator's counters of the current GPU between the phases."""

    def __init__(self) -> None:
        self._phase, self._peaks, self._at_start = "", {"activations": 0}, 0
        torch.cuda.reset_peak_memory_stats()

    def mark(self, phase: str) -> None:
        now = torch.cuda.memory_allocated()
        if self._phase:
            name = f"{self._phase}_peak"
            self._peaks[name] = max(self._peaks.get(name, 0), torch.cuda.max_memory_allocated())
        if self._phase == "forward":
            self._peaks["activations"] = max(self._peaks["activations"], now - self._at_start)
        if phase == "forward":
            self._at_start = now
        self._phase = phase
        torch.cuda.reset_peak_memory_stats()

    def close(self) -> dict[str, int]:
        self.mark("")
        return self._peaks


def tensor_bytes(tensors: Iterable[Any]) -> int:
    """Bytes of the storages behind the tensors, each once; what is no tensor counts nothing."""
    held = [local(tensor).untyped_storage() for tensor in tensors if isinstance(tensor, torch.Tensor)]
    found = {storage.data_ptr(): storage.nbytes() for storage in held}
    return sum(found.values())


def optimizer_state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of all tensors in an optimizer's state."""
    return tensor_bytes(leaves(optimizer.state.values()))


def leaves(values: Iterable[Any]) -> Iterator[Any]:
    """Everything inside nested mappings, lists and plain objects."""
    for value in values:
        if isinstance(value, Mapping):
            yield from leaves(value.values())
        elif isinstance(value, list | tuple):
            yield from leaves(value)
        elif hasattr(value, "__dict__") and not isinstance(value, torch.Tensor):
            yield from leaves(vars(value).values())
        else:
            yield value
