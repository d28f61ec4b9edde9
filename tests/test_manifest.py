"""The list of a sweep's runs: one file, one reader, and nothing of it trusted unread."""

import json
from pathlib import Path
from typing import Any

import pytest

from efficient_rl.errors import ConfigError
from efficient_rl.sweep.manifest import ListedRun, Manifest, find_manifest, read_manifest, read_manifests

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


def test_the_list_of_other_runs_under_the_same_name_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    WHOLE.write(tmp_path)
    Manifest("s", "c", None, False, RUNS).write(tmp_path)
    assert not list(tmp_path.glob("sweeps/s/sweep-*.json")), "the same runs"
    write(tmp_path)
    Manifest("s", "c", None, False, RUNS[:1]).write(tmp_path)
    assert len(json.loads((tmp_path / "sweeps" / "s" / "sweep-2.json").read_text())["runs"]) == 2
    assert "named 1 other runs before" in caplog.text
