"""The page of reward functions names what there is, and what it shows works."""

import json
import math
import re

import yaml

from efficient_rl.config.compose import expand
from efficient_rl.config.options import config_folder, group_options
from efficient_rl.config.run_config import parse_run
from efficient_rl.rewards.external import Imported
from efficient_rl.tasks.countdown import Countdown
from tests.conftest import ROOT
from tests.test_rewards import columns

PAGE = (ROOT / "docs" / "rewards.md").read_text()
FUNCTIONS = PAGE.index("| term |")
ROWS = re.findall(r"^\| `(\w+)` \| (.+) \|(?: (\d{4}\.\d{5}))? \|$", PAGE[:FUNCTIONS], re.MULTILINE)
OPTIONS = {option: (terms, paper) for option, terms, paper in ROWS}
TERMS = {name for name, _ in re.findall(r"^\| `(\w+)` \| (.+) \|$", PAGE[FUNCTIONS:], re.MULTILINE)}


def test_the_page_names_every_option_with_its_weights_and_paper() -> None:
    assert sorted(OPTIONS) == group_options()["reward"]
    for option, (terms, paper) in OPTIONS.items():
        run = parse_run(expand([f"reward={option}"])[0])
        stated = [float(found) if found else 1.0 for found in re.findall(r"`\w+`(?: x ([\d.]+))?", terms)]
        assert stated == [term.weight for term in run.reward], option
        cited = re.search(r"arXiv:(\d{4}\.\d{5})", (config_folder("conf") / "reward" / f"{option}.yaml").read_text())
        assert paper == (cited[1] if cited else ""), option


def test_the_page_explains_every_term() -> None:
    used = {
        term.function.build().__name__ for option in OPTIONS for term in parse_run(expand([f"reward={option}"])[0]).reward
    }
    assert used - {"format", "think_format_reward"} == TERMS


def test_every_option_gives_a_right_and_tidy_completion_its_best_value() -> None:
    """The golden completion that must be worth most before anything is trained on it."""
    # Of countdown tinyzero_multiply has no opinion.
    runs = {option: parse_run(expand([f"reward={option}"])[0]) for option in set(OPTIONS) - {"tinyzero_multiply"}}
    for problem in Countdown(operands=(3,)).problems("train", 5, 0):
        good = f"<think>{';'.join(problem.steps)}</think><answer>{problem.solution}</answer>"
        bad = [good.replace("</think>", ";1+1=3</think>").replace("answer>", "answer> 1+", 1), "nothing", good[:-1]]
        for option, run in runs.items():
            given = columns([good, *bad], [5, 6, 6, 6], problem.check, json.dumps(problem.gold))
            totals = [0.0] * 4
            for term in run.reward:
                values = term.function.build()(**given)
                totals = [total + term.weight * (value or 0.0) for total, value in zip(totals, values, strict=True)]
            assert all(math.isfinite(total) for total in totals)
            assert totals[0] > max(totals[1:]), (option, totals)


def test_the_example_of_another_function_parses_and_runs() -> None:
    (text,) = re.findall(r"^    # conf/reward/overlong\.yaml\n((?:    .*\n)+)", PAGE, re.MULTILINE)
    term = yaml.safe_load(re.sub(r"^    ", "", text, flags=re.MULTILINE))["overlong"]
    weight, target = term.pop("weight"), term.pop("_target_")
    assert weight == 1.0
    assert target == "efficient_rl.rewards.external.Imported"
    assert Imported(**term)(["a", "b"], completion_ids=[[0] * 224, [0] * 300]) == [-0.5, -1.0]
