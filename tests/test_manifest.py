"""The list of a sweep's runs: one file, one reader, and nothing of it trusted unread."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficient_rl.errors import ConfigError
from efficient_rl.sweep.manifest import ListedRun, Manifest, find_manifest, read_manifest, read_manifests, set_aside
from efficient_rl.sweep.naming import Asked, check_name, find_name
from tests.conftest import environment

RUNS = (ListedRun("ab12", "full", {"grpo.max_steps": 3}), ListedRun("cd34", "lora", {}))
WHOLE = Manifest("s", "python -m efficient_rl.sweep", "Which?", True, RUNS, created=2.5)


def write(outputs: Path, **changes: Any) -> None:
    WHOLE.write(outputs)
    path = outputs / "sweeps" / "s" / "sweep.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    WHOLE.write(tmp_path)
    assert read_manifest(tmp_path, "s") == find_manifest(tmp_path, None) == WHOLE
    assert list(read_manifests(tmp_path)) == [WHOLE]


@pytest.mark.parametrize(
    "changes",
    [
        {"created": "yesterday"},
        {"created": True},
        {"created": float("nan")},
        {"command": None},
        {"question": 3},
        {"runs": None},
        {"runs": [{"hash": "../elsewhere", "params": {}}]},
        {"runs": [{"hash": "ab12", "label": 1, "params": {}}]},
        {"runs": [{"hash": "ab12", "params": {"grpo.max_steps": "3"}}]},
        {"runs": [{"hash": "ab12"}]},
    ],
    ids=str,
)
def test_a_damaged_file_is_no_manifest(tmp_path: Path, changes: dict[str, Any]) -> None:
    write(tmp_path, **changes)
    assert read_manifest(tmp_path, "s") is None
    with pytest.raises(ConfigError, match=r"damaged: .*s/sweep\.json"):
        find_manifest(tmp_path, "s")


def test_a_file_of_an_earlier_version_is_read_and_a_run_named_twice_is_one(tmp_path: Path) -> None:
    write(tmp_path, question=None, runs=[{"hash": "ab12", "params": {}}, {"hash": "ab12", "params": {}}], detaches=None)
    found = find_manifest(tmp_path, "s")
    assert found.runs == (ListedRun("ab12", "ab12", {}),)
    assert (found.question, found.detaches) == (None, False)


def hashes(outputs: Path, name: str = "s") -> list[str]:
    return [run.hash for run in find_manifest(outputs, name).runs]


def test_a_run_that_was_listed_stays_listed(tmp_path: Path) -> None:
    WHOLE.write(tmp_path)
    more = ListedRun("ef56", "full", {})
    Manifest("s", "other command", None, False, (more, RUNS[0])).write(tmp_path)
    assert hashes(tmp_path) == ["ef56", "ab12", "cd34"]
    assert find_manifest(tmp_path, "s").command == "other command"
    Manifest("s", "a part", None, False, (more,)).write(tmp_path)
    assert hashes(tmp_path) == ["ef56", "ab12", "cd34"]
    assert find_manifest(tmp_path, "s").command == "other command", "which made all of them"


def test_two_commands_that_write_at_once_are_both_listed(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom efficient_rl.sweep.manifest import ListedRun, Manifest\n"
        "for number in range(20):\n"
        "    run = ListedRun(f'{sys.argv[1]}{number}', 'r', {})\n"
        "    Manifest('s', 'c', None, False, (run,)).write(Path(sys.argv[2]))\n"
    )
    lines = [[sys.executable, "-c", script, letter, str(tmp_path)] for letter in "ab"]
    writers = [subprocess.Popen(line, env=environment()) for line in lines]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    assert len(set(hashes(tmp_path))) == 40


def test_a_later_stage_of_a_sweep_sets_the_list_of_other_runs_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    WHOLE.write(tmp_path)
    set_aside(tmp_path / "sweeps" / "s", {"ab12", "cd34"})
    assert hashes(tmp_path) == ["ab12", "cd34"]
    set_aside(tmp_path / "sweeps" / "s", {"ab12"})
    assert len(json.loads((tmp_path / "sweeps" / "s" / "sweep-2.json").read_text())["runs"]) == 2
    assert "named 1 other runs before" in caplog.text
    assert read_manifest(tmp_path, "s") is None
    set_aside(tmp_path / "sweeps" / "s", {"ab12"})
    assert not (tmp_path / "sweeps" / "s" / "sweep.json").exists()


ASKED = ("strategy=first_k", "strategy.k=1,2,3")
DIFFERENT = (  # of each pair the second once overwrote the list of the first
    (("filter=strategy.k < 2",), ("filter=strategy.k > 2",)),
    (("filter=strategy.k <= 2",), ("filter=strategy.k >= 2",)),
    (("filter=seed == 0",), ("filter=seed != 0",)),
    (("filter=not seed == 0",), ("filter=not (seed == 0)", "filter=strategy.k < 3")),
    (("model.path=a,b",), ("model.path=a-b",)),
    (("model.path=a/b",), ("model.path=a-b",)),
    (("task.operands=[2],[3]",), ("task.operands=[2,3]",)),
    (("seed=1,2",), ("seed=1-2",)),
    (("seed=range(0,3)",), ("seed=range(0-3)",)),
    (("strategy=choice(full,lora)",), ("strategy=(full,lora)",)),
    (("prompt.system='a  b'",), ("prompt.system='a b'",)),
    (("+strategy.x=1",), ("++strategy.x=1",)),
    ((f"model.path={'x' * 90}/a",), (f"model.path={'x' * 90}-a",)),
    ((f"model.path={'x' * 90}a",), (f"model.path={'x' * 90}b",)),
)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_other_words_make_another_name(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    names = [Asked.read([*ASKED, *each], None).name for each in (one, other)]
    assert len(set(names)) == 2
    for name in names:
        assert len(name) <= 80
        assert re.fullmatch(r"[\w.-]+", name)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.text("ab1_.,=-+~ <>'[]", max_size=6), max_size=3), st.lists(st.text("ab1_.,=-+ <>", max_size=6), max_size=3)
)
def test_two_requests_never_share_a_name(one: list[str], other: list[str]) -> None:
    first, second = (Asked(None, tuple(f"key={word}" for word in words)) for words in (one, other))
    assert (first.name == second.name) == (first.words == second.words)


def test_a_name_that_says_all_has_no_digest_and_is_the_one_of_version_0_1() -> None:
    for words, name in (
        ((), "default"),
        (("strategy=full,lora",), "strategy-full-lora"),
        (("strategy=full,lora", "seed=0,1", "launcher.workers=2", "name=x", "dry_run=true"), "strategy-full-lora_seed-0-1"),
        (("search=tpe", "search.trials=9", "strategy=full"), "search-tpe_strategy-full"),
    ):
        asked = Asked.read(words, None)
        assert asked.name == asked.earlier_name == name
    assert Asked.read(["sweep=claims/x"], "claims-x").name == "claims-x"


def listed(outputs: Path, name: str, command: Sequence[str], *keys: str) -> None:
    line = shlex.join(["python", "-m", "efficient_rl.sweep", *command])
    Manifest(name, line, None, False, tuple(ListedRun(key, key, {}) for key in keys)).write(outputs)


def test_a_sweep_that_version_0_1_made_keeps_its_name_and_another_request_gets_its_own(tmp_path: Path) -> None:
    low, high = ([*ASKED, "launcher.workers=2", f"filter=strategy.k {sign} 2"] for sign in "<>")
    name = "strategy-first_k_strategy.k-1-2-3_filter-strategy.k-2"
    assert Asked.read(low, None).earlier_name == Asked.read(high, None).earlier_name == name
    listed(tmp_path, name, ["-m", "--config-dir", "my options", *high, "force=true"], "c3")
    assert find_name(tmp_path, Asked.read(high, None), {"c3"}) == name
    assert find_name(tmp_path, Asked.read(low, None), {"a1"}) == Asked.read(low, None).name != name
    assert find_name(tmp_path, Asked.read(ASKED, None), {"a1", "b2", "c3"}) == "strategy-first_k_strategy.k-1-2-3"
    assert find_name(tmp_path, Asked.read(high, None), {"d4"}) == Asked.read(high, None).name, (
        "the file of an option changed"
    )


def test_a_search_that_version_0_1_left_in_its_tuning_is_found(tmp_path: Path) -> None:
    words = ["search=per_arm", "strategy=choice(full,lora)"]
    asked = Asked.read([*words, "search.trials_per_arm=4"], None)
    listed(tmp_path, f"{asked.earlier_name}-tuning", ["-m", *words, "search.trials_per_arm=2"], "a1")
    assert find_name(tmp_path, asked, set()) == asked.earlier_name != asked.name


def test_a_list_of_other_runs_is_left_alone_whatever_made_it(tmp_path: Path) -> None:
    asked = Asked.read(["sweep=mine"], "mine")
    listed(tmp_path, "mine", ["sweep=mine"], "a1", "b2")
    assert find_name(tmp_path, asked, {"a1", "b2"}) == "mine"
    assert find_name(tmp_path, asked, {"a1", "b2", "c3"}) == "mine", "the list grows"
    assert find_name(tmp_path, asked, {"a1"}) == "mine", "the list stays"
    own = find_name(tmp_path, asked, {"a1", "c3"})
    assert re.fullmatch(r"mine-[0-9a-f]{8}", own)
    listed(tmp_path, own, ["sweep=mine"], "a1", "c3")
    assert find_name(tmp_path, asked, {"a1", "c3"}) == own
    with pytest.raises(ConfigError, match=r"name='mine' is a sweep that lists 1 runs .* choose another name, or remove"):
        check_name(tmp_path, "mine", {"a1", "c3"})
    check_name(tmp_path, "mine", {"a1"})
    check_name(tmp_path, "other", {"a1"})
