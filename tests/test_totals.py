"""What the metrics of all attempts of a run add up to."""

import pytest

from efficient_rl.rundir.totals import totals

LINES = [
    {"train/reward": 0.0, "params/active": 10.0, "time/step_seconds": 2.0, "time/forward_seconds": 0.5, "train/tokens": 7.0},
    {"time/evaluation_seconds": 4.0, "eval/accuracy": 0.5},  # an evaluation between two steps
    {
        "train/reward": 1.0,
        "params/active": 30.0,
        "time/step_seconds": 3.0,
        "time/forward_seconds": 0.25,
        "train/tokens": 19.0,
        "memory/forward_peak_bytes": 900.0,
        "memory/gradients_bytes": 50.0,
    },
    {"memory/forward_peak_bytes": 700.0, "memory/gradients_bytes": 60.0},
]


def test_seconds_add_up_and_of_bytes_and_tokens_the_most_counts() -> None:
    found = totals(LINES)
    assert found.phase_seconds == {"forward": 0.75, "evaluation": 4.0}
    assert found.train_seconds == 5.0
    assert found.peak_memory_bytes == {"forward": 900}
    assert found.memory_parts_bytes == {"gradients": 60}
    assert found.tokens == 19
    assert found.mean_active_params == 20.0


@pytest.mark.parametrize(("steps", "mean"), [(1, 0.0), (9, 8.0), (19, 18.0), (20, 18.5), (25, 23.5)])
def test_the_final_reward_is_the_mean_of_the_last_tenth_of_the_steps(steps: int, mean: float) -> None:
    assert totals({"train/reward": float(step)} for step in range(steps)).final_reward == mean


def test_a_run_without_a_step_has_totals_of_nothing() -> None:
    found = totals([{"eval/accuracy": 0.5}])
    assert (found.final_reward, found.mean_active_params, found.train_seconds, found.tokens) == (0.0, 0.0, 0.0, 0)
    assert found.phase_seconds == found.peak_memory_bytes == found.memory_parts_bytes == {}


def test_cpu_seconds_count_only_where_every_step_recorded_them() -> None:
    step = {"time/step_seconds": 2.0, "time/step_cpu_seconds": 1.5}
    assert totals([step, step]).train_cpu_seconds == 3.0
    assert totals([step, step]).phase_seconds == {}
    assert totals([step, {"time/step_seconds": 2.0}]).train_cpu_seconds is None
    assert totals([{"time/step_seconds": 2.0}]).train_cpu_seconds is None
