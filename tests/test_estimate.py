"""Estimates come from finished runs like the new one where there are any."""

import pytest

from efficient_rl.rundir.result import RunResult
from efficient_rl.sweep.estimate import estimate
from tests.conftest import tiny_run
from tests.test_record import RESULT


def result(**changes: object) -> RunResult:
    return RunResult(config_hash="0" * 16, **(RESULT | changes))


def test_time_scales_with_the_work_and_memory_is_that_of_runs_like_it() -> None:
    seen = tiny_run("strategy=last_k")  # 3 steps of 16
    known = [(seen, result(train_seconds=6.0, total_seconds=10.0, peak_memory_bytes={"backward": 100, "generation": 50}))]
    found = estimate(tiny_run("strategy=last_k", "grpo.max_steps=30", "seed=4"), known)
    assert found.seconds == pytest.approx(4.0 + 60.0)
    assert found.peak_bytes == 100
    assert found.source == "1 finished like it"


def test_the_same_strategy_counts_before_other_ones() -> None:
    known = [
        (tiny_run("strategy=last_k"), result(train_seconds=6.0, total_seconds=10.0)),
        (tiny_run("strategy=full"), result(train_seconds=60.0, total_seconds=100.0)),
    ]
    assert estimate(tiny_run("strategy=full", "seed=1"), known).seconds == 100.0
    assert estimate(tiny_run("strategy=lora"), known).source == "2 finished with this model"


def test_without_runs_it_is_arithmetic_and_without_a_model_it_is_unknown() -> None:
    guess = estimate(tiny_run(), [])
    assert guess.source == "arithmetic"
    assert guess.peak_bytes == pytest.approx(16 * 323_776, rel=0.01)
    assert guess.seconds is not None
    assert estimate(tiny_run("grpo.max_steps=300"), []).seconds == pytest.approx(100 * guess.seconds)
    known_size = estimate(tiny_run("model=qwen2.5_0.5b"), [])
    assert known_size.peak_bytes == pytest.approx(16 * 0.494e9, rel=0.01)
    hub = estimate(tiny_run("model=qwen2.5_0.5b", "model.parameters=null", "model.path=some/model"), [])
    assert (hub.seconds, hub.peak_bytes) == (None, None)
    assert "unknown" in hub.source
