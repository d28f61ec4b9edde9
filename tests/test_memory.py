"""Measuring memory must not use it up."""

import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch

from efficient_rl.training.memory import EVERY, PhaseMeter
from efficient_rl.training.parameters import TrainedParameters
from tests.conftest import environment

GROWTH = """
import gc
import psutil
import torch
from efficient_rl.training.memory import PhaseMeter

def measured_step():
    meter.start_step(0, lambda: 0)
    with meter.phase("forward"):
        for _ in range(20_000):
            torch.zeros(16)
    meter.end_step()
    return meter.take_bytes()["forward_peak"]

torch.set_num_threads(1)
meter, process = PhaseMeter(), psutil.Process()
gc.disable()  # collections are rare where a million objects were made at import
peak = min(measured_step() for _ in range(2))
before = process.memory_info().rss
for _ in range(6):
    measured_step()
print(peak, process.memory_info().rss - before)
"""


def test_what_a_measured_step_recorded_is_freed_with_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GROWTH],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    peak, grown = map(int, done.stdout.split())
    assert peak >= 64
    assert grown < 200 << 20  # the events of one step take 160 MB


def measured(sizes: Sequence[Sequence[float]]) -> list[int]:
    """Which steps of these sizes are measured."""
    meter, found = PhaseMeter(), []
    for step, size in enumerate(sizes):
        meter.start_step(step, lambda: 0, size)
        if meter.measuring:
            found.append(step)
        meter.end_step()
    return found


def test_steps_that_stay_alike_are_measured_rarely() -> None:
    assert measured([(100, 50)] * 40) == [0, 1, EVERY, 2 * EVERY]


@pytest.mark.parametrize("which", [0, 1])
def test_a_step_larger_than_all_measured_ones_is_measured(which: int) -> None:
    sizes = [[100.0, 100.0] for _ in range(16)]
    for step, size in ((3, 105.0), (5, 120.0), (6, 120.0), (8, 90.0), (9, 131.0), (12, 131.0), (13, 150.0)):
        sizes[step][which] = size
    assert measured(sizes) == [0, 1, 5, 13]  # 131 is within a tenth of 120


def test_the_peaks_are_those_of_every_allocation_in_its_phase() -> None:
    meter = PhaseMeter()
    meter.start_step(0, lambda: 1000)
    with meter.phase("backward"):
        with meter.phase("forward"):
            kept = torch.zeros(500)
            torch.zeros(1000).sum()
        more = torch.zeros(64)
    meter.end_step()
    found = meter.take_bytes()
    assert found["forward_peak"] == pytest.approx(1000 + 2000 + 4000, abs=128)
    assert found["activations"] == pytest.approx(2000, abs=128)
    assert found["backward_peak"] == pytest.approx(1000 + 2000 + 256, abs=128)
    assert len(kept) + len(more) == 564


def test_a_backward_pass_goes_through_all_from_the_first_block_that_trains() -> None:
    layers = torch.nn.Sequential(*(torch.nn.Linear(2, 2, bias=False) for _ in range(4)))
    layers.requires_grad_(False)
    layers[1].requires_grad_(True)
    parameters = TrainedParameters(layers)
    assert (parameters.active_count, parameters.backward_count) == (4, 12)
