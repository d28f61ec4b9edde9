"""Rewards read what a model wrote, whether its tags are special tokens or not."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig

from efficient_rl.decoding import CompletionDecoder, code_of
from efficient_rl.doctor import learning
from efficient_rl.rewards.external import Imported
from efficient_rl.rewards.format import ThinkFormat
from efficient_rl.training.grpo import EfficientGRPOTrainer, Optimizations
from tests.conftest import execute_tiny, tiny_run
from tests.odd_models import NEWLINE, TAGS, byte_tokenizer, chain
from tests.own_parts import in_verdict_tags

BOXES = ("\\boxed{", "\\boxed", "\\fbox{", "####", "#### ")
ANSWER = [NEWLINE, "<think>", "a", "</think>", "<answer>", "7", "</answer>", "<eos>"]


def sevens(folder: Path) -> Path:
    """Forty questions whose answer is 7."""
    path = folder / "sevens.jsonl"
    rows = [{"question": f"Number {n}: what is {n % 6 + 1} plus {6 - n % 6}?", "answer": "7"} for n in range(40)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize("token", [*TAGS, *BOXES])
def test_marks_of_answers_stay_though_they_are_special_tokens(token: str) -> None:
    tokenizer = byte_tokenizer(special=[token])
    ids = tokenizer(f"so {token}7", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "so 7"
    assert CompletionDecoder(tokenizer, ())([[*ids, tokenizer.eos_token_id, tokenizer.pad_token_id]]) == [f"so {token}7"]


def test_special_tokens_that_a_reward_names_stay_and_others_go() -> None:
    tokenizer = byte_tokenizer(special=["<verdict>", "</verdict>", "<|note|>", "<|tool_call|>"])
    ids = tokenizer("<|begin|><verdict>yes</verdict><|note|>.<|tool_call|><|end|>", add_special_tokens=False)["input_ids"]
    assert CompletionDecoder(tokenizer, (), code_of([in_verdict_tags]))([ids]) == ["<verdict>yes</verdict>."]
    assert CompletionDecoder(tokenizer, (), code_of([ThinkFormat()]))([ids]) == ["yes."]
    assert CompletionDecoder(tokenizer, (), r"re.compile(r'<\|tool_call\|>')")([ids]) == ["yes.<|tool_call|>"]
    settings = code_of([Imported("trl.rewards.think_format_reward", arguments={"open": "<|note|>"})])
    assert CompletionDecoder(tokenizer, (), settings)([ids]) == ["yes<|note|>."]


def test_tokens_that_end_a_completion_go_whatever_they_are() -> None:
    tokenizer = byte_tokenizer(plain=["<|turn|>"])
    ends = {tokenizer.convert_tokens_to_ids("<|turn|>")}
    ids = tokenizer("7<|turn|>", add_special_tokens=False)["input_ids"]
    code = "names <|turn|>, <eos> and <pad>"
    assert CompletionDecoder(tokenizer, (), code)([ids]) == ["7<|turn|>"]  # an ordinary token
    assert CompletionDecoder(tokenizer, ends, code)([[*ids, tokenizer.eos_token_id, tokenizer.pad_token_id]]) == ["7"]
    closing = byte_tokenizer(special=TAGS, end="</answer>")  # of a model that was taught to stop there
    assert CompletionDecoder(closing, ())([closing("<answer>7</answer>")["input_ids"]]) == ["<answer>7</answer>"]


def test_without_marks_among_the_special_tokens_the_text_is_the_tokenizers_own() -> None:
    tokenizer = byte_tokenizer(plain=TAGS)
    text = "<|begin|>assistant\n<think>é \N{SNOWMAN}</think> \\boxed{7}<|end|><eos>"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert CompletionDecoder(tokenizer, ())([ids]) == [tokenizer.decode(ids, skip_special_tokens=True)]


@pytest.mark.parametrize("reward", ["reward=accuracy", "reward=r1", "reward=tinyzero"])
def test_accuracy_and_reward_do_not_depend_on_how_tags_are_registered(tmp_path: Path, reward: str) -> None:
    found = {}
    for kind in ("plain", "special"):
        folder = chain(tmp_path / kind, byte_tokenizer(**{kind: TAGS}), ANSWER, logit=9.0)
        result, record = execute_tiny(
            tmp_path / "runs", "model=local", f"model.path={folder}", "task=table", f"task.path={sevens(tmp_path)}", reward,
            "grpo.max_steps=1", "grpo.max_completion_length=12", "grpo.train_problems=16", "eval.problems=4",
        )  # fmt: skip
        (earned,) = [row["metrics"]["train/reward"] for row in record.metrics() if "train/reward" in row["metrics"]]
        found[kind] = (result.accuracy_before, earned)
    assert found["plain"] == found["special"]
    assert min(found["plain"]) > 0.5


def test_the_doctor_reads_its_right_answer_as_training_does(tmp_path: Path) -> None:
    folder = chain(tmp_path / "model", byte_tokenizer(special=TAGS), ANSWER)
    run = tiny_run("model=local", f"model.path={folder}", "task=arithmetic", "reward=r1")
    (finding,) = learning.check_golden(run)
    assert (finding.level, finding.what) == ("ok", "a right answer earns 2.00, a wrong one 0.00")


@pytest.mark.parametrize("conversational", [False, True])
@pytest.mark.parametrize("own_sampler", [False, True])
def test_in_a_script_of_ones_own_rewards_read_the_tags_too(tmp_path: Path, conversational: bool, own_sampler: bool) -> None:
    folder = chain(tmp_path / "model", byte_tokenizer(special=(*TAGS, "<|note|>")), ANSWER)
    seen: list[Any] = []

    def tags(completions: list[Any], **_: Any) -> list[float]:
        seen.extend(completions)
        return [float(index % 2) for index in range(len(completions))]

    prompt: Any = [{"role": "user", "content": "7?"}] if conversational else "7?\n"

    trainer = EfficientGRPOTrainer(
        AutoModelForCausalLM.from_pretrained(folder), [tags],
        GRPOConfig(
            output_dir=str(tmp_path / "out"), use_cpu=True, bf16=False, report_to=[], max_steps=1, num_generations=4,
            per_device_train_batch_size=4, max_completion_length=12, logging_steps=1, disable_tqdm=True, save_strategy="no",
        ),
        train_dataset=Dataset.from_list([{"prompt": prompt}] * 4), processing_class=AutoTokenizer.from_pretrained(folder),
        optimizations=Optimizations(own_sampler=own_sampler),
    )  # fmt: skip
    trainer.train()
    texts = [completion[0]["content"] if conversational else completion for completion in seen]
    assert texts == ["<think>a</think><answer>7</answer>"] * 4
    assert trainer.processing_class.batch_decode([[trainer.processing_class.eos_token_id]]) == ["<eos>"]
