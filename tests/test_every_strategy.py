"""Every strategy in conf/, through whole runs: what it promises trains, nothing else changes, it resumes exactly and reloads."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import efficient_rl.run
from efficient_rl.compose import group_options
from efficient_rl.record import Record
from efficient_rl.run import Interrupted, Options, Stop, execute
from tests.conftest import tiny_run
from tests.test_run import StopAfter

STEPS = 5
SHORT = ("grpo.learning_rate=1e-3", "grpo.warmup_steps=0", f"grpo.max_steps={STEPS}", "eval.problems=2", "eval.samples=1")
QUICK = {  # so that dynamic strategies change their choice within five steps
    "autofreeze": ["strategy.intervals=4"],
    "lisa": ["strategy.interval=1", "strategy.active_layers=1"],
    "badam": ["strategy.interval=1"],
    "auto_rgn": ["strategy.interval=2", "strategy.batches=1"],
    "auto_snr": ["strategy.interval=3", "strategy.batches=2"],
    "galore": ["strategy.gap=2"],
    "apollo": ["strategy.gap=2"],
    "lora": ["lora.rank=2"],
}
OWN_OPTIMIZERS = ("galore", "apollo", "lora_fa")
OPTIONS = sorted(group_options()["strategy"])


@dataclass
class Seen:
    """What a run did, seen from inside the process."""

    trainer: Any = None
    before: dict[str, torch.Tensor] = field(default_factory=dict)
    active: list[frozenset[str]] = field(default_factory=list)

    def changed(self) -> set[str]:
        return {n for p, n in self.trainer.parameters.names.items() if not torch.equal(p, self.before[n])}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Filled by the last run of a test."""
    found, original = Seen(), efficient_rl.run._make_trainer

    def make(*arguments: Any) -> Any:
        trainer = original(*arguments)
        found.trainer, found.active = trainer, []
        found.before = {name: p.detach().clone() for p, name in trainer.parameters.names.items()}
        update = trainer.before_update

        def note() -> None:
            found.active.append(trainer.parameters.active)
            update()

        trainer.before_update = note
        return trainer

    monkeypatch.setattr(efficient_rl.run, "_make_trainer", make)
    return found


def overrides(option: str, *more: str) -> list[str]:
    return [f"strategy={option}", *SHORT, *QUICK.get(option, []), *more]


def run_whole(folder: Path, option: str, *more: str) -> Record:
    config = tiny_run(*overrides(option, *more))
    record = Record(folder / config.config_hash)
    record.claim(config)
    execute(config, record, Options(checkpoint_steps=100), Stop())
    return record


def state_of(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for p, name in trainer.parameters.names.items()}


@pytest.mark.parametrize("option", OPTIONS)
def test_what_it_promises_trains_and_nothing_else_changes(option: str, tmp_path: Path, seen: Seen) -> None:
    record = run_whole(tmp_path, option)
    changed, ever = seen.changed(), frozenset().union(*seen.active)
    assert len(seen.active) == STEPS
    assert changed == ever <= seen.trainer.parameters.trainable
    logged = [row["metrics"]["params/active"] for row in record.metrics() if "params/active" in row["metrics"]]
    sizes = {name: p.numel() for p, name in seen.trainer.parameters.names.items()}
    assert logged == [sum(sizes[name] for name in active) for active in seen.active]
    result = record.result()
    assert result is not None
    assert result.trainable_params == sum(sizes[name] for name in seen.trainer.parameters.trainable)
    assert result.mean_active_params == pytest.approx(sum(logged) / STEPS)


@pytest.mark.parametrize("option", OPTIONS)
def test_killed_and_resumed_with_a_reference_it_ends_bit_identical(option: str, tmp_path: Path, seen: Seen) -> None:
    run_whole(tmp_path / "whole", option, "grpo.beta=0.04")
    expected, choices = state_of(seen.trainer), seen.active
    config = tiny_run(*overrides(option, "grpo.beta=0.04"))
    record = Record(tmp_path / "cut" / config.config_hash)
    for lines in (2, 4, None):  # stopped after the first step, after the third, not at all
        record = Record(record.folder)
        record.claim(config)
        stop = Stop() if lines is None else StopAfter(record, lines)
        try:
            execute(config, record, Options(checkpoint_steps=100), stop)
        except Interrupted:
            assert lines is not None
            assert_state_is_of_what_trains(option, record, seen)
        record.release()
    resumed = state_of(seen.trainer)
    assert seen.active == choices[3:]
    assert [name for name in expected if not torch.equal(expected[name], resumed[name])] == []


def assert_state_is_of_what_trains(option: str, record: Record, seen: Seen) -> None:
    """The optimizer's state belongs to what the last step trained, and to nothing else."""
    checkpoint = record.checkpoint()
    assert checkpoint is not None
    saved = torch.load(checkpoint / "optimizer.pt", weights_only=False)
    assert set(saved["state"]) == set(seen.active[-1])
    if option not in OWN_OPTIMIZERS:
        sizes = {name: p.numel() for p, name in seen.trainer.parameters.names.items()}
        assert {name: state["exp_avg"].numel() for name, state in saved["state"].items()} == {
            name: sizes[name] for name in seen.active[-1]
        }


@pytest.mark.parametrize("option", OPTIONS)
def test_its_result_loads_again_with_the_same_logits(option: str, tmp_path: Path, seen: Seen) -> None:
    record = run_whole(tmp_path, option)
    ids = torch.tensor([[10, 11, 12, 13, 14, 15]])
    with torch.no_grad():
        trained = seen.trainer.model.eval()(ids).logits
        folder = record.folder / "model"
        if (folder / "adapter_config.json").is_file():
            from peft import AutoPeftModelForCausalLM

            loaded = AutoPeftModelForCausalLM.from_pretrained(folder)
        else:
            loaded = AutoModelForCausalLM.from_pretrained(folder)
        torch.testing.assert_close(loaded.eval()(ids).logits, trained, rtol=1e-5, atol=1e-5)
        base = AutoModelForCausalLM.from_pretrained(tiny_run().model.folder).eval()(ids).logits
    assert not torch.allclose(base, trained, rtol=1e-5, atol=1e-5)
    assert json.loads((record.folder / "result.json").read_text())["strategy"] == option
