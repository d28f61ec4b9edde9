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
GENERATION = "generation"
GROWTH, GENERATION_GROWTH = 1.05, 1.5  # beyond what was measured, from which on more is measured


class PhaseMeter:
    """Counts phases that may nest; seconds and bytes belong to the innermost one.

    Seconds are counted always, bytes in measured steps: on a GPU in all, on a CPU in the first two,
    every 17th, and wherever more trains or more tokens are passed than in any measured before. A
    profiler counts every allocation there. Generation has two thirds of them, so it is measured in
    the first two steps, and after a batch that is half as large again as when it was last measured.
    The peak of a phase is all that tensors held in it: what was there before the step, and what was
    allocated since.
    """

    def __init__(self, count_bytes: bool = True) -> None:
        self._count_bytes = count_bytes
        self._stack: list[str] = []
        self._since = time.perf_counter()
        self._probe: _CpuProbe | _GpuProbe | None = None
        self.seconds: dict[str, float] = {}
        self.most_bytes: dict[str, int] = {}  # of all measured steps
        self._step_bytes: dict[str, int] = {}
        self._held_bytes: Callable[[], int] | None = None  # within a step
        self._most: list[float] = []  # that trained in measured steps
        self._tokens = self._most_tokens = self._generated = 0  # last; measured; with their generation

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

    def start_step(self, step: int, held_bytes: Callable[[], int], training: Sequence[float] = ()) -> None:
        """Begin a step; `held_bytes`: held before it (weights, optimizer state, copies).

        `training` are numbers that say how much trains.
        """
        self.abandon_step()
        self._step_bytes, self._held_bytes = {}, held_bytes
        most = self._most or [0.0] * len(training)
        grown = any(number > GROWTH * before for number, before in zip(training, most, strict=True))
        if self._count_bytes and torch.cuda.is_available():
            self._probe = _GpuProbe()
        elif step < FIRST_STEPS or self._tokens > GENERATION_GROWTH * self._generated:
            self._count(None)
        elif step % EVERY == 0 or grown:
            self._count(GENERATION)
        if self.measuring:
            self._most = list(map(max, training, most))

    def generated(self, tokens: int) -> None:
        """The step has a batch of so many tokens, with padding, of which no tensor is made yet."""
        if self._held_bytes is None:
            return  # between two steps, to evaluate
        self._tokens = tokens
        if self._probe is None and tokens > GROWTH * self._most_tokens:
            self._count(GENERATION)
            self._mark()
        if self.measuring:
            self._most_tokens = max(self._most_tokens, tokens)
        if isinstance(self._probe, _CpuProbe) and self._probe.left_out is None:
            self._generated = max(self._generated, tokens)

    def _count(self, left_out: str | None) -> None:
        """Count allocations on a CPU, unless somebody else profiles."""
        here = self._count_bytes and not torch.cuda.is_available() and not torch._C._autograd._profiler_enabled()
        if here and self._held_bytes is not None:
            self._probe = _CpuProbe(self._held_bytes(), left_out)

    def abandon_step(self) -> None:
        """The step will not end: training was cut off in it."""
        self._held_bytes = None
        if self._probe is not None:
            self._probe.close()
            self._probe = None

    def end_step(self) -> None:
        """The step is over: its bytes are known."""
        self._held_bytes = None
        if self._probe is not None:
            self._step_bytes |= self._probe.close()
            self._probe = None
            for name, size in self._step_bytes.items():
                self.most_bytes[name] = max(size, self.most_bytes.get(name, 0))

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

    Of all that the profiler can record it is asked for allocations and these marks only. It is off
    in the phase `left_out`, at whose end nothing of it is held.
    """

    def __init__(self, held_bytes: int, left_out: str | None = None) -> None:
        self.left_out, self._on, self._bytes = left_out, False, _Bytes(held_bytes)
        self._switch(on=True)

    def mark(self, phase: str) -> None:
        self._switch(on=phase != self.left_out)
        if self._on:
            with record_function(MARK + phase):
                pass

    def close(self) -> dict[str, int]:
        """Peak bytes by phase, and what the forward pass left for the backward pass."""
        self._switch(on=False)
        peaks = {f"{name}_peak": peak for name, peak in self._bytes.peaks.items()}
        return peaks | {"activations": self._bytes.activations}

    def _switch(self, on: bool) -> None:
        if on and not self._on:
            config = ProfilerConfig(ProfilerState.KINETO, False, True, False, False, False, _ExperimentalConfig())
            _prepare_profiler(config, {ProfilerActivity.CPU})
            _enable_profiler(config, {ProfilerActivity.CPU}, {RecordScope.USER_SCOPE})  # type: ignore[call-arg]
        elif self._on and not on:
            self._bytes.follow(_disable_profiler().events())
        self._on = on


class _Bytes:
    """Peak bytes by phase, and `activations`: growth in forward."""

    def __init__(self, held: int) -> None:
        self.peaks: dict[str, int] = {}
        self.activations = 0
        self._now, self._phase, self._at_start = held, "", 0

    def follow(self, events: Iterable[Any]) -> None:
        """Take in what the profiler recorded next."""
        for event in sorted(events, key=methodcaller("start_ns")):
            size = event.nbytes()
            if size:
                self._now += size
            elif event.name().startswith(MARK):
                self._enter(event.name().removeprefix(MARK))
            if self._phase:
                self.peaks[self._phase] = max(self.peaks.get(self._phase, 0), self._now)

    def _enter(self, phase: str) -> None:
        if self._phase == "forward":
            self.activations = max(self.activations, self._now - self._at_start)
        if phase == "forward":
            self._at_start = self._now
        self._phase = phase


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
