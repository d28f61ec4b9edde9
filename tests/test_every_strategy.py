"""Every strategy in conf/, in whole runs: what it promises trains, nothing else does, it resumes exactly and reloads."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM

import efficient_rl.run
from efficient_rl.config.options import group_options
from efficient_rl.run import Interrupted, Options, Stop, execute
from efficient_rl.rundir.directory import RunDirectory
from tests.conftest import slow_unless, tiny_run
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
OPTIONS = sorted(group_options()["strategy"])


ONE_OF_EACH_MECHANISM = ("full", "last_k", "lora", "pissa", "adalora", "lisa", "autofreeze", "slimfit", "galore")
DYNAMIC = ("adalora", "autofreeze", "slimfit", "lisa", "badam", "auto_rgn", "auto_snr")
KL, NO_KL = "grpo.beta=0.04", "grpo.beta=0"


@dataclass
class Watched:
    """A run and what was seen of it from inside the process."""

    record: RunDirectory
    trainer: Any = None
    before: dict[str, torch.Tensor] = field(default_factory=dict)
    active: list[frozenset[str]] = field(default_factory=list)

    @property
    def now(self) -> dict[str, torch.Tensor]:
        return {name: parameter.detach() for parameter, name in self.trainer.parameters.names.items()}

    @property
    def sizes(self) -> dict[str, int]:
        return {name: tensor.numel() for name, tensor in self.before.items()}


def work(folder: Path, option: str, kl: str, stop_after_lines: int | None = None) -> Watched:
    """Do a run of five steps, or what is left of it, or as much as gives so many lines of metrics."""
    config = tiny_run(f"strategy={option}", *SHORT, *QUICK.get(option, []), kl)
    record = RunDirectory(folder / config.config_hash)
    attempt = record.claim(config)
    watched, original = Watched(record), efficient_rl.run._make_trainer

    def make(*arguments: Any) -> Any:
        trainer = watched.trainer = original(*arguments)
        watched.before = {name: p.detach().clone() for p, name in trainer.parameters.names.items()}
        update = trainer.parameters.before_update

        def note(optimizer: Any) -> None:
            watched.active.append(trainer.parameters.active)
            update(optimizer)

        trainer.parameters.before_update = note
        return trainer

    with patch.object(efficient_rl.run, "_make_trainer", make):
        if stop_after_lines is None:
            execute(config, attempt, Options(checkpoint_steps=100), Stop())
        else:
            with pytest.raises(Interrupted):
                execute(config, attempt, Options(checkpoint_steps=100), StopAfter(record, stop_after_lines))
    attempt.release()
    return watched


@pytest.fixture(scope="module", params=slow_unless(ONE_OF_EACH_MECHANISM, OPTIONS))
def option(request: pytest.FixtureRequest) -> str:
    """Every strategy in turn: its tests stand together, and share its undisturbed run."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def run(option: str, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """The undisturbed run of the strategy."""
    return work(tmp_path_factory.mktemp("whole"), option, KL)


def test_what_it_promises_trains_and_nothing_else_changes(option: str, run: Watched) -> None:
    changed = {name for name, tensor in run.now.items() if not torch.equal(tensor, run.before[name])}
    assert len(run.active) == STEPS
    assert changed == frozenset().union(*run.active) <= run.trainer.parameters.trainable
    logged = [row["metrics"]["params/active"] for row in run.record.metrics() if "params/active" in row["metrics"]]
    assert logged == [sum(run.sizes[name] for name in active) for active in run.active]
    result = run.record.result()
    assert result is not None
    assert result.strategy == option
    assert result.trainable_params == sum(run.sizes[name] for name in run.trainer.parameters.trainable)
    assert result.mean_active_params == pytest.approx(sum(logged) / STEPS)
    assert option not in DYNAMIC[1:] or len(set(run.active)) > 1 or option == "auto_rgn"


def test_its_result_loads_again_with_the_same_logits(run: Watched) -> None:
    ids = torch.tensor([[10, 11, 12, 13, 14, 15]])
    folder = run.record.folder / "model"
    with torch.no_grad():
        trained = run.trainer.model.eval()(ids).logits
        adapter = (folder / "adapter_config.json").is_file()
        loaded = (AutoPeftModelForCausalLM if adapter else AutoModelForCausalLM).from_pretrained(folder)
        torch.testing.assert_close(loaded.eval()(ids).logits, trained, rtol=1e-5, atol=1e-4)
        base = AutoModelForCausalLM.from_pretrained(tiny_run().model.folder).eval()(ids).logits
    assert float((base - trained).abs().max()) > 3e-4


def test_killed_and_resumed_it_ends_bit_identical(option: str, run: Watched, tmp_path: Path) -> None:
    assert_same_end(run, work(tmp_path, option, KL, stop_after_lines=2), work(tmp_path, option, KL))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "lora", *DYNAMIC])
def test_without_a_reference_it_resumes_exactly_too(name: str, tmp_path: Path) -> None:
    first = work(tmp_path / "cut", name, NO_KL, stop_after_lines=3)
    assert_same_end(work(tmp_path / "whole", name, NO_KL), first, work(tmp_path / "cut", name, NO_KL))


def assert_same_end(whole: Watched, first: Watched, rest: Watched) -> None:
    """The two parts trained what the whole run did, with state for that alone in the checkpoint between them."""
    assert len(rest.active) < STEPS
    assert first.active + rest.active == whole.active
    now, expected = rest.now, whole.now
    assert [name for name in expected if not torch.equal(expected[name], now[name])] == []
    state = first.trainer.optimizer.state
    names = first.trainer.parameters.names
    assert {names[parameter] for parameter in state} == set(first.active[-1])
    if whole.trainer.strategy.optimizer.__qualname__.startswith("Strategy."):
        # AdamW: its averages are as large as what trains.
        assert all(state[parameter]["exp_avg"].shape == parameter.shape for parameter in state)
