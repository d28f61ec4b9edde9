"""The command line means what Hydra's would, and says clearly what it does not know."""

import itertools
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from efficient_rl.config.compose import expand
from efficient_rl.config.options import config_folder
from efficient_rl.config.run_config import parse_run
from efficient_rl.errors import ConfigError


def test_expansion_equals_hydras_own_composition_point_by_point() -> None:
    axes = {"strategy": ["first_k", "lora"], "grpo.beta": ["0.0", "0.04"], "lora.rank": ["4", "16"], "seed": ["0", "1"]}
    points = expand([f"{key}={','.join(values)}" for key, values in axes.items()])
    with initialize_config_dir(str(config_folder("conf")), version_base="1.3"):
        for point, values in zip(points, itertools.product(*axes.values()), strict=True):
            overrides = [f"{key}={value}" for key, value in zip(axes, values, strict=True)]
            assert point.config == OmegaConf.to_container(compose("config", overrides), resolve=True)


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
        (["model=qwen"], "valid: llama3.2_1b, nano"),
        (["sed=1"], "did you mean 'seed'"),
        (["grpo.learning_rat=1"], "did you mean 'learning_rate'"),
        (["strategy=full", "strategy.k=2"], "unknown key 'strategy.k'"),
        (["strategy=first_k", "strategy.kk=2"], "did you mean 'k'"),
        (["model.foo.bar=1"], "unknown key 'model.foo.bar'"),
        (["a=b=c=[ }"], "an override reads key=value"),
        (["model.path=${nothing.here}"], "nothing.here"),
        (["strategy=lora", "+lora.use_rslora=true"], "nothing reads 'lora.use_rslora'"),
        (["+foo=1"], "nothing reads 'foo'"),
        (["~grpo"], "deletes what every run needs"),
        (["strategy@other=full"], "names a package"),
        (["seed=range(0,0)"], "names no value"),
        (["strategy=glob(*)"], "is no sweep over values"),
        (["seed=interval(0,1)"], "is no sweep over values"),
    ],
)
def test_unknown_names_get_the_valid_ones_and_the_nearest(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        expand(overrides)
    assert message in str(caught.value)


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
