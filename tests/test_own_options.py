"""Option files of one's own: missing keys take the group's defaults, and mistakes are told with file and place."""

from pathlib import Path

import pytest

from efficient_rl.config.compose import expand
from efficient_rl.config.options import load_option
from efficient_rl.config.run_config import RunConfig, parse_run
from efficient_rl.errors import ConfigError
from efficient_rl.sweep.request import build_search, read_command_line, read_request


def own(folder: Path, option: str, text: str) -> str:
    """The folder, with the option `group/name` of that content."""
    path = folder / f"{option}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(folder)


def run(folder: str, *overrides: str) -> RunConfig:
    return parse_run(expand(overrides, folder)[0])


@pytest.mark.parametrize(
    ("group", "text", "written"),
    [
        ("prompt", "template: 'Q: {question}'\nplace: boxed\n", ["prompt.template='Q: {question}'", "prompt.place=boxed"]),
        ("prompt", "# nothing yet\n", []),
        ("prompt", 'stop: "\\n"\n', ["prompt.stop='\\n'"]),
        ("eval", "problems: 8\n", ["eval.problems=8"]),
        ("eval", "sets: [arithmetic]\n", ["eval.sets=[arithmetic]"]),
        ("grpo", "max_steps: 3\nbeta: 0.1\n", ["grpo.max_steps=3", "grpo.beta=0.1"]),
        ("lora", "rank: 2\n", ["lora.rank=2"]),
        (
            "model",
            "path: package:nano/model\nprompt: symbols\n",
            ["model=local", "model.path=package:nano/model", "model.prompt=symbols"],
        ),
        ("prompt", "\ufefftemplate: '{question}'\r\nplace: tags\r\n", ["prompt.template='{question}'", "prompt.place=tags"]),
    ],
)
def test_missing_keys_take_the_groups_defaults_and_make_the_same_run_as_written_out(
    tmp_path: Path, group: str, text: str, written: list[str]
) -> None:
    short = run(own(tmp_path, f"{group}/mine", text), f"{group}=mine", "strategy=lora")
    assert short.config_hash == run(str(tmp_path), *written, "strategy=lora").config_hash


def test_a_key_that_the_own_option_leaves_out_can_be_set_on_the_command_line(tmp_path: Path) -> None:
    folder = own(tmp_path, "prompt/mine", "place: boxed\n")
    assert run(folder, "prompt=mine", "prompt.stop='#'").prompt.stop == "#"


def test_settings_of_a_command_may_be_left_out_too(tmp_path: Path) -> None:
    own(tmp_path, "watch/mine", "retries: 1\n")
    own(tmp_path, "tracking/mine", "# the environment's\n")
    own(tmp_path, "launcher/mine", "_target_: efficient_rl.launch.local.LocalLauncher\nworkers: 1\n")
    request = read_request(["watch=mine", "tracking=mine", "launcher=mine"], False, str(tmp_path))
    assert (request.watch.retries, request.watch.notify) == (1, None)
    assert request.settings["tracking"] == {"uri": None}
    assert request.settings["launcher"] == {**load_option("launcher", "local"), "workers": 1}


@pytest.mark.parametrize("name", ["optimize.Optimize", "equal_tuning.EqualTuning"])
def test_a_search_with_its_class_alone_is_the_one_of_that_class(tmp_path: Path, name: str) -> None:
    own(tmp_path, "search/mine", f"_target_: efficient_rl.search.{name}\n")
    search = build_search(read_command_line(["search=mine", "seed=0,1"], True, str(tmp_path)))
    assert getattr(search, "objectives") == {"accuracy": "maximize"}  # noqa: B009


def test_an_own_task_can_be_an_evaluation_set(tmp_path: Path) -> None:
    folder = own(tmp_path, "task/mine", "_target_: efficient_rl.tasks.chain.Chain\noperations: [2]\n")
    (part,) = run(folder, "eval.sets=[mine]").eval.sets
    assert (part.name, part.arguments) == ("mine", {"operations": [2]})


@pytest.mark.parametrize(
    ("option", "text", "says"),
    [
        ("prompt/mine", "template: a\n\tplace: x\n", r"prompt/mine\.yaml is no readable YAML file: .* line 2, column 1"),
        ("prompt/mine", 'template: "abc\n', r"prompt/mine\.yaml is no readable YAML file: .* line \d"),
        ("prompt/mine", "place: tags\nplace: boxed\n", r"prompt/mine\.yaml is no readable .* duplicate key place .* line 2"),
        ("prompt/mine", "- a\n- b\n", r"prompt/mine\.yaml holds no options; write one `key: value` a line"),
        ("prompt/mine", "tempalte: a\n", r"unknown key 'prompt\.tempalte'; did you mean 'template'"),
        ("prompt/mine", "shots: four\n", r"prompt\.shots='four' must be of type int"),
        ("prompt/mine", "defaults: [nothere, _self_]\n", r"'prompt/mine': Could not load 'prompt/nothere'"),
        ("strategy/mine", "_target_: nowhere.Nothing\n", r"strategy/mine\.yaml: _target_=nowhere\.Nothing: .*'nowhere'"),
        ("strategy/mine", "_target_: efficient_rl.strategies.static.LastQ\n", r"strategy/mine\.yaml: _target_=.*LastQ"),
        ("strategy/mine", "_target_: efficient_rl.strategies.adapters.Lora\n", r"strategy/mine\.yaml: .*'rank' and 'alpha'"),
        (
            "strategy/mine",
            "_target_: efficient_rl.strategies.static.LastK\nkk: 2\n",
            r"strategy/mine\.yaml: .*unexpected keyword argument 'kk'",
        ),
        ("strategy/mine", "k: 2\n", r"strategy/mine\.yaml names no class; it needs a line _target_: package\.module\.Class"),
        ("strategy/mine", "", r"strategy/mine\.yaml names no class"),
        ("strategy/mine", "_target_: os.sep\n", r"strategy/mine\.yaml: strategy=mine: .*callable"),
        ("launcher/mine", "workers: 1\n", r"launcher/mine\.yaml names no class"),
        (
            "launcher/mine",
            "_target_: efficient_rl.launch.nope.X\n",
            r"launcher/mine\.yaml: _target_=efficient_rl\.launch\.nope",
        ),
        ("curriculum/mine", "_target_: efficient_rl.curricula.bandits.SECC\n", r"curriculum/mine\.yaml: _target_="),
        (
            "reward/mine",
            "a: {_target_: efficient_rl.rewards.no.A}\n",
            r"reward/mine\.yaml: a\._target_=efficient_rl\.rewards\.no",
        ),
        (
            "search/mine",
            "_target_: efficient_rl.search.optimize.Optimize\nsampler: {_target_: optuna.samplers.Tpe}\n",
            r"search/mine\.yaml: sampler\._target_=optuna\.samplers\.Tpe",
        ),
        ("task/mine", "_target_: efficient_rl.tasks.datasets.Table\n", r"task\.dataset and task\.path are both missing"),
    ],
)
def test_a_mistake_in_an_own_option_is_one_line_with_file_and_place(
    tmp_path: Path, option: str, text: str, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = own(tmp_path, option, text)
    group = option.partition("/")[0]
    with pytest.raises(ConfigError, match=says) as caught:
        read_request([f"{group}=mine"], False, folder)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_line_break_in_a_sweep_file_is_one(tmp_path: Path) -> None:
    own(tmp_path, "sweeps/mine", 'overrides: {prompt.stop: "\\n"}\n')
    assert [each.prompt.stop for each in read_request(["sweep=mine"], False).runs] == ["\n"]


def test_a_file_in_the_wrong_place_or_with_another_ending_is_told(tmp_path: Path) -> None:
    own(tmp_path, "prompt/other", "place: tags\n")
    (tmp_path / "mine.yaml").write_text("place: tags\n")
    (tmp_path / "prompt" / "yours.yml").write_text("place: tags\n")
    for name, wrong in (("mine", "mine.yaml"), ("yours", "prompt/yours.yml")):
        with pytest.raises(ConfigError, match=rf"unknown prompt '{name}'; rename .*{wrong} to .*prompt/{name}\.yaml"):
            run(str(tmp_path), f"prompt={name}")


def test_a_config_dir_that_is_no_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in ("nowhere", str(tmp_path / "file")):
        with pytest.raises(ConfigError, match="is no folder here; make it"):
            run(folder)
