"""The doctor's memory estimate is what training measures, and its remedies fit."""

from dataclasses import replace
from pathlib import Path

import pytest

from efficient_rl.config.run_config import RunConfig
from efficient_rl.doctor import memory
from efficient_rl.doctor.host import this_host
from efficient_rl.doctor.machines import Machine, machine_of
from efficient_rl.launch.local import LocalLauncher
from efficient_rl.launch.slurm.launcher import SlurmLauncher
from efficient_rl.preflight.dry_step import Step
from efficient_rl.preflight.memory import estimate_memory
from efficient_rl.rundir.result import RunResult
from tests.conftest import execute_tiny, slow_unless, tiny_run

HERE = Machine("this machine", 64 << 30, on_gpu=False)
PHASES = ("forward", "backward", "generation", "reference", "old_policy", "scoring", "optimizer")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model made from a configuration: Llama, untied. Untrained, it hardly ever ends a completion."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("made")
    tokenizer = AutoTokenizer.from_pretrained(str(tiny_run().model.folder))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        hidden_size=96, intermediate_size=320, num_hidden_layers=5, num_attention_heads=6, num_key_value_heads=2,
        vocab_size=2048, tie_word_embeddings=False, max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id))  # fmt: skip
    model.save_pretrained(folder)
    return folder


def estimated_and_measured(folder: Path, *overrides: str) -> tuple[memory.Verdict, RunResult, int, float]:
    """The doctor's verdict, the result, its peak in training, and the largest mean length of a step's completions."""
    overrides = ("grpo.per_device_train_batch_size=32", "grpo.num_generations=4", *overrides)
    result, record = execute_tiny(folder, *overrides)
    lengths = [row["metrics"].get("train/completion_tokens", 0.0) for row in record.metrics()]
    peak = max(size for phase, size in result.peak_memory_bytes.items() if phase in PHASES)
    return memory.check_memory(tiny_run(*overrides), HERE), result, peak, max(lengths)


@pytest.mark.parametrize(
    ("strategy", "extra"),
    [
        ("full", "grpo.gradient_accumulation_steps=1"),
        pytest.param("first_k", "grpo.gradient_accumulation_steps=2", marks=pytest.mark.slow),
        pytest.param("last_k", "grpo.gradient_accumulation_steps=1", marks=pytest.mark.slow),
        ("lora", "grpo.gradient_checkpointing=true"),
    ],
)
def test_where_completions_are_full_the_estimate_is_right_to_a_twentieth(
    tmp_path: Path, made: Path, strategy: str, extra: str
) -> None:
    overrides = (f"strategy={strategy}", "grpo.beta=0.04", f"model.path={made}", extra)
    verdict, result, peak, length = estimated_and_measured(tmp_path, *overrides)
    step, parts = verdict.step, result.memory_parts_bytes
    assert length > 0.95 * tiny_run().grpo.max_completion_length
    assert parts["parameters"] == step.parameters
    assert parts["gradients"] == step.gradients
    assert parts["optimizer_state"] == pytest.approx(step.optimizer_state, rel=0.01)  # and a step count a tensor
    if strategy != "lora":  # whose reference is the model without its adapter
        assert parts["reference"] == step.reference
    assert parts["activations"] == pytest.approx(step.activations, rel=0.05)
    assert peak == pytest.approx(step.peak, rel=0.05)


@pytest.mark.parametrize("strategy", slow_unless(("last_k",), ("last_k", "badam")))
def test_of_the_embedded_model_the_estimate_is_an_upper_bound_and_a_close_one(tmp_path: Path, strategy: str) -> None:
    verdict, _, peak, _ = estimated_and_measured(tmp_path, f"strategy={strategy}", "grpo.beta=0.04")
    assert peak <= verdict.step.peak <= 1.4 * peak


@pytest.mark.slow
def test_a_remedy_fits_and_is_the_smallest_change_that_does(made: Path) -> None:
    overrides = (f"model.path={made}", "grpo.per_device_train_batch_size=64", "grpo.beta=0.04")
    known = dict[str, Step]()

    def measure(run: RunConfig) -> Step:
        if run.config_hash not in known:
            known[run.config_hash] = memory.measured(run, HERE, 16)
        return known[run.config_hash]

    def peak(*more: str) -> int:
        return measure(tiny_run(*overrides, *more)).peak

    def remedy(room: float) -> list[str]:
        found = memory.first_fit(tiny_run(*overrides), room, measure)
        assert found is not None
        assert peak(*found[0].split()) == found[1].peak <= room
        return found[0].split()

    room = 0.4 * peak()
    changed = remedy(room)
    assert changed == ["grpo.per_device_train_batch_size=16", "grpo.gradient_accumulation_steps=4"]
    assert peak("grpo.per_device_train_batch_size=32", "grpo.gradient_accumulation_steps=2") > room
    single = ("grpo.per_device_train_batch_size=1", "grpo.gradient_accumulation_steps=64")
    assert set(single) < set(remedy(0.97 * peak(*single)))  # where that is not enough, it goes on from there


def test_what_fits_nowhere_has_no_remedy_among_the_settings() -> None:
    step = memory.measured(tiny_run(), HERE, 16)
    assert memory.first_fit(tiny_run(), 1, lambda run: step) is None


@pytest.mark.slow
def test_evaluation_counts_and_is_made_smaller_where_it_is_too_large() -> None:
    run = tiny_run(
        "eval.problems=512", "eval.samples=4", "grpo.per_device_train_batch_size=4", "grpo.max_completion_length=64"
    )
    small = replace(run, eval=replace(run.eval, problems=16))
    tokens = memory.prompt_tokens(run)
    step, less = memory.measured(run, HERE, tokens), memory.measured(small, HERE, tokens)
    assert step.evaluating > 4 * less.evaluating
    assert step.backward == less.backward
    found = memory.first_fit(run, step.held + step.evaluating // 2, lambda changed: memory.measured(changed, HERE, tokens))
    assert found is not None
    assert found[0].startswith("eval.problems=")


def test_processes_share_the_batch_and_fsdp_the_weights() -> None:
    run = tiny_run("grpo.gradient_accumulation_steps=2", "grpo.beta=0.04")
    alone = memory.measured(run, HERE, 16)
    two = memory.measured(run, replace(HERE, processes=2), 16)
    shards = memory.measured(run, replace(HERE, processes=2, sharded=True), 16)
    assert two.activations == pytest.approx(alone.activations / 2, rel=0.1)
    assert two.parameters == alone.parameters
    assert shards.optimizer_state == alone.optimizer_state // 2


def test_bfloat16_takes_less_for_activations_and_the_same_for_weights() -> None:
    run = tiny_run("model.dtype=auto")
    gpu = replace(HERE, half=True, on_gpu=True)
    whole, half = memory.measured(run, HERE, 16), memory.measured(run, gpu, 16)
    assert half.activations < 0.8 * whole.activations
    assert half.parameters == whole.parameters
    assert memory.measured(tiny_run("model.dtype=float32"), gpu, 16) == whole


def test_frozen_weights_in_bfloat16_take_half(tmp_path: Path) -> None:
    overrides = ("strategy=last_k", "model.compute=bfloat16")
    step = memory.measured(tiny_run(*overrides), HERE, 16)
    result, _ = execute_tiny(tmp_path, *overrides)
    assert result.memory_parts_bytes["parameters"] == step.parameters
    plain = memory.measured(tiny_run("strategy=last_k"), HERE, 16)
    narrow = [
        memory.measured(tiny_run("strategy=last_k", "model.compute=auto"), replace(HERE, half=half), 16)
        for half in (False, True)
    ]
    assert narrow == [plain, step]
    estimates = [estimate_memory(tiny_run("strategy=last_k", f"model.compute={word}")) for word in ("float32", "bfloat16")]
    assert None not in estimates
    saved = estimates[0].training - estimates[1].training
    assert saved == pytest.approx(plain.parameters - step.parameters, rel=0.01)


def test_the_memory_of_a_machine_is_shared_by_all_that_runs_there() -> None:
    host = replace(this_host(), available_bytes=8 << 30, limit_bytes=None)
    assert machine_of(LocalLauncher(workers=4), 4, [], host).available_bytes == 2 << 30
    cpus = SlurmLauncher(gpus_per_node=0, runs_per_gpu=4, runs_per_job=8, mem_gb=16)
    assert machine_of(cpus, 4, [], host).available_bytes == 4 << 30
    assert machine_of(SlurmLauncher(), 1, [], host).available_bytes is None


def test_slurms_memory_must_hold_the_weights_that_processes_load() -> None:
    step = memory.measured(tiny_run(), HERE, 16)
    large = replace(step, parameters=12 << 30)
    assert memory.check_loading("it", step, SlurmLauncher(mem_gb=4)) == []
    (found,) = memory.check_loading("it", large, SlurmLauncher(mem_gb=8))
    assert found.level == "failure"
    assert found.remedy == "launcher.mem_gb=15"
