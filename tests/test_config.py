"""A run is its content: the hash follows it and nothing else, and every range is checked with a remedy."""

from dataclasses import replace
from pathlib import Path

import pytest

from efficient_rl.config.compose import expand
from efficient_rl.config.run_config import RunConfig, from_dict, parse_run, to_dict
from efficient_rl.errors import ConfigError


def run(*overrides: str, folder: str | None = None) -> RunConfig:
    return parse_run(expand(overrides, folder)[0])


def test_the_same_content_is_the_same_run_whatever_the_display_options() -> None:
    plain = run("strategy=last_k")
    shown = run(
        "strategy=last_k", "name=other", "output=elsewhere", "launcher.workers=1", "tracking=none", "checkpoint_steps=5"
    )
    assert plain.config_hash == shown.config_hash
    assert plain.config_hash != run("strategy=last_k", "seed=1").config_hash
    assert len(plain.config_hash) >= 8


def test_the_name_of_an_option_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "strategy").mkdir()
    (tmp_path / "strategy" / "mine.yaml").write_text(
        "_target_: efficient_rl.strategies.static.LastK\nk: 2\nalso_train: []\nlearning_rate_factor: 2\n"
    )
    assert run("strategy=mine", folder=str(tmp_path)).config_hash == run("strategy=last_k").config_hash


def test_a_whole_number_and_its_float_are_the_same_run() -> None:
    assert run("grpo.beta=1").config_hash == run("grpo.beta=1.0").config_hash


def test_the_learning_rate_follows_model_and_strategy_unless_given() -> None:
    full, lora = run("strategy=full"), run("strategy=lora")
    assert lora.grpo.learning_rate == pytest.approx(10 * full.grpo.learning_rate)
    assert run("strategy=lora", "grpo.learning_rate=1e-5").grpo.learning_rate == 1e-5


def test_another_model_in_the_same_folder_is_another_run(tmp_path: Path) -> None:
    from efficient_rl.config.run_config import fingerprint

    (tmp_path / "config.json").write_text('{"num_hidden_layers": 6}')
    before = run(f"model.path={tmp_path}").config_hash
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 8}')
    fingerprint.cache_clear()
    assert run(f"model.path={tmp_path}").config_hash != before


def test_one_name_of_a_part_needs_no_brackets() -> None:
    assert run("strategy=last_k", "strategy.also_train=norm").strategy.build().also_train == ("norm",)


def test_a_run_survives_being_written_and_read() -> None:
    original = run("strategy=lora", "lora.target_modules=[q_proj,v_proj]", "task=arithmetic")
    assert from_dict(to_dict(original)) == original
    assert from_dict(to_dict(original)).config_hash == original.config_hash
    with pytest.raises(ConfigError, match="damaged"):
        from_dict({"model": {}})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["strategy=first_k", "strategy.k=0"], "strategy.k=0 must be a whole number of at least 1"),
        (["strategy=last_k", "strategy.k=-2"], "strategy.k=-2 must be a whole number of at least 1"),
        (["strategy=first_k", "strategy.k=9"], "strategy.k=9 exceeds the model's 6 blocks; use k<=6 or strategy=full"),
        (["strategy=first_k", "strategy.k=two"], "strategy.k='two' must be a whole number"),
        (["grpo.num_generations=7"], "does not divide the batch of 128 completions"),
        (["grpo.num_generations=1"], "must be at least 2"),
        (["grpo.learning_rate=0"], "grpo.learning_rate=0.0 must be above 0"),
        (["grpo.learning_rate=-1e-4"], "must be above 0"),
        (["grpo.learning_rate=fast"], "must be of type float"),
        (["grpo.learning_rate=nan"], "must be of type float"),
        (["grpo.max_steps=0"], "must be at least 1"),
        (["grpo.max_steps=2.5"], "must be of type int"),
        (["grpo.temperature=0"], "must be above 0"),
        (["grpo.top_p=1.5"], "must lie in 0 < top_p <= 1"),
        (["grpo.loss_type=gpro"], "did you mean 'grpo'"),
        (["+grpo.foo=1"], "unknown key 'grpo.foo'"),
        (["strategy=lora", "lora.rank=0"], "lora.rank=0 must be a whole number"),
        (["strategy=lora", "lora.dropout=1"], "lora.dropout=1 must lie in"),
        (["model.dtype=int8"], "model.dtype='int8' is not known"),
        (["model.path=./nowhere"], "is not a folder on this machine"),
        (["task.operands=[9]"], "must list numbers from 2 to 6"),
        (["eval.samples=0"], "must be at least 1"),
        (["seed=-1"], "must be a whole number, 0 or above"),
        (["seed=true"], "must be a whole number"),
        (["seed=4294967296"], "below 2^32"),
        (["grpo.max_steps=10000000000"], "at most 10^9"),
        (["model.path="], "model.path"),
        (["model.learning_rate=null"], "model.learning_rate=None must be a number above 0"),
        (["strategy.learning_rate_factor=abc"], "must be a number above 0"),
        (["+reward.foo=1"], "reward.foo=1 must name a function"),
        (["strategy=lora", "lora.target_modules=[1]"], "must list names such as"),
        (["strategy=first_k", "strategy.also_train=[1]"], "must list names, such as"),
        (["strategy._target_=builtins.dict"], "is no strategy"),
        (["strategy._target_=nowhere.Nothing"], "nowhere"),
    ],
)
def test_bad_values_are_refused_with_value_bound_and_remedy(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run(*overrides)
    assert message in str(caught.value)


def test_an_argument_called_name_is_content() -> None:
    base = run("task=mixture")

    def renamed(source: str) -> RunConfig:
        sources = {source if name == "arithmetic" else name: value for name, value in base.task.arguments["sources"].items()}
        return replace(base, task=replace(base.task, arguments={"sources": sources}))

    assert len({each.config_hash for each in (base, renamed("name"), renamed("other"))}) == 3
