"""The tracking UI is one command away, on the page where the runs are."""

import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from efficient_rl.errors import ConfigError
from efficient_rl.tracking.views import charts_page
from efficient_rl.ui import main
from tests.conftest import environment, reserved_port


def test_the_page_is_that_of_the_newest_sweep_or_of_the_named_one(finished: Path) -> None:
    page = charts_page(finished / "outputs", None)
    assert re.fullmatch(r"/#/experiments/\d+/runs\?compareRunsMode=CHART&orderByKey=.*", page)
    assert charts_page(finished / "outputs", "all") == page
    with pytest.raises(ConfigError, match=r"no sweep 'al' was tracked; did you mean 'all'"):
        charts_page(finished / "outputs", "al")


def test_bad_arguments_get_the_valid_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prt=5000"]) == 2
    assert "did you mean 'port'" in capsys.readouterr().err
    assert main(["port=x"]) == 2
    assert "port='x' must be a whole number from 1 to 65535" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_serves_the_runs(finished: Path) -> None:
    with reserved_port() as port:
        server = subprocess.Popen(
            [sys.executable, "-m", "efficient_rl.ui", f"port={port}"],
            cwd=finished, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            assert server.stdout.readline().startswith(f"open http://127.0.0.1:{port}/#/experiments/")
            assert b"<title>MLflow</title>" in first_answer(f"http://127.0.0.1:{port}/")
        finally:
            server.terminate()
            server.communicate(timeout=120)


def first_answer(url: str, seconds: float = 120) -> bytes:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                read: bytes = answer.read()
                return read
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.5)
