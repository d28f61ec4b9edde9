"""A chat template gives the same prompt on any day, refuses in one line, and what it opens counts as the completion's."""

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from efficient_rl.chat import ChatTemplate
from efficient_rl.config.schema import DATE, ModelConfig, PromptSettings
from efficient_rl.doctor import learning, prompt
from efficient_rl.errors import ConfigError
from efficient_rl.prompts import Prompts
from efficient_rl.tasks.arithmetic import Arithmetic
from tests.conftest import execute_tiny, tiny_run
from tests.odd_models import HEADER, NEWLINE, TAGS, TEMPLATE, byte_tokenizer, chain, random_model
from tests.test_decoding import sevens

PROBLEM = Arithmetic().problems("train", 1, 0)[0]
LOOP = "{% for m in messages %}"
TURN = "<|begin|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n"
GENERATION = "{% if add_generation_prompt %}<|begin|>assistant\nOPENING{% endif %}"
THOUGHT = "{% if m['role'] == 'assistant' %}<|begin|>assistant\n<think>\n</think>\n{{ m['content'] }}<|end|>\n{% else %}"


def opened(opening: str) -> str:
    """A template that opens an answer so."""
    return LOOP + TURN + "{% endfor %}" + GENERATION.replace("OPENING", opening)


OPENINGS = {
    "nothing": (TEMPLATE, ""),
    "think": (opened("<think>\n"), "<think>\n"),
    "an empty thought": (opened("<think>\n\n</think>\n\n"), "<think>\n\n</think>\n\n"),
    "words and a tag": (opened("Sure.\n<think>"), "Sure.\n<think>"),
    "tags of its own": (opened("<reasoning>\n"), "<reasoning>\n"),
    "white space": (opened("\n"), ""),
    "whether asked or not": (
        LOOP + "{% if m['role'] == 'assistant' %}{{ m['content'] }}<|end|>\n{% else %}" + TURN
        + "<|begin|>assistant\n{% if loop.last %}<think>\n{% endif %}{% endif %}{% endfor %}",
        "<think>\n",
    ),
    "before earlier answers too": (
        LOOP + THOUGHT + TURN + "{% endif %}{% endfor %}" + GENERATION.replace("OPENING", "<think>\n"),
        "<think>\n",
    ),
    "for one question only": (
        "{% if messages | length > 2 %}{{ raise_exception('one question') }}{% endif %}" + opened("<think>\n"),
        "<think>\n",
    ),
    "the system message in the last question": (
        "{% for m in messages %}{% if m['role'] == 'user' %}[Q]{% if loop.last %}{{ messages[0]['content'] }} {% endif %}"
        "{{ m['content'] }}[A]{% elif m['role'] == 'assistant' %}{{ m['content'] }}<|end|>{% endif %}{% endfor %}<think>",
        "<think>",
    ),
    "a header of its own for answers given": (
        LOOP + "{% if m['role'] == 'assistant' %}<|begin|>assistant|final\n{{ m['content'] }}<|end|>\n{% else %}" + TURN
        + "{% endif %}{% endfor %}{% if add_generation_prompt %}<|begin|>assistant{% endif %}",
        "",
    ),
}  # fmt: skip


def model(**more: Any) -> ModelConfig:
    return ModelConfig("x", "x", "chat", "auto", "auto", **more)


def settings(*overrides: str) -> PromptSettings:
    return tiny_run(*overrides).prompt


@pytest.mark.parametrize("system", [None, "Think first in <think> tags."])
@pytest.mark.parametrize("case", OPENINGS)
def test_what_a_template_writes_after_the_assistants_header_begins_the_completion(case: str, system: str | None) -> None:
    template, opening = OPENINGS[case]
    if "for one question" in case or "in the last" in case:
        system = system or "Be brief."
    chat = ChatTemplate(byte_tokenizer(template=template), "x", system, DATE)
    assert chat.opening == opening
    assert chat.render("1 + 1?").endswith(opening)


@pytest.mark.parametrize(
    ("opening", "overrides", "end", "prefill"),
    [
        ("", (), HEADER, ""),
        ("<think>\n", (), HEADER + "<think>\n", "<think>\n"),
        ("<think>\n", ("prompt.prefill='Well, '",), HEADER + "<think>\nWell, ", "<think>\nWell, "),
        ("<think>\n", ("prompt.prefill='<think>'",), HEADER + "<think>\n", "<think>\n"),  # not twice
        ("<think>\n", ("prompt.lead='Step by step. '",), HEADER + "<think>\nStep by step. ", "<think>\nStep by step. "),
        ("", ("prompt.lead='Step by step. '", "prompt.prefill='<think>'"), HEADER + "Step by step. <think>", "<think>"),
    ],
)
def test_the_settings_own_prefill_stands_behind_it(opening: str, overrides: Any, end: str, prefill: str) -> None:
    prompts = Prompts(model(), settings(*overrides), byte_tokenizer(template=opened(opening)))
    assert prompts.write(PROBLEM).endswith(f"</answer>.<|end|>\n{end}")
    assert prompts.prefill == prompts.rows([PROBLEM])[0]["prefill"] == prefill


@pytest.mark.parametrize("kind", ["plain", "special"])
def test_a_model_whose_template_opens_the_thinking_earns_what_it_earns_without(tmp_path: Path, kind: str) -> None:
    words = [NEWLINE, "a", "</think>", "<answer>", "7", "</answer>", "<eos>"]
    folder = chain(tmp_path / "model", byte_tokenizer(**{kind: TAGS}, template=opened("<think>\n")), words)
    run = ("model=local", f"model.path={folder}", "task=table", f"task.path={sevens(tmp_path)}", "reward=r1")
    (doctors,) = learning.check_golden(tiny_run("model=local", f"model.path={folder}", "task=arithmetic", "reward=r1"))
    assert (doctors.level, doctors.what) == ("ok", "a right answer earns 2.00, a wrong one 0.00")
    (found,) = prompt.check_prompt(tiny_run(*run, "grpo.train_problems=16", "eval.problems=4"))
    assert found.what.endswith("the prompt begins the completion with '<think>\\n'")
    result, record = execute_tiny(
        tmp_path, *run, "grpo.max_steps=1", "grpo.max_completion_length=12", "grpo.train_problems=16", "eval.problems=4"
    )
    (earned,) = [row["metrics"] for row in record.metrics() if "train/reward" in row["metrics"]]
    assert (result.accuracy_before, earned["train/reward_think_format"], earned["train/reward"]) == (1.0, 1.0, 2.0)


FORMATS = ("%d %b %Y", "%Y-%m-%d", "%B %d, %Y", "%A", "%H:%M:%S", "%s", "%c", "%j")


@pytest.mark.parametrize("pattern", FORMATS)
def test_the_prompt_is_the_same_at_any_clock(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = byte_tokenizer(template="Now: {{ strftime_now('" + pattern + "') }}\n" + TEMPLATE)
    written = set()
    for year in (2024, 2026, 2031):

        class Then(datetime):
            """A clock that stands still in another year."""

            @classmethod
            def now(cls, tz: Any = None) -> "Then":
                return cls(year, 3, 4, 5, 6, 7)  # noqa: B023

        monkeypatch.setattr(chat_template_utils, "datetime", Then)
        written.add(Prompts(model(), settings(), tokenizer).write(PROBLEM))
        assert chat_template_utils.datetime is Then  # for whoever else renders templates
    (text,) = written
    assert text.startswith(f"Now: {datetime(2024, 7, 26).strftime(pattern)}\n")


def test_the_date_can_be_set_and_is_part_of_the_run_then() -> None:
    tokenizer = byte_tokenizer(template="{{ strftime_now('%d %b %Y') }}\n" + TEMPLATE)
    moved = tiny_run("prompt.date=2025-12-31")
    assert Prompts(model(), moved.prompt, tokenizer).write(PROBLEM).startswith("31 Dec 2025\n")
    assert moved.config_hash != tiny_run().config_hash == tiny_run(f"prompt.date={DATE}").config_hash


@pytest.mark.parametrize("given", ["31.12.2025", "2025-02-30", "today", "2025", "20251231", "''"])
def test_what_is_no_day_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=r"prompt\.date=.* must be "):
        settings(f"prompt.date={given}")


NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TEMPLATE
)
FORGETFUL = TEMPLATE.replace("{% for message in messages %}", "{% for message in messages if message['role'] != 'system' %}")
IN_PARTS = TEMPLATE.replace("{{ message['content'] }}", "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (NO_SYSTEM, r"template of x refuses the system message: System role not supported; use prompt\.system=null"),
        (FORGETFUL, r"template of x leaves out the system message; use prompt\.system=null"),
        (IN_PARTS, r"template of x leaves out the system message"),
        ("{{ 1 +", r"template of x refuses the user message: .*; use model\.prompt=plain"),
        ("{{ messages[7]['role'] + 1 }}", r"template of x refuses the user message: .*; use model\.prompt=plain"),
        ("{{ messages[1]['name']['first'] }}", r"template of x refuses the user message: .*; use model\.prompt=plain"),
        ("{{ messages + '' }}", r"template of x refuses the user message: .*; use model\.prompt=plain"),
    ],
)
def test_a_template_that_refuses_or_loses_a_message_is_told_in_one_line(template: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        ChatTemplate(byte_tokenizer(template=template), "x", "Be brief.", DATE).render("1 + 1?")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("overrides", [("prompt.system='Be brief.'",), ("model.system_prompt='Be brief.'",)])
def test_a_refused_system_message_ends_the_run_before_it_starts_and_the_doctor_says_so(
    overrides: tuple[str, ...], tmp_path: Path
) -> None:
    folder = random_model(tmp_path / "model", byte_tokenizer(template=NO_SYSTEM))
    run = ("model=local", f"model.path={folder}", "task=arithmetic", *overrides)
    (found,) = prompt.check_prompt(tiny_run(*run))
    assert found.level == "failure"
    assert "System role not supported" in found.what
    with pytest.raises(ConfigError, match="System role not supported"):
        execute_tiny(tmp_path / "runs", *run)


def test_rendering_a_prompt_is_quick() -> None:
    prompts = Prompts(model(), settings(), byte_tokenizer())
    started = time.process_time()
    for _ in range(200):
        prompts.write(PROBLEM)
    assert time.process_time() - started < 2


def test_a_tokenizer_without_a_template_is_refused() -> None:
    tokenizer: PreTrainedTokenizerFast = byte_tokenizer(template=None)
    with pytest.raises(ConfigError, match=r"has no chat template.*use model\.prompt=plain"):
        Prompts(model(), settings(), tokenizer)
