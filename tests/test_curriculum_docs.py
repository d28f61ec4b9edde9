"""The page on curricula names what there is, its example works, and its figures are the recorded ones."""

import json
import re
from pathlib import Path

import pytest

from efficient_rl.config.compose import expand
from efficient_rl.config.options import config_folder, group_options
from efficient_rl.config.run_config import parse_run
from efficient_rl.curricula.protocol import Curriculum
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "curricula.md").read_text()
OPTIONS = group_options()["curriculum"]
ROWS = {
    name: [cell.strip() for cell in cells.split("|")]
    for name, cells in re.findall(r"^\| `(\w+)` \|(.+)\|$", PAGE, re.MULTILINE)
}
MEASURED = json.loads((ROOT / "benchmarks" / "results" / "curricula.json").read_text())


def test_the_table_names_every_option_once() -> None:
    assert sorted(ROWS) == OPTIONS
    assert len(re.findall(r"^\| `\w+` \|", PAGE, re.MULTILINE)) == len(ROWS)


@pytest.mark.parametrize("option", OPTIONS)
def test_the_table_says_where_it_is_from_and_whether_it_looks_at_rewards(option: str) -> None:
    _, paper, looks = ROWS[option]
    found = re.search(r"arXiv:(\d{4}\.\d{5})", (config_folder("conf") / "curriculum" / f"{option}.yaml").read_text())
    assert paper == (found[1] if found else "")
    curriculum: Curriculum = parse_run(expand([f"curriculum={option}"])[0]).curriculum.build()
    learns = type(curriculum).observe is not Curriculum.observe or curriculum.refills > 0
    assert looks == ("yes" if learns else "no")


def test_a_curriculum_costs_at_most_a_hundredth_of_a_step() -> None:
    assert MEASURED["problems"] >= 100_000
    for pool in MEASURED["pools"].values():
        assert set(pool) == set(OPTIONS)
    rows = [row for pool in MEASURED["pools"].values() for row in pool.values()]
    usual, visited = (max(row[name] for row in rows) for name in ("share_of_a_step", "share_of_a_step_all_visited"))
    assert max(usual, visited) <= 0.01
    figures = dict(re.findall(r"<!-- figure:(\w+) -->(\S+)<!-- /figure -->", PAGE))
    assert figures == {"share": f"{usual:.1%}", "visited": f"{visited:.1%}"}


def test_a_curriculum_of_ones_own_works_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, text in re.findall(
        r"^    # (\S+\.(?:py|yaml))\n((?:    .*\n|\n(?=\n*    ))+?)(?=\n    # \S+\.yaml|\n\S)", PAGE, re.M
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(re.sub(r"^    ", "", text, flags=re.MULTILINE))
    monkeypatch.syspath_prepend(tmp_path)
    points = expand(["curriculum=uniform,hardest", "curriculum.share=0.25"], "options")
    curriculum: Curriculum = parse_run(points[1]).curriculum.build()
    curriculum.begin([3.0, 1.0, 2.0, 4.0, 0.0, 1.0, 2.0, 3.5], seed=0, steps=5)
    assert {index for step in range(20) for index in curriculum.draw(3, step)} == {3, 7}
