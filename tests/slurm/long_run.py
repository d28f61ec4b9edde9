"""A run that has everything that a checkpoint must bring back, long enough to be disturbed, and what it must end as."""

import json

import torch
from safetensors.torch import load_file

from efficient_rl.rundir.directory import RunDirectory
from tests.slurm.local_cluster import Sweep

STATEFUL = ("strategy=lisa", "strategy.interval=5", "curriculum=adarft", "grpo.beta=0.04")
LONG = (*STATEFUL, "grpo.max_steps=80")
OFTEN = "checkpoint_steps=10"


def assert_same_run(sweep: Sweep, undisturbed: RunDirectory, attempts: int | None = None) -> None:
    """Finished once, every step logged once, weights bit for bit those of the undisturbed run."""
    (record,) = sweep.records
    result = record.result()
    assert result is not None, sweep.output()
    expected = load_file(undisturbed.folder / "model" / "model.safetensors")
    found = load_file(record.folder / "model" / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    whole = undisturbed.result()
    assert whole is not None
    assert [row["step"] for row in record.metrics()] == [*range(whole.steps + 1), whole.steps]
    assert (result.accuracy, result.final_reward, result.tokens) == (whole.accuracy, whole.final_reward, whole.tokens)
    assert not (record.folder / "earlier").exists()
    started = [json.loads(path.read_text())["started"] for path in (record.folder / "attempts").glob("*.json")]
    assert max(started) < result.finished_at
    if attempts is not None:
        assert len(started) == attempts, sweep.output()
