"""Measuring memory must not use it up."""

import subprocess
import sys

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
