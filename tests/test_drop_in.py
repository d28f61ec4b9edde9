"""In a user's own script it does what stock TRL does: what it writes loads, what TRL wrote resumes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import pytest
import torch
from datasets import Dataset
from huggingface_hub import HfApi
from peft import AutoPeftModelForCausalLM, LoraConfig, PromptTuningConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    GenerationMixin,
    PreTrainedModel,
    Qwen2ForCausalLM,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer

from efficient_rl.config.options import group_options
from efficient_rl.models import load_model, load_tokenizer
from efficient_rl.rewards.answer import Accuracy
from efficient_rl.rewards.process import StepRewards
from efficient_rl.strategies.adapters import Lora
from efficient_rl.strategies.protocol import Strategy
from efficient_rl.strategies.static import Full
from efficient_rl.training.grpo import EfficientGRPOTrainer, Optimizations
from efficient_rl.training.run_trainer import RunTrainer
from tests.conftest import execute_tiny, slow_unless, tiny_run

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
FAST = ("full", "lora_xs", "pissa", "galore", "lisa")


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
    extra = {name: settings.pop(name) for name in ("peft_config", "callbacks", "optimizations") if name in settings}
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


@pytest.mark.parametrize("option", slow_unless(FAST, OPTIONS))
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


@pytest.mark.parametrize("option", ["lora_xs", "pissa"])
def test_a_saved_adapter_that_training_cannot_go_on_from_is_refused(option: str, tmp_path: Path) -> None:
    make(Ours, tmp_path, strategy=strategy_of(option)).save_model(str(tmp_path / "saved"))
    with pytest.raises(ValueError, match=r"saved holds a model.* resume from a checkpoint-N"):
        make(Ours, tmp_path, strategy=strategy_of(option)).train(resume_from_checkpoint=str(tmp_path / "saved"))


@pytest.mark.parametrize("option", ["lora_xs", "pissa"])
def test_a_checkpoint_of_an_earlier_version_still_resumes(option: str, tmp_path: Path) -> None:
    """It held what trains in the adapter's file, in PEFT's form, and nothing beside it."""
    saving: dict[str, Any] = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    trainer = make(Ours, tmp_path / "run", strategy=strategy_of(option), **saving)
    save, checkpoint = trainer._save, tmp_path / "run" / "checkpoint-2"

    def save_as_then(folder: str, state_dict: Any = None) -> None:
        save(folder, state_dict)
        trainer.model.save_pretrained(folder)

    trainer._save = save_as_then
    trainer.train()
    (checkpoint / "trained.pt").unlink()
    resumed = make(Ours, tmp_path / "resumed", strategy=strategy_of(option), **saving)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert_same_weights(resumed, trainer)


def test_dropout_resumes_exactly_too(tmp_path: Path) -> None:
    dropped = Lora(rank=2, alpha=4, dropout=0.2)
    settings: dict[str, Any] = {"strategy": dropped, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    trainer = make(Ours, tmp_path / "run", **settings)
    trainer.train()
    resumed = make(Ours, tmp_path / "resumed", **settings)
    torch.manual_seed(5)  # what a script drew before
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


# A model's own generate


def replaced_generate(answer: int = 7) -> Callable[..., torch.Tensor]:
    """A `generate` that answers every prompt with five equal tokens and counts its calls."""

    def generate(input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        generate.calls += 1  # type: ignore[attr-defined]
        return torch.cat([input_ids, input_ids.new_full((len(input_ids), 5), answer)], dim=1)

    generate.calls = 0  # type: ignore[attr-defined]
    return generate


def patched(generate: Any) -> Any:
    model = load_model(NANO)
    model.generate = generate
    return model


def patched_below_an_adapter(generate: Any) -> Any:
    return get_peft_model(patched(generate), LORA)


def overridden(generate: Any) -> Any:
    class Own(Qwen2ForCausalLM):
        def generate(self, *arguments: Any, **keywords: Any) -> Any:
            return generate(*arguments, **keywords)

    model = load_model(NANO)
    model.__class__ = Own
    return model


def with_own_sampling(generate: Any) -> Any:
    class Own(Qwen2ForCausalLM):
        def _sample(self, input_ids: torch.Tensor, **_: Any) -> Any:
            return generate(input_ids)

    model = load_model(NANO)
    model.__class__ = Own
    return model


@pytest.mark.parametrize("wrap", [patched, patched_below_an_adapter, overridden, with_own_sampling])
def test_a_model_with_a_generate_of_its_own_is_asked_for_completions(
    wrap: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    generate = replaced_generate()
    trainer = make(EfficientGRPOTrainer, tmp_path, partial(wrap, generate))
    with caplog.at_level("WARNING"):
        trainer.train()
    assert generate.calls == 3  # type: ignore[attr-defined]
    assert [line["completions/mean_length"] for line in steps(trainer)] == [5.0] * 3
    assert caplog.text.count("own_sampler steps aside") == 1


def test_a_generate_that_is_replaced_during_training_is_asked_from_then_on(tmp_path: Path) -> None:
    class Replace(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            model.generate = generate

    generate = replaced_generate()
    make(EfficientGRPOTrainer, tmp_path, callbacks=[Replace()]).train()
    assert generate.calls == 2  # type: ignore[attr-defined]


def test_a_generate_that_is_replaced_in_transformers_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = replaced_generate()
    monkeypatch.setattr(GenerationMixin, "generate", lambda self, *a, **k: generate(*a, **k))
    make(EfficientGRPOTrainer, tmp_path).train()
    assert generate.calls == 3  # type: ignore[attr-defined]


def test_a_generation_configuration_that_our_sampler_cannot_follow_is_followed(tmp_path: Path) -> None:
    def model() -> Any:
        made = load_model(NANO)
        made.generation_config.suppress_tokens = list(range(3, 20))
        return made

    seen: list[int] = []

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        seen.extend(token for ids in completion_ids for token in ids)
        return [float(len(ids)) for ids in completion_ids]

    trainer = make(EfficientGRPOTrainer, tmp_path, model, max_steps=1)
    trainer.reward_funcs = [reward]
    trainer.train()
    assert seen
    assert not set(seen) & set(range(3, 20))


def test_a_gold_answer_that_cannot_be_read_teaches_nothing(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}+{n}=", "check": "number", "gold": '{"answer": "forty"}'} for n in range(1, 9)]
    trainer = EfficientGRPOTrainer(
        load_model(NANO),
        [Accuracy(), StepRewards()],
        arguments(tmp_path, max_steps=1),
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(NANO),
    )
    before = weights(trainer)
    trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in weights(trainer).items())


@pytest.mark.parametrize("adapter", [None, LORA], ids=["whole", "lora"])
def test_an_ordinary_model_is_sampled_by_our_sampler(adapter: Any, tmp_path: Path) -> None:
    trainer = make(EfficientGRPOTrainer, tmp_path, peft_config=adapter, max_steps=1)
    with patch.object(GRPOTrainer, "_generate_single_turn", side_effect=AssertionError):
        trainer.train()
    assert trainer.state.global_step == 1


# What it draws


def test_rows_are_shuffled_as_in_stock_trl(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps_per_generation": 4, "per_device_train_batch_size": 4, "max_steps": 6}
    stock = make(Stock, tmp_path / "stock", **settings)
    stock.train()
    state = torch.get_rng_state()
    ours = make(Ours, tmp_path / "ours", **settings)
    ours.train()
    assert torch.equal(torch.get_rng_state(), state)
    theirs = weights(stock)
    for name, weight in weights(ours).items():
        torch.testing.assert_close(weight, theirs[name], rtol=1e-4, atol=1e-5)


def test_without_our_sampler_completions_are_those_of_stock_trl(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps_per_generation": 4, "per_device_train_batch_size": 4, "max_steps": 6}
    stock = make(GRPOTrainer, tmp_path / "stock", **settings)
    stock.train()
    ours = make(EfficientGRPOTrainer, tmp_path / "ours", optimizations=Optimizations(own_sampler=False), **settings)
    ours.train()
    for mine, line in zip(steps(ours), steps(stock), strict=True):
        assert mine.keys() >= line.keys()
        for key in line.keys() & {"loss", "reward", "completions/mean_length", "num_tokens"}:
            assert mine[key] == pytest.approx(line[key], rel=1e-4, abs=1e-6), key


def test_an_optimizer_that_draws_leaves_the_stream_of_random_numbers_alone(tmp_path: Path) -> None:
    states = []
    for option in ("full", "galore", "apollo"):
        make(Ours, tmp_path / option, strategy=strategy_of(option)).train()
        states.append(torch.get_rng_state())
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


# What it prints and shows


def test_log_lines_are_printed_as_by_stock_trl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for kind in (Stock, Ours):
        make(kind, tmp_path / kind.__name__).train()
        printed.append([line.split(":")[0] for line in capsys.readouterr().out.splitlines()])
    assert printed[1] == printed[0]
    assert len(printed[1]) == 4
    assert printed[1][0].startswith("{'loss'")


def test_the_model_card_is_stock_trls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards = []
    for kind in (Stock, Ours):
        folder = tmp_path / kind.__name__ / "trained"
        trainer = make(kind, folder, save_strategy="steps", save_steps=1, max_steps=1)
        trainer.train()
        beside_checkpoints = (folder / "README.md").read_text()
        trainer.create_model_card("my-model", dataset_name="sums", tags="mine")
        cards.append((beside_checkpoints, (folder / "README.md").read_text()))
        trainer.hub_model_id = "me/pushed"
        monkeypatch.setattr(HfApi, "upload_folder", lambda *_, **__: None)  # the hub itself
        trainer.push_to_hub()
        cards[-1] += ((folder / "README.md").read_text(),)
        assert (folder / "model.safetensors").is_file()
    assert cards[1] == cards[0]
    assert "my-model" in cards[0][1]


def test_runs_print_nothing_and_write_no_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    execute_tiny(tmp_path)
    make(RunTrainer, tmp_path, save_strategy="steps", save_steps=1).train()
    assert capsys.readouterr().out == ""
    assert (tmp_path / "checkpoint-3").is_dir()
    assert not (tmp_path / "README.md").exists()


def test_callbacks_are_stock_trls_and_one_of_ours(tmp_path: Path) -> None:
    stock, ours = ([type(one).__name__ for one in make(kind, tmp_path).callback_handler.callbacks] for kind in (Stock, Ours))
    assert ours[:-1] == stock


# The caller's arguments


def test_the_callers_arguments_are_the_trainers_own(tmp_path: Path) -> None:
    for strategy in (None, strategy_of("last_k")):
        args = arguments(tmp_path, beta=0.04)
        trainer = make(Ours, tmp_path, strategy=strategy, args=args)
        assert trainer.args is args
        args.max_steps, args.learning_rate = 2, 0.0
        trainer.train()
        assert trainer.state.global_step == 2
        assert steps(trainer)[0]["learning_rate"] == 0.0


def test_the_arguments_are_left_as_stock_trl_leaves_them(tmp_path: Path) -> None:
    """A model by its path, so that its keywords are read, also by reward models that TRL loads."""
    left = []
    for kind, extra in ((GRPOTrainer, {}), (EfficientGRPOTrainer, {}), (EfficientGRPOTrainer, {"strategy": Full()})):
        args = arguments(tmp_path, beta=0.04, model_init_kwargs={"dtype": "bfloat16"})
        data = Dataset.from_list([{"prompt": "1+1="}])
        trainer = kind(str(NANO.folder), reward, args, train_dataset=data, **extra)
        assert trainer.model.dtype == torch.bfloat16
        left.append({name: value for name, value in vars(args).items() if name in GRPOConfig.__dataclass_fields__})
    assert left[1] == left[0]
    assert left[2] == left[0]


def test_without_arguments_the_folder_is_stock_trls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_cpu = partial(GRPOConfig, bf16=False, use_cpu=True, report_to=[])
    for module in ("trl.trainer.grpo_trainer", "efficient_rl.training.model_setup"):
        monkeypatch.setattr(f"{module}.GRPOConfig", on_a_cpu)
    data = Dataset.from_list([{"prompt": "1+1="}])
    for model in (str(NANO.folder), load_model(NANO)):
        kinds = (GRPOTrainer, EfficientGRPOTrainer)
        folders = [
            kind(model, reward, train_dataset=data, processing_class=load_tokenizer(NANO)).args.output_dir for kind in kinds
        ]
        assert folders[1] == folders[0]
        assert folders[0].endswith("-GRPO")
