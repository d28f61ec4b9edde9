"""In a user's own script it does what stock TRL does: what it writes loads, what TRL wrote resumes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import AutoPeftModelForCausalLM, LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel
from trl import GRPOConfig, GRPOTrainer

from efficient_rl.config.options import group_options
from efficient_rl.models import load_model, load_tokenizer
from efficient_rl.strategies.protocol import Strategy
from efficient_rl.strategies.static import Full
from efficient_rl.training.grpo import EfficientGRPOTrainer
from tests.conftest import tiny_run

NANO = tiny_run().model
IDS = torch.tensor([[10, 11, 12, 13, 14, 15]])
OPTIONS = sorted(group_options()["strategy"])
QUICK = {  # dynamic strategies that change their choice within three steps
    "autofreeze": ["strategy.intervals=3"],
    "lisa": ["strategy.interval=1", "strategy.active_layers=1"],
    "badam": ["strategy.interval=1"],
    "auto_rgn": ["strategy.interval=2", "strategy.batches=1"],
    "auto_snr": ["strategy.interval=3", "strategy.batches=2"],
    "galore": ["strategy.gap=2"],
    "apollo": ["strategy.gap=2"],
}
FAST = ("full", "head_only", "lora", "lora_xs", "pissa", "adalora", "tinylora", "galore", "lisa")


class Scripted:
    """Completions that follow from the step alone; nothing is drawn from torch."""

    state: Any

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        random = Random(self.state.global_step)
        return [[random.randrange(3, 30) for _ in range(random.randrange(4, 12))] for _ in prompt_ids], None


class Stock(Scripted, GRPOTrainer):
    pass


class Ours(Scripted, EfficientGRPOTrainer):
    pass


def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [sum(token % 5 == 0 for token in ids) / len(ids) for ids in completion_ids]


def arguments(folder: Path, **settings: Any) -> GRPOConfig:
    base: dict[str, Any] = {
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 12,
        "max_steps": 3,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
        "bf16": False,
        "use_cpu": True,
        "save_strategy": "no",
        "gradient_checkpointing": False,
    }
    return GRPOConfig(output_dir=str(folder), **(base | settings))


def make(
    kind: type[GRPOTrainer],
    folder: Path,
    model: Callable[[], Any] | None = None,
    strategy: Strategy | None = None,
    **settings: Any,
) -> Any:
    """A trainer of that kind as a script makes it; `settings` are GRPOConfig's, and `peft_config`."""
    extra = {name: settings.pop(name) for name in ("peft_config", "callbacks") if name in settings}
    data = Dataset.from_list([{"prompt": f"{number}+{number}="} for number in range(1, 17)])
    if strategy is not None:
        extra["strategy"] = strategy
    if settings.pop("eval_dataset", False):
        extra["eval_dataset"] = data
    return kind(
        (model or partial(load_model, NANO))(),
        reward,
        settings.pop("args", None) or arguments(folder, **settings),
        train_dataset=data,
        processing_class=load_tokenizer(NANO),
        **extra,
    )


def strategy_of(option: str) -> Strategy:
    return tiny_run(f"strategy={option}", *QUICK.get(option, [])).strategy.build()


def loaded(folder: Path) -> PreTrainedModel:
    adapter = (folder / "adapter_config.json").is_file()
    return (AutoPeftModelForCausalLM if adapter else AutoModelForCausalLM).from_pretrained(folder).eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(IDS).logits


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.accelerator.unwrap_model(trainer.model).named_parameters()}


def steps(trainer: Any) -> list[dict[str, float]]:
    """The log line of each step."""
    return [line for line in trainer.state.log_history if "loss" in line]


def assert_same_weights(one: Any, other: Any) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


# What it writes


def every_strategy() -> list[Any]:
    return [pytest.param(option, marks=[] if option in FAST else pytest.mark.slow) for option in OPTIONS]


@pytest.mark.parametrize("option", every_strategy())
def test_what_it_writes_loads_with_the_same_logits_and_resumes_exactly(option: str, tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2}
    trainer = make(Ours, tmp_path / "run", strategy=strategy_of(option), max_steps=4, **saving)
    trainer.train()
    trained = logits(trainer.model)
    assert float((logits(load_model(NANO)) - trained).abs().max()) > 3e-4
    trainer.save_model(str(tmp_path / "saved"))
    for folder in (tmp_path / "saved", tmp_path / "run" / "checkpoint-4"):
        torch.testing.assert_close(logits(loaded(folder)), trained, rtol=1e-5, atol=1e-4)
        assert (folder / "tokenizer.json").is_file()
        assert (folder / "training_args.bin").is_file()
    resumed = make(Ours, tmp_path / "resumed", strategy=strategy_of(option), max_steps=4, **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert_same_weights(resumed, trainer)


def test_the_best_checkpoint_of_an_adapter_that_is_saved_in_another_form_comes_back(tmp_path: Path) -> None:
    trainer = make(
        Ours,
        tmp_path,
        strategy=strategy_of("lora_xs"),
        eval_dataset=True,
        save_strategy="steps",
        save_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        per_device_eval_batch_size=8,
        load_best_model_at_end=True,
        metric_for_best_model="eval_reward",
        greater_is_better=True,
    )
    trainer.train()
    best = Path(trainer.state.best_model_checkpoint)
    assert best.name != "checkpoint-3"
    torch.testing.assert_close(logits(trainer.model), logits(loaded(best)), rtol=1e-5, atol=1e-4)


# What stock TRL wrote

LORA = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")


def adapted() -> Any:
    """A model with an adapter that was trained before."""
    torch.manual_seed(7)
    model = get_peft_model(load_model(NANO), LORA)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05)
    return model


@pytest.mark.parametrize("case", ["strategy_none", "full", "peft_config", "peft_model"])
def test_a_checkpoint_of_stock_trl_goes_on_as_in_stock_trl(case: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "beta": 0.04}
    if case == "peft_config":
        settings["peft_config"] = LORA
    if case == "peft_model":
        settings["model"] = adapted
    stock = make(Stock, tmp_path / "stock", **settings)
    stock.train()
    strategy = Full() if case == "full" else None
    ours = make(Ours, tmp_path / "ours", strategy=strategy, **settings)
    ours.train(resume_from_checkpoint=str(tmp_path / "stock" / "checkpoint-2"))
    theirs = weights(stock)
    for name, weight in weights(ours).items():
        torch.testing.assert_close(weight, theirs[name], rtol=1e-4, atol=1e-5)
    for mine, line in zip(steps(ours)[2:], steps(stock)[2:], strict=True):
        for key in ("loss", "kl", "grad_norm", "learning_rate"):
            assert mine[key] == pytest.approx(line[key], rel=1e-4, abs=1e-5), (key, mine, line)


@pytest.mark.parametrize("option", ["last_k", "lora", "lisa", "galore"])
def test_a_checkpoint_of_stock_trl_that_trained_something_else_is_refused(option: str, tmp_path: Path) -> None:
    make(Stock, tmp_path, max_steps=1, save_strategy="steps", save_steps=1).train()
    trainer = make(Ours, tmp_path, strategy=strategy_of(option))
    with pytest.raises(ValueError, match=r"checkpoint-1 is one of trl\.GRPOTrainer.*strategy=None") as refused:
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert "\n" not in str(refused.value)


# The reference

PROMPT = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
ADAPTERS = {
    "prompt_tuning": PROMPT,
    "random_lora": LoraConfig(r=4, task_type="CAUSAL_LM", init_lora_weights=False),
    "lora": LORA,
    "saved_modules": LoraConfig(r=4, task_type="CAUSAL_LM", modules_to_save=["norm"]),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_new_adapter_is_compared_with_the_model_without_it(name: str, tmp_path: Path) -> None:
    lines = []
    for kind in (Stock, Ours):
        trainer = make(kind, tmp_path / kind.__name__, peft_config=ADAPTERS[name], beta=0.1)
        trainer.train()
        lines.append(steps(trainer))
    for theirs, mine in zip(*lines, strict=True):
        for key in ("loss", "kl", "grad_norm"):
            assert mine[key] == pytest.approx(theirs[key], rel=1e-4, abs=1e-5), (key, mine, theirs)
    assert (lines[0][0]["kl"] > 0.1) == (name in ("prompt_tuning", "random_lora"))
