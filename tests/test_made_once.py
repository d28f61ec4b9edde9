"""Folders that several processes need are made by one of them, whole or not at all."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep

import pytest

from efficient_rl.files import made_once
from tests.conftest import environment

KILLED = """
import sys
from pathlib import Path
from time import sleep
from efficient_rl.files import made_once

def half(draft):
    (draft / "a").write_text("half")
    print("begun", flush=True)
    sleep(600)

made_once(Path(sys.argv[1]), half)
"""


def fill(draft: Path) -> None:
    (draft / "a").write_text("whole")
    (draft / "below").mkdir()
    (draft / "below" / "b").write_text("too")


def refuse(draft: Path) -> None:
    (draft / "a").write_text("half")
    raise ValueError("no")


def test_the_first_makes_the_folder_and_the_next_ones_read_it(tmp_path: Path) -> None:
    assert (made_once(tmp_path / "x", fill) / "below" / "b").read_text() == "too"
    assert (made_once(tmp_path / "x", refuse) / "a").read_text() == "whole"


def test_of_two_at_once_one_makes_and_the_other_waits(tmp_path: Path) -> None:
    made = []

    def slowly(draft: Path) -> None:
        made.append(draft)
        sleep(0.3)
        fill(draft)

    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: made_once(tmp_path / "x", slowly), range(2)))
    assert folders == [tmp_path / "x"] * 2
    assert len(made) == 1


def test_what_a_killed_process_left_is_no_folder_and_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    script = [sys.executable, "-c", KILLED, str(folder)]
    with subprocess.Popen(script, env=environment(), stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "begun\n"
        os.kill(killed.pid, signal.SIGKILL)
    assert not folder.exists()
    assert [path.name for path in tmp_path.glob(".*.draft")] == [".x.draft"]
    assert (made_once(folder, fill) / "a").read_text() == "whole"
    assert not list(tmp_path.glob(".*.draft"))


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("wh")])
def test_a_folder_that_lacks_a_part_is_made_anew(tmp_path: Path, damage: object) -> None:
    folder = made_once(tmp_path / "x", fill)
    assert callable(damage)
    damage(folder / "a")
    assert (made_once(folder, fill) / "a").read_text() == "whole"


def test_a_failure_leaves_neither_folder_nor_draft(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"):
        made_once(tmp_path / "x", refuse)
    assert {path.name for path in tmp_path.iterdir()} <= {".x.lock"}
