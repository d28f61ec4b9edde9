"""Prompts say what their template says, and where the completion begins, ends and answers."""

import pytest
from transformers import PreTrainedTokenizerBase

from efficient_rl.config.compose import expand
from efficient_rl.config.run_config import parse_run
from efficient_rl.config.schema import ModelConfig, PromptSettings
from efficient_rl.errors import ConfigError
from efficient_rl.models import load_model, load_tokenizer
from efficient_rl.prompts import Prompts
from efficient_rl.tasks.arithmetic import Arithmetic
from efficient_rl.tasks.countdown import Countdown
from efficient_rl.tasks.problem import Problem
from tests.conftest import tiny_run

NANO = tiny_run().model
COUNTDOWN = Countdown().problems("train", 3, 0)
CHAT = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    """Nano's, with a chat template."""
    loaded = load_tokenizer(NANO)
    loaded.chat_template = CHAT
    return loaded


def settings(option: str, *overrides: str) -> PromptSettings:
    return parse_run(expand([f"prompt={option}", *overrides])[0]).prompt


def model(prompt: str, **more: str) -> ModelConfig:
    return ModelConfig("x", NANO.path, prompt, "auto", "auto", **more)


def test_the_models_own_form_is_symbols_plain_or_chat(tokenizer: PreTrainedTokenizerBase) -> None:
    problem, own = COUNTDOWN[0], settings("model")
    assert Prompts(model("symbols"), own, tokenizer).write(problem) == problem.symbols
    plain = Prompts(model("plain"), own, tokenizer).write(problem)
    assert plain.startswith(problem.question)
    assert plain.endswith("</answer>.\n")
    chat = Prompts(model("chat", system_prompt="Think."), own, tokenizer).write(problem)
    assert chat.startswith(f"system: Think.\nuser: {problem.question} Show your work")
    assert chat.endswith("assistant:")


def test_r1_zero_ends_with_the_assistants_turn(tokenizer: PreTrainedTokenizerBase) -> None:
    text = Prompts(model("plain"), settings("r1_zero"), tokenizer).write(COUNTDOWN[0])
    assert text.startswith("A conversation between User and Assistant.")
    assert text.endswith(f" User: {COUNTDOWN[0].question} Assistant:")


def test_tinyzeros_templates_name_the_numbers_and_open_the_thinking(tokenizer: PreTrainedTokenizerBase) -> None:
    problem = COUNTDOWN[0]
    wanted = f"Using the numbers {problem.gold['numbers']}, create an equation that equals {problem.gold['target']}."
    base = Prompts(model("plain"), settings("tinyzero_base"), tokenizer).write(problem)
    assert f"\nUser: {wanted} You can use" in base
    assert base.endswith("</answer>.\nAssistant: Let me solve this step by step.\n<think>")
    instruct = Prompts(model("symbols"), settings("tinyzero_instruct"), tokenizer).write(problem)
    assert instruct.startswith("system: You are a helpful assistant.")
    assert f"user: {wanted}" in instruct
    assert instruct.endswith("assistant:Let me solve this step by step.\n<think>")


def test_a_template_refuses_problems_without_its_numbers(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = Prompts(model("plain"), settings("tinyzero_base"), tokenizer)
    with pytest.raises(ConfigError, match=r"needs \{(numbers|target)\}, which problems of arithmetic do not have"):
        prompts.write(Arithmetic().problems("train", 1, 0)[0])


def test_few_shot_prompts_show_solved_problems_first(tokenizer: PreTrainedTokenizerBase) -> None:
    first, second, third = COUNTDOWN
    text = Prompts(model("plain"), settings("few_shot", "prompt.shots=2"), tokenizer, COUNTDOWN[:2]).write(third)
    shown = [f"Question: {problem.question}\nAnswer: {problem.solution}\n\n" for problem in (first, second)]
    assert text == f"{shown[0]}{shown[1]}Question: {third.question}\nAnswer:"


def test_braces_in_a_problem_are_not_placeholders(tokenizer: PreTrainedTokenizerBase) -> None:
    problem = Problem(r"What is \frac{target}{2}?", "", "number", {"answer": "1"}, 1.0, "x", "x")
    text = Prompts(model("plain"), settings("r1_zero"), tokenizer).write(problem)
    assert r"User: What is \frac{target}{2}? Assistant:" in text


def test_a_completion_stops_at_every_token_with_the_stop_text(tokenizer: PreTrainedTokenizerBase) -> None:
    loaded = load_model(NANO)
    plain = Prompts(model("plain"), settings("model"), tokenizer).stop_ids(loaded)
    line = Prompts(model("plain"), settings("few_shot"), tokenizer, COUNTDOWN).stop_ids(loaded)
    assert plain == [tokenizer.eos_token_id]
    assert set(line) - set(plain) == {tokenizer.encode("\n", add_special_tokens=False)[0]}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("prompt.place=middle", r"prompt\.place='middle' is not known; .*first_line"),
        ("prompt.shots=3", r"prompt\.shots=3 and \{examples\} in prompt\.template need each other"),
        ("prompt.stop=''", r"prompt\.stop='' must not be empty"),
    ],
)
def test_settings_that_cannot_work_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings("model", override)


def test_a_missing_chat_template_ends_in_a_remedy() -> None:
    with pytest.raises(ConfigError, match=r"has no chat template.*use model\.prompt=plain"):
        Prompts(model("chat"), settings("model"), load_tokenizer(NANO))


def test_a_prompt_that_the_tokenizer_cannot_write_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"has no tokens for 'H'.*prompt=model"):
        Prompts(NANO, settings("model"), load_tokenizer(NANO)).encode("H3+4:")


def test_many_prompts_are_encoded_as_each_alone_and_the_first_that_cannot_be_is_named() -> None:
    prompts = Prompts(NANO, settings("model"), load_tokenizer(NANO))
    rows = prompts.rows(COUNTDOWN)
    assert [row["prompt_ids"] for row in rows] == list(map(prompts.encoded, COUNTDOWN))
    assert [row["prompt"] for row in rows] == list(map(prompts.write, COUNTDOWN))
    with pytest.raises(ConfigError, match=r"has no tokens for 'H' in the prompt 'H3\+4:'"):
        prompts.encode_all(["1+2:", "H3+4:", "G5+6:"])


def test_a_stop_that_no_token_holds_is_refused() -> None:
    prompts = Prompts(model("plain"), settings("model", "prompt.stop='never so written'"), load_tokenizer(NANO))
    with pytest.raises(ConfigError, match=r"prompt\.stop='never so written' is in no token"):
        prompts.stop_ids(load_model(NANO))
