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


def measured(
    phase: str, training: Sequence[float] = (), tokens: Sequence[int] = (), steps: int = 40, usual: int = 100
) -> list[int]:
    """In which steps a phase is measured; what is not given stays as usual."""
    meter, found = PhaseMeter(), []
    for step in range(steps):
        meter.start_step(step, lambda: 0, [training[step] if training else usual])
        with meter.phase("scoring"):
            with meter.phase("generation"):
                torch.zeros(8)
            meter.generated(tokens[step] if tokens else usual)
            with meter.phase("forward"):
                torch.zeros(8)
        meter.end_step()
        if f"{phase}_peak" in meter.take_bytes():
            found.append(step)
    return found


def test_steps_that_stay_alike_are_measured_rarely() -> None:
    assert measured("forward") == [0, 1, EVERY, 2 * EVERY]
    assert measured("generation") == [0, 1]


def test_a_step_in_which_more_trains_than_in_any_measured_one_is_measured() -> None:
    training = [100, 100, 104, 120, 120, 90, 125, 127, 127]  # 125 is within a twentieth of 120
    assert measured("forward", training=training, steps=9) == [0, 1, 3, 7]
    assert measured("generation", training=training, steps=9) == [0, 1]


def test_a_longer_batch_is_measured_itself_and_the_generation_of_the_next() -> None:
    tokens = [100, 100, 104, 120, 120, 90, 160, 160, 160]
    assert measured("forward", tokens=tokens, steps=9) == [0, 1, 3, 6, 7]
    assert measured("generation", tokens=tokens, steps=9) == [0, 1, 7]


def test_nothing_is_measured_between_two_steps() -> None:
    meter = PhaseMeter()
    meter.start_step(2, lambda: 0)
    meter.end_step()
    meter.generated(10**6)
    assert not meter.measuring


def scoring(step: int) -> dict[str, int]:
    """The bytes of a step that holds something while it generates."""
    meter = PhaseMeter()
    meter.start_step(step, lambda: 1000)
    with meter.phase("scoring"):
        kept = torch.zeros(500)
        with meter.phase("generation"):
            torch.zeros(5000).sum()
        torch.zeros(250).sum()
    meter.end_step()
    assert len(kept) == 500
    return meter.take_bytes()


def test_phases_around_a_generation_that_is_left_out_have_the_same_peaks() -> None:
    whole, rest = scoring(0), scoring(EVERY)
    assert whole.pop("generation_peak") >= 1000 + 2000 + 20_000
    assert whole == rest
    assert whole["scoring_peak"] >= 1000 + 2000 + 1000


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
