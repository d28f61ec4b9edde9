"""What would end runs is said before one starts: all of it at once, each fault with its number of runs."""

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from efficient_rl.config.options import group_options
from efficient_rl.config.run_config import RunConfig
from efficient_rl.errors import ConfigError
from efficient_rl.launch.debug import DebugLauncher
from efficient_rl.launch.slurm.launcher import SlurmLauncher
from efficient_rl.preflight import inspection
from efficient_rl.preflight.alphabet import read_alphabet
from efficient_rl.preflight.imports import trouble_with
from efficient_rl.preflight.inspection import inspect_models
from efficient_rl.sweep.request import read_request
from tests.conftest import Sweep, tiny, tiny_run

IMPORTED = "+reward.own._target_=efficient_rl.rewards.external.Imported"
NO_GPU = "needs a GPU, and a run has none here"


@pytest.fixture
def rows() -> Path:
    """A file of 20 sums, of which two are held out."""
    lines = [json.dumps({"question": f"{number}+1:", "answer": str(number + 1)}) for number in range(20)]
    Path("rows.jsonl").write_text("\n".join(lines))
    return Path("rows.jsonl")


TABLE = ("task=table", "task.path=rows.jsonl", "task.check=number", "grpo.train_problems=10", "eval.problems=1")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["task=table"], "task.path='problems.jsonl' is neither a file nor a folder"),
        (["task=table", "task.path=nowhere/at/all"], "task.path='nowhere/at/all' is neither a file nor a folder"),
        (["task=math", "task.path=gone.jsonl"], "task.path='gone.jsonl' is neither"),
        ([*TABLE, "task.held_out=path:gone.jsonl"], "task.held_out='gone.jsonl' is neither"),
        ([*TABLE, "task.path=empty.jsonl"], "empty.jsonl has no rows"),
        ([*TABLE, "task.path=folder"], "has no file for the split 'train'"),
        ([*TABLE, "task.question=qestion"], "qestion"),
        ([*TABLE, "task.answer=reply"], "reply"),
        ([*TABLE, "eval.problems=5"], "5 problems asked, but there are only"),
        ([*TABLE, "grpo.train_problems=4000"], "4000 problems asked, but there are only"),
        (
            [*TABLE, "eval.sets={own:{_target_:efficient_rl.tasks.datasets.Table,path:gone.csv}}"],
            "path='gone.csv' is neither",
        ),
        (
            ["task=arithmetic", "task.digits=[1]", "task.operators=[+]", "eval.problems=500"],
            "distinct held_out problems found",
        ),
        (["task=gsm8k"], "model=nano has no tokens for words"),
        (["eval.sets=[gsm8k]"], "which the data set of task=gsm8k is in"),
        (["task=chain", "model=nano", "prompt=chat_boxed"], "has no chat template"),
        (["prompt=few_shot"], "which problems of task=countdown hold, such as 'Using all of the numbers"),
        ([IMPORTED, "+reward.own.path=trl.rewards.think_formt_reward"], "did you mean 'think_format_reward'?"),
        ([IMPORTED, "+reward.own.path=trl.reward.think_format_reward"], "there is no module 'trl.reward'"),
        ([IMPORTED, "+reward.own.path=no_such_package.reward"], "there is no module 'no_such_package'; install"),
        (["grpo.sampler=vllm_colocate"], NO_GPU),
        (["grpo.sampler=vllm_server"], "needs the package vllm"),
        (["grpo.sampler=continuous_batching"], NO_GPU),
        (["model.attn_implementation=flash_attention_2"], NO_GPU),
        (["launcher=slurm", "launcher.gpus_per_node=0", "grpo.sampler=vllm_colocate"], NO_GPU),
        (["+reward.own._target_=efficient_rl.rewards.format.NoSuchClass"], "NoSuchClass"),
        (["strategy.k=7", "strategy=last_k"], "strategy.k=7 exceeds the model's 6 blocks"),
        (["model.path=weightless"], "has no weights"),
        (["model.path=folder"], "has no config.json"),
        (["search=tpe"], "a search needs a space, and this one has 1 run"),
        (["-m", "search=tpe", "strategy=choice(full)"], "a search needs a space, and this one has 1 run"),
        (["-m", "search=tpe", "strategy=full,lora", "filter=seed > 0"], "this one has 0 runs"),
        (["-m", "search=tpe", "strategy=full,lora", "task=table"], "task.path='problems.jsonl' is neither"),
        (["-m", "search=per_arm", "strategy=full,lora", "task=table"], "task.path='problems.jsonl' is neither"),
        (["-m", "search=tpe", "grpo.learning_rate=interval(1e-3,1e-5)"], "is no interval; use interval(low, high)"),
        (["-m", "search=tpe", "grpo.learning_rate=interval(1e-3,1e-3)"], "is no interval"),
    ],
)
def test_a_dry_run_says_what_would_end_a_run(rows: Path, sweep_here: Sweep, overrides: list[str], said: str) -> None:
    Path("empty.jsonl").touch()
    Path("folder").mkdir()
    Path("weightless").mkdir()
    Path("weightless/config.json").write_text("{}")
    done = sweep_here(*tiny(overrides), "dry_run=true", "tracking.uri=none")
    assert done.returncode == 2, done.stdout
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "overrides",
    [
        [*TABLE],
        ["task=gsm8k", "model=qwen2.5_0.5b"],
        ["task=arithmetic", "eval.sets=[countdown]"],
        [IMPORTED, "+reward.own.path=trl.rewards.think_format_reward"],
        [IMPORTED, "+reward.own.path=math.fsum"],
        ["launcher=slurm", "grpo.sampler=continuous_batching"],
        ["-m", "search=hyperband", "strategy=full,lora", "grpo.max_steps=11"],
        ["-m", "search=tpe", "grpo.learning_rate=interval(1e-5,1e-3)"],
    ],
)
def test_what_can_run_is_planned(rows: Path, sweep_here: Sweep, overrides: list[str]) -> None:
    done = sweep_here(*tiny(overrides), "dry_run=true", "tracking.uri=none")
    assert done.returncode == 0, done.stderr
    assert "nothing was started" in done.stdout


@pytest.mark.parametrize(
    ("steps", "report_steps", "said"),
    [
        (10, 5, "search.pruner.min_resource=10 with search.report_steps=5 ends no run of grpo.max_steps=10 early"),
        (12, 6, "search.report_steps=6 ends no run of grpo.max_steps=12 early"),
        (11, 5, None),
        (14, 6, None),
    ],
)
def test_a_pruner_that_can_end_no_run_is_said(sweep_here: Sweep, steps: int, report_steps: int, said: str | None) -> None:
    settings = (f"grpo.max_steps={steps}", f"search.report_steps={report_steps}")
    done = sweep_here("-m", "search=hyperband", "strategy=full,lora", *settings, "dry_run=true", "tracking.uri=none")
    assert done.returncode == 0, done.stderr
    assert ("warning: " in done.stdout) == (said is not None)
    assert said is None or said in done.stdout


def test_all_faults_stand_in_one_list_each_once_with_its_number_of_runs(sweep_here: Sweep) -> None:
    sweeps = ["-m", "task=table,countdown", "seed=0,1", "grpo.sampler=own,vllm_colocate"]
    done = sweep_here(*sweeps, "tracking.uri=none")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert lines[0] == "error: 2 faults, nothing was started:"
    assert [line.rpartition("(")[2] for line in lines[1:]] == ["4 of 8 runs)", "4 of 8 runs)"]
    assert not Path("outputs").exists()


def test_combinations_that_cannot_be_are_listed_together(sweep_here: Sweep) -> None:
    done = sweep_here("-m", "strategy=last_k,lora", "strategy.k=9,7", "lora.rank=0,8", "dry_run=true")
    assert done.returncode == 2
    assert done.stderr.startswith("error: 3 faults, nothing was started:\n")
    assert "strategy.k=9 exceeds the model's 6 blocks; use k<=6 or strategy=full (2 of 8 runs)" in done.stderr
    assert "lora.rank=0 must be a whole number of at least 1 (2 of 8 runs)" in done.stderr


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama, whose layers have no biases, with nano's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    tokenizer = AutoTokenizer.from_pretrained(str(tiny_run().model.folder))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2}
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=len(tokenizer), **ids)).save_pretrained(folder)
    return folder


def faults(*overrides: str) -> list[str]:
    return [text for text, hashes in inspect_models([tiny_run(*overrides)]) if hashes]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["strategy=bitfit"], "strategy=bitfit on model=llama0: strategy.parts: LlamaForCausalLM has no biases"),
        (["strategy=lora", "lora.target_modules=[c_attn]"], "'c_attn' names no linear module"),
        (["strategy=lora", "lora.target_modules=nothing"], "names no linear module"),
        (["strategy=modules", "strategy.patterns=[wte]"], "'wte' finds no parameter"),
        (["strategy=last_k", "strategy.also_train=[wte]"], "also_train='wte' names no parameter"),
        (["strategy=pissa", "lora.rank=40"], "exceeds the"),
        (["strategy=galore", "strategy.rank=40"], "exceeds the shorter side"),
        (["prompt.stop='~'"], "is in no token"),
        ([IMPORTED, "+reward.own.path=trl.rewards.think_formt_reward"], "has no 'think_formt_reward'"),
        (["task=gym", "task.generator=leg_counting"], "has no tokens for"),
    ],
)
def test_a_model_without_weights_says_what_would_end_a_run(llama: Path, overrides: list[str], said: str) -> None:
    found = faults(f"model.path={llama}", *overrides)
    assert any(said in text for text in found), found


@pytest.mark.slow
@pytest.mark.parametrize("model", ["nano", "llama"])
def test_no_strategy_that_works_is_refused(llama: Path, model: str) -> None:
    own = [f"model.path={llama}", "lora.rank=4"] if model == "llama" else []
    refused = {}
    for name in group_options()["strategy"]:
        if found := faults(*own, f"strategy={name}"):
            refused[name] = found
    assert set(refused) == ({"bitfit"} if model == "llama" else set())


def test_processes_that_cannot_share_the_batch_are_refused() -> None:
    run = tiny_run("grpo.per_device_train_batch_size=6", "grpo.gradient_accumulation_steps=2", "grpo.num_generations=3")
    assert [text for text, _ in inspect_models([run], processes=5)] != []
    assert [text for text, _ in inspect_models([run], processes=1)] == []


@pytest.mark.slow
def test_a_launch_is_refused_before_anything_is_written(llama: Path, sweep: Sweep) -> None:
    done = sweep("-m", "strategy=bitfit,full", "seed=0,1", f"model.path={llama}", "tracking.uri=none")
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("LlamaForCausalLM has no biases") == 1
    assert "(2 of 4 runs)" in done.stderr
    assert "Traceback" not in done.stderr


def test_checks_of_models_can_be_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    run = tiny_run("prompt.stop='~'")
    for wanted in ("true", "false"):
        request = read_request([f"check_models={wanted}"], multirun=False)
        with pytest.raises(ConfigError, match="is in no token") if wanted == "true" else nullcontext():
            request.check_models([run], DebugLauncher(), Console(quiet=True))
        assert request.settings["check_models"] is (wanted == "true")


@pytest.mark.slow
def test_for_a_cluster_the_checks_run_in_a_process_that_ends_with_them(llama: Path, tmp_path: Path) -> None:
    launcher = SlurmLauncher(gpus_per_node=0)
    runs = [tiny_run("strategy=bitfit", f"model.path={llama}"), tiny_run("strategy=full", f"model.path={llama}")]
    with pytest.raises(ConfigError, match=r"has no biases.*\(1 of 2 runs\)"):
        inspection.refuse_model_faults(runs, launcher, Console(quiet=True), tmp_path)
    inspection.refuse_model_faults(runs[1:], launcher, Console(quiet=True), tmp_path)
    assert (tmp_path / inspection.FILE).exists()
    assert multiprocessing.active_children() == []


def test_runs_that_were_found_faultless_are_not_checked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = list[list[str]]()

    def inspect(runs: Sequence[RunConfig], processes: int) -> Iterator[tuple[str, list[str]]]:
        looked_at.append([run.strategy.name for run in runs])
        yield from inspect_models(runs, processes)

    monkeypatch.setattr(inspection, "inspect_models", inspect)
    full, lora, bad = (tiny_run(text) for text in ("strategy=full", "strategy=lora", "prompt.stop='~'"))
    console, launcher = Console(quiet=True), DebugLauncher()
    for runs in ([full], [full], [full, lora]):
        inspection.refuse_model_faults(runs, launcher, console, tmp_path)
    assert looked_at == [["full"], ["lora"]]
    for _ in range(2):
        with pytest.raises(ConfigError, match="is in no token"):
            inspection.refuse_model_faults([bad], launcher, console, tmp_path)


def test_a_model_that_is_not_here_is_not_checked_and_not_fetched() -> None:
    found = list(inspect_models([tiny_run("model=qwen2.5_0.5b", "model.path=nobody/has-this", "strategy=bitfit")]))
    assert ("model=has-this, which is not on this machine yet", []) in found


@pytest.mark.parametrize(
    "path", ["json.loads", "trl.rewards.think_format_reward", "os.path.join", "math.sqrt", "torch.nn.ReLU"]
)
def test_a_path_that_can_be_imported_is_no_trouble(path: str) -> None:
    assert trouble_with(path) is None


def test_the_embedded_model_reads_numbers_and_signs_only() -> None:
    alphabet = read_alphabet(tiny_run().model.folder)
    assert alphabet is not None
    assert alphabet.unknown("12 + 7 = 19:") == ""
    assert set(alphabet.unknown("Tom has 3 apples")) >= set("Tomas")


def test_a_vocabulary_of_all_bytes_writes_everything(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    inner.decoder = decoders.ByteLevel()
    inner.save(str(tmp_path / "tokenizer.json"))
    assert read_alphabet(tmp_path) is None
    without: Callable[[str], Any] = lambda letter: {each: number for number, each in enumerate(letters) if each != letter}  # noqa: E731
    inner = Tokenizer(models.BPE(vocab=without("é"), merges=[]))
    inner.decoder = decoders.ByteLevel()
    (tmp_path / "other").mkdir()
    inner.save(str(tmp_path / "other" / "tokenizer.json"))
    alphabet = read_alphabet(tmp_path / "other")
    assert alphabet is not None
    assert alphabet.unknown("abc") == ""
