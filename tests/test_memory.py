"""Measuring memory must not use it up."""

import gc

import psutil
import torch

from efficient_rl.training.memory import PhaseMeter

ALLOCATIONS = 20_000


def measured_step(meter: PhaseMeter) -> dict[str, int]:
    meter.start_step(0, lambda: 0)
    with meter.phase("forward"):
        for _ in range(ALLOCATIONS):
            torch.zeros(16)
    meter.end_step()
    return meter.take_bytes()


def test_what_a_measured_step_recorded_is_freed_with_it() -> None:
    torch.set_num_threads(1)
    meter, process = PhaseMeter(), psutil.Process()
    assert measured_step(meter)["forward_peak"] >= 64
    gc.disable()  # collections are rare where a million objects were made at import
    try:
        before = process.memory_info().rss
        for _ in range(4):
            measured_step(meter)
        assert process.memory_info().rss - before < 100 << 20  # the events of one step take 160 MB
    finally:
        gc.enable()
