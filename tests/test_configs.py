"""Every shipped configuration and sweep parses, builds and explains itself."""

import re

import pytest
import yaml

from efficient_rl.config.compose import expand
from efficient_rl.config.options import config_folder, group_options
from efficient_rl.config.run_config import parse_run
from efficient_rl.config.schema import Component
from efficient_rl.launch.base import build_launcher
from efficient_rl.sweep.request import read_request
from efficient_rl.sweep.watch import Watch

RUN_GROUPS = ("model", "prompt", "strategy", "lora", "task", "reward", "curriculum", "grpo", "eval")
OPTIONS = [(group, option) for group, options in group_options().items() for option in options]
GIVEN = {("model", "local"): ("model.path=package:nano/model",)}  # what an option cannot do without
SWEEPS = sorted(
    str(p.relative_to(config_folder("sweeps")).with_suffix("")) for p in config_folder("sweeps").glob("**/*.yaml")
)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_parses_and_builds(group: str, option: str) -> None:
    point = expand([f"{group}={option}", *GIVEN.get((group, option), ())])[0]
    run = parse_run(point)
    if group == "launcher":
        assert hasattr(build_launcher(point.config["launcher"]), "launch")
    elif group == "watch":
        assert Watch.parse(point.config["watch"]) == Watch()
    elif group == "tracking":
        assert "uri" in point.config["tracking"]
    elif group == "search":
        settings = dict(point.config["search"])
        target = settings.pop("_target_")
        assert (target is None) == (option == "none")
        assert target is None or hasattr(Component("search", target, settings).build(), "execute")
    else:
        assert group in RUN_GROUPS
        assert run.config_hash
        for part in (run.strategy, run.task, run.curriculum, *(term.function for term in run.reward)):
            assert part.build() is not None


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_says_what_it_is_in_its_first_line(group: str, option: str) -> None:
    first = (config_folder("conf") / group / f"{option}.yaml").read_text().splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 20


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_is_a_question_and_says_how_many_runs_answer_it(name: str) -> None:
    text = (config_folder("sweeps") / f"{name}.yaml").read_text()
    assert set(yaml.safe_load(text)) <= {"overrides", "filter", "claim"}
    request = read_request([f"sweep={name}"], multirun=False)
    assert request.question is not None
    assert request.question.endswith("?")
    comments = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    cost = re.search(r"(\d+) runs of (?:about )?[\d to]+ (?:s|min)\b", comments)
    assert cost is not None
    assert len({run.config_hash for run in request.runs}) == int(cost[1])


def test_every_strategy_is_compared_at_its_own_learning_rate() -> None:
    rates = {
        run.strategy.name: run.grpo.learning_rate for run in map(parse_run, expand(["strategy=full,first_k,last_k,lora"]))
    }
    assert rates["full"] < rates["first_k"] == rates["last_k"] < rates["lora"]
