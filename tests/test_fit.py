"""A model, a tokenizer and prompts that do not fit together are told in one line, with the numbers, before the run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import (
    BertConfig,
    GenerationConfig,
    GPT2Config,
    LlamaConfig,
    Qwen2Config,
    T5Config,
    XLNetConfig,
    xLSTMConfig,
)

from efficient_rl.cli import BAD_REQUEST, DONE, FAILED
from efficient_rl.doctor import prompt
from efficient_rl.doctor.__main__ import main
from efficient_rl.errors import ConfigError
from efficient_rl.fit import positions
from tests.conftest import TINY, execute_tiny, tiny_run
from tests.odd_models import TAGS, byte_tokenizer, llama, random_model

SHORT = {"n_embd": 32, "n_layer": 2, "n_head": 2}
Make = Callable[[Path], Path]


def gpt2(folder: Path) -> Path:
    tokenizer = byte_tokenizer()
    return random_model(folder, tokenizer, GPT2Config(**SHORT, vocab_size=len(tokenizer), n_positions=256))


def cut(folder: Path, rows: int) -> Path:
    tokenizer = byte_tokenizer()
    return random_model(folder, tokenizer, llama(len(tokenizer) - rows))


def without(folder: Path, **missing: None) -> Path:
    return random_model(folder, byte_tokenizer(**missing))


def pad_beyond(folder: Path) -> Path:
    """As models are whose users added a token to pad with."""
    tokenizer = byte_tokenizer(pad=None)
    random_model(folder, tokenizer)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    return folder


CASES: dict[str, tuple[Make, tuple[str, ...], str]] = {
    "prompt and completion beyond the positions": (
        gpt2, ("grpo.max_completion_length=128",),
        r"the longest prompt has 1\d\d tokens; with grpo\.max_completion_length=128 that is more than the 256 positions of "
        r".*; use grpo\.max_completion_length<=8\d, shorter prompts or another model",
    ),
    "a prompt alone beyond the positions": (
        gpt2, ("prompt=r1_zero", "model.prompt=plain"),
        r"the longest prompt has [345]\d\d tokens; .* the 256 positions of .*; use shorter prompts or another model",
    ),
    "few-shot prompts beyond the positions": (
        gpt2, ("prompt=few_shot", "prompt.shots=8"), r"the longest prompt has [345]\d\d tokens; .*use shorter prompts",
    ),
    "tokens beyond the embedding": (
        lambda folder: cut(folder, 2), (),
        r"token 25\d \('<\|\w+\|>'\) of the tokenizer of .* has no row in the model's embedding, which has 258 for 260 ",
    ),
    "a pad token beyond the embedding": (pad_beyond, (), r"token 259 \('\[PAD\]'\) .*, which has 259 for 260 tokens"),
    "neither end nor padding": (
        lambda folder: without(folder, end=None, pad=None), (), r"no token ends a completion of .*; set one of them, or",
    ),
    "no end": (lambda folder: without(folder, end=None), (), r"no token ends a completion .* no eos_token .*prompt\.stop"),
    "no chat template": (lambda folder: without(folder, template=None), (), r"no chat template.*use model\.prompt=plain"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_told_with_the_numbers_by_the_run_and_by_the_doctor(case: str, tmp_path: Path) -> None:
    make, overrides, message = CASES[case]
    run = ("model=local", f"model.path={make(tmp_path / 'model')}", "task=arithmetic", *overrides)
    with pytest.raises(ConfigError, match=message) as refused:
        execute_tiny(tmp_path / "runs", *run)
    assert "\n" not in str(refused.value)
    (found,) = prompt.check_prompt(tiny_run(*run))
    assert (found.level, found.what) == ("failure", str(refused.value))


WORKING: dict[str, tuple[Make, tuple[str, ...]]] = {
    "exactly as many positions as needed": (gpt2, ("prompt=few_shot", "prompt.shots=1", "grpo.max_completion_length=4")),
    "an end that the text of the prompt's stop gives": (
        lambda folder: without(folder, end=None, pad=None), ("prompt.stop=.",),
    ),
    "no padding": (lambda folder: without(folder, pad=None), ()),
    "more rows than tokens": (lambda folder: cut(folder, -60), ()),
    "fewer rows than tokens, of which no prompt uses the last": (
        lambda folder: random_model(
            folder, byte_tokenizer(plain=[f"<{n}>" for n in range(9)], template=None), llama(260)
        ),
        ("model.prompt=plain",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WORKING)
def test_what_fits_takes_its_step(case: str, tmp_path: Path) -> None:
    make, overrides = WORKING[case]
    run = ("model=local", f"model.path={make(tmp_path / 'model')}", "task=arithmetic", *overrides, "grpo.max_steps=1")
    if "grpo.max_completion_length=4" not in overrides:
        run += ("grpo.max_completion_length=4",)
    assert [found.level for found in prompt.check_prompt(tiny_run(*run))] == ["ok"]
    result, _ = execute_tiny(tmp_path / "runs", *run)
    assert result.steps == 1


def test_an_end_that_only_the_model_names_ends_completions(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(plain=["<stop>"], end=None, pad=None)
    folder = random_model(tmp_path / "model", tokenizer)
    ends = GenerationConfig(eos_token_id=[tokenizer.convert_tokens_to_ids("<stop>")])
    ends.save_pretrained(folder)
    run = ("model=local", f"model.path={folder}", "task=arithmetic", "grpo.max_steps=1", "grpo.max_completion_length=4")
    assert execute_tiny(tmp_path / "runs", *run)[0].steps == 1


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LlamaConfig(max_position_embeddings=512), 512),
        (GPT2Config(n_positions=128), 128),
        (Qwen2Config(max_position_embeddings=512, rope_parameters={"rope_type": "yarn", "factor": 4.0,
            "original_max_position_embeddings": 512, "rope_theta": 1e4}), 2048),
        (LlamaConfig(max_position_embeddings=2048, rope_parameters={"rope_type": "llama3", "factor": 4.0,
            "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 512, "rope_theta": 1e4}), 2048),
    ],
)  # fmt: skip
def test_positions_are_those_of_the_configuration_with_their_scaling(config: object, expected: int) -> None:
    assert positions(config) == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32),
         r"is no causal language model: in BertLMHeadModel a token changes what the model says before it"),
        (XLNetConfig(d_model=32, n_layer=2, n_head=2, d_inner=32), r"is no causal language model: in XLNetLMHeadModel"),
        (xLSTMConfig(hidden_size=32, num_hidden_layers=2, num_heads=4), r"^xLSTMForCausalLM of .* fails on four tokens"),
        (T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2), r"is an encoder with a decoder \(t5\)"),
    ],
)  # fmt: skip
def test_models_that_do_not_write_from_left_to_right_are_refused(config: object, message: str, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoModelForCausalLM

    tokenizer = byte_tokenizer(template=None)
    config.vocab_size = len(tokenizer)  # type: ignore[attr-defined]
    kind = AutoModel if isinstance(config, T5Config) else AutoModelForCausalLM
    kind.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match=message):
        execute_tiny(tmp_path, "model=local", f"model.path={tmp_path / 'model'}", "model.prompt=plain", "task=arithmetic")


def test_weights_that_are_missing_are_told_and_not_drawn_at_random(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    tokenizer = byte_tokenizer()
    folder = random_model(tmp_path / "model", tokenizer)
    fewer = AutoModelForCausalLM.from_config(llama(len(tokenizer), num_hidden_layers=1))
    weights = fewer.state_dict()
    from safetensors.torch import save_file

    save_file({name: tensor.clone() for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks 9 tensors of its LlamaForCausalLM, such as model\.layers\.1\."):
        execute_tiny(tmp_path, "model=local", f"model.path={folder}", "task=arithmetic")


EXPECTED = {"config.json": BAD_REQUEST, "tokenizer.json": FAILED, "tokenizer_config.json": FAILED, "model.safetensors": DONE}


@pytest.mark.parametrize("damage", EXPECTED)
def test_a_damaged_file_is_told_in_one_line_and_the_doctor_goes_on(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = random_model(tmp_path / "model", byte_tokenizer(plain=TAGS))
    (folder / damage).write_bytes((folder / damage).read_bytes()[:40])
    run = ("model=local", f"model.path={folder}", "task=arithmetic")
    with pytest.raises(ConfigError, match=r"cannot load model\.path") as refused:
        execute_tiny(tmp_path / "runs", *run)
    assert "\n" not in str(refused.value)
    code = main(["--no-probe", *run, *TINY])
    printed = capsys.readouterr().out
    assert (code, "Traceback" in printed) == (EXPECTED[damage], False)
    assert ("FAILURE" in printed) == (code > 0)
    assert " reward" in printed or damage == "config.json"  # checks after the one that failed


def test_a_padding_token_that_the_configuration_has_beyond_its_words_is_told(tmp_path: Path) -> None:
    folder = random_model(tmp_path / "model", byte_tokenizer())
    config = json.loads((folder / "config.json").read_text()) | {"pad_token_id": 32000}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"pad_token_id=32000 in .* is beyond its vocab_size=260; set it to a token"):
        execute_tiny(tmp_path / "runs", "model=local", f"model.path={folder}", "task=arithmetic")
