"""The command line means what Hydra's would, and says clearly what it does not know."""

import itertools
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from efficient_rl.config.compose import expand
from efficient_rl.config.options import config_folder, load_option
from efficient_rl.config.overrides import parse_overrides
from efficient_rl.config.run_config import parse_run
from efficient_rl.errors import ConfigError


def test_expansion_equals_hydras_own_composition_point_by_point() -> None:
    axes = {"strategy": ["first_k", "lora"], "grpo.beta": ["0.0", "0.04"], "lora.rank": ["4", "16"], "seed": ["0", "1"]}
    points = expand([f"{key}={','.join(values)}" for key, values in axes.items()])
    with initialize_config_dir(str(config_folder("conf")), version_base="1.3"):
        for point, values in zip(points, itertools.product(*axes.values()), strict=True):
            overrides = [f"{key}={value}" for key, value in zip(axes, values, strict=True)]
            wanted: Any = OmegaConf.to_container(compose("config", overrides), resolve=True)
            wanted["model"] = load_option("model", "local") | wanted["model"]
            assert point.config == wanted


def test_rank_does_not_multiply_first_k_runs() -> None:
    runs = {parse_run(point).config_hash for point in expand(["strategy=first_k,lora", "lora.rank=8,16"])}
    assert len(runs) == 3


def test_a_value_that_only_some_strategies_know_is_inert_for_the_others() -> None:
    runs = [parse_run(point) for point in expand(["strategy=full,first_k", "strategy.k=1,2,3"])]
    assert len(runs) == 6
    assert len({run.config_hash for run in runs}) == 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["strategy=frist_k"], "unknown strategy 'frist_k'; did you mean 'first_k'"),
        (["model=qwen"], "valid: llama3.2_1b, local, nano"),
        (["sed=1"], "did you mean 'seed'"),
        (["grpo.learning_rat=1"], "did you mean 'learning_rate'"),
        (["strategy=full", "strategy.k=2"], "unknown key 'strategy.k'"),
        (["strategy=first_k", "strategy.kk=2"], "did you mean 'k'"),
        (["model.foo.bar=1"], "unknown key 'model.foo.bar'"),
        (["a=b=c=[ }"], "a: the value 'b=c=[ }' cannot be read"),
        (["lora"], "'lora' cannot be read; an override reads key=value"),
        (["max_steps=10"], "did you mean 'grpo.max_steps'?"),
        (["Max-Steps=10"], "did you mean 'grpo.max_steps'?"),
        (["maxsteps=10"], "did you mean 'grpo.max_steps'?"),
        (["batch_size=8"], "did you mean 'grpo.per_device_train_batch_size'?"),
        (["rank=4"], "did you mean 'lora.rank'?"),
        (["grpo.rank=4"], "did you mean 'lora.rank'?"),
        (["learning_rate=1"], "did you mean 'grpo.learning_rate' or 'model.learning_rate'?"),
        (["strategy=LORA"], "did you mean 'lora'"),
        (["Strategy=lora"], "did you mean 'strategy'"),
        (["model.path=${nothing.here}"], "model.path: Interpolation key 'nothing.here' not found; write \\${ where"),
        (["strategy=lora", "+lora.use_rslora=true"], "nothing reads 'lora.use_rslora'"),
        (["+foo=1"], "nothing reads 'foo'"),
        (["~grpo"], "deletes what every run needs"),
        (["strategy@other=full"], "names a package"),
        (["seed=range(0,0)"], "names no value"),
        (["strategy=glob(zzz*)"], "matches no option; valid: adalora"),
        (["seed=glob(1*)"], "matches no option; valid: none, as seed is no group"),
        (["strategy=choice()"], "empty choice is not legal; use a,b,c"),
        (["seed=range()"], "missing a required argument: 'start'; use a,b,c"),
        (["+seed=1"], "seed=1 sets one that is there"),
        (["+strategy=lora"], "every run has one strategy already; write strategy=lora"),
        (["++foo=1"], "unknown key 'foo'"),
        (["hydra.run.dir=x"], "runs are not started by Hydra"),
        (["hydra/launcher=submitit_slurm"], "runs are not started by Hydra"),
        (["seed=interval(0,1)"], "is no sweep over values"),
    ],
)
def test_unknown_names_get_the_valid_ones_and_the_nearest(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        expand(overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


TEXTS = (
    *("/data/a=b/q.jsonl", "/data/a,b.jsonl", "/data/x[1].jsonl", "/data/(new)/q.jsonl", "~/q.jsonl", "/d/é/日本#1.jsonl"),
    *(
        "Q: {question}",
        "{question}",
        "it's",
        'she "said" it',
        "a: b, c",
        "$x$ & $HOME",
        "back\\",
        "\\boxed{}",
        "a\nb\tc",
        "100%!;`",
    ),
)


@pytest.mark.parametrize("text", TEXTS)
def test_what_an_error_shows_for_an_odd_text_is_that_text_when_pasted_into_a_shell(text: str) -> None:
    shows = re.compile(r"(\$'|')model\.path=.*")
    try:
        (override,) = parse_overrides([f"model.path={text}"])
        shown = shows.search(override.as_one)
    except ConfigError as error:
        message = str(error)
        assert message.startswith("model.path: the value ")
        assert "\n" not in message
        shown = shows.search(message)
        assert shown is not None
    if shown:
        pasted = subprocess.run(["bash", "-c", f"printf %s {shown[0]}"], capture_output=True, text=True, check=True).stdout
        (override,) = parse_overrides([pasted])
    assert override.parsed.value() == text


@pytest.mark.parametrize(
    ("given", "stop"),
    [
        ("prompt.stop=\\n", "\n"),
        ("prompt.stop='\\n'", "\n"),
        ('prompt.stop="\\n\\n"', "\n\n"),
        ('prompt.stop="\n"', "\n"),
        ('prompt.stop="\\\\n"', "\\n"),
        ("prompt.stop=\\t", "\\t"),
        ("prompt.stop=END", "END"),
        ("prompt.stop=null", None),
    ],
)
def test_in_texts_of_the_prompt_backslash_n_is_a_line_break(given: str, stop: str | None) -> None:
    assert expand([given])[0].config["prompt"]["stop"] == stop


def test_backslashes_stay_in_all_other_keys_and_line_breaks_are_read_in_swept_ones() -> None:
    assert expand(["task=table", "task.answer_pattern='a\\n(b)'"])[0].config["task"]["answer_pattern"] == "a\\n(b)"
    points = expand(["prompt.stop='\\n','#'"])
    assert [point.config["prompt"]["stop"] for point in points] == ["\n", "#"]


def test_a_glob_is_all_options_that_match() -> None:
    points = expand(["strategy=glob([lora*,do*],exclude=lora_*)"])
    assert [point.choices["strategy"] for point in points] == ["dora", "lora"]


def test_a_forced_key_is_set_like_any_other() -> None:
    point = expand(["++seed=3", "++grpo.max_steps=5"])[0]
    assert (point.config["seed"], point.config["grpo"]["max_steps"]) == (3, 5)


def test_interpolations_of_the_user_are_resolved() -> None:
    point = expand(["strategy=lora", "lora.rank=4", "lora.alpha=${lora.rank}"])[0]
    assert point.config["strategy"]["alpha"] == 4
    assert expand(["grpo.warmup_steps=${oc.decode:'3'}"])[0].config["grpo"]["warmup_steps"] == 3


def test_options_of_the_user_are_found_in_an_own_folder(tmp_path: Path) -> None:
    (tmp_path / "strategy").mkdir()
    (tmp_path / "strategy" / "mine.yaml").write_text("_target_: efficient_rl.strategies.static.LastK\nk: 3\n")
    points = expand(["strategy=mine,full"], str(tmp_path))
    assert [parse_run(point).strategy.name for point in points] == ["mine", "full"]
    assert parse_run(points[0]).strategy.arguments == {"k": 3}


def test_a_term_of_the_reward_can_be_left_out() -> None:
    assert set(expand(["~reward.format"])[0].config["reward"]) == {"accuracy"}


def test_ranges_and_quotes_follow_hydras_grammar() -> None:
    points = expand(["seed=range(0,3)", "task.operands=[2],[2,3]", "name='a, b'"])
    assert [(p.config["seed"], p.config["task"]["operands"]) for p in points] == [
        (0, [2]),
        (0, [2, 3]),
        (1, [2]),
        (1, [2, 3]),
        (2, [2]),
        (2, [2, 3]),
    ]
    assert points[0].config["name"] == "a, b"
