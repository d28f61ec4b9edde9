"""Every command line answers a bad request alike: one line, exit status 2."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from efficient_rl.cli import command_line, parse_settings
from efficient_rl.doctor.__main__ import main as doctor
from efficient_rl.errors import ConfigError
from efficient_rl.status.__main__ import main as status
from efficient_rl.sweep.__main__ import main as sweep
from efficient_rl.ui import main as ui
from tests.conftest import environment


@pytest.mark.parametrize(
    ("main", "arguments"),
    [(sweep, ["strategy=fist_k"]), (status, ["output=nowhere"]), (ui, ["prt=1"]), (doctor, ["strategy=fist_k"])],
    ids=["sweep", "status", "ui", "doctor"],
)
def test_a_bad_request_is_status_2_and_no_traceback(
    main: Callable[[Sequence[str]], int], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    assert (said.out + said.err).strip()


@pytest.mark.parametrize("main", [sweep, doctor], ids=["sweep", "doctor"])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--info"], "--info is an option of Hydra that this command does not have; use --help"),
        (["--info", "all"], "--info is an option of Hydra"),
        (["--hydra-help"], "--hydra-help is an option of Hydra"),
        (["--config-name", "x"], "--config-name is an option of Hydra"),
        (["-cn=x"], "-cn is an option of Hydra"),
        (["--max_steps", "10"], "unknown option --max_steps; an override reads key=value, without dashes"),
        (["--config-dir"], "expected one argument"),
        (["--config-dir", "nowhere"], "--config-dir 'nowhere' is no folder here"),
        (["--config-dir="], "--config-dir '' is no folder here"),
        (["hydra.run.dir=x"], "runs are not started by Hydra"),
    ],
)
def test_what_users_of_hydra_try_is_answered_in_one_line(
    main: Callable[[Sequence[str]], int], arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert says in said.out + said.err
    if main is sweep:
        assert (said.out, said.err.count("\n")) == ("", 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--cfg", "job", "--resolve", "--package", "eval"], "problems: 200\n"),
        (["-c", "job", "-p", "task.operands"], "- 3\n"),
        (["--cfg=job", "seed=3"], "seed: 3\n"),
    ],
)
def test_the_composed_configuration_is_printed_as_hydra_does(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(arguments) == 0
    assert says in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--cfg", "hydra"], "invalid choice: 'hydra'"),
        (["-c", "job", "-p", "task.operand"], "unknown key 'operand'; did you mean 'operands'"),
    ],
)
def test_parts_that_cannot_be_printed_are_refused_in_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(arguments) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_help_lists_the_options_of_ones_own_folder_and_the_version_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "strategy").mkdir()
    (tmp_path / "strategy" / "zebra.yaml").write_text("_target_: efficient_rl.strategies.static.LastK\n")
    for order in (["--help", "--config-dir", str(tmp_path)], [f"--config-dir={tmp_path}", "--help"]):
        with pytest.raises(SystemExit) as ended:
            sweep(order)
        assert ended.value.code == 0
        assert "zebra" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        sweep(["--version"])
    assert capsys.readouterr().out.startswith("efficient_rl ")


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (None, 0, ""),
        (ConfigError("k=9 [exceeds] 6"), 2, "error: k=9 [exceeds] 6\n"),
        (OSError("disk full"), 1, "error: disk full\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_how_a_command_ends_is_its_exit_status(
    raised: BaseException | None, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @command_line(usage="usage: it", failures=(OSError,))
    def main(arguments: Sequence[str]) -> int:
        if raised is not None:
            raise raised
        return 0

    assert main([]) == code
    assert capsys.readouterr().err == said
    assert main(["a=1", "--help"]) == 0
    assert capsys.readouterr().out == "usage: it\n"


def test_an_error_that_is_no_ones_fault_is_not_hidden() -> None:
    @command_line()
    def main(arguments: Sequence[str]) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main([])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prt=1"], "unknown key 'prt'; did you mean 'port'"),
        (["port"], "'port' has no value; write port=VALUE"),
        (["port="], "'port=' has no value"),
        (["port=1", "port=2"], "'port=2': port is given twice, first as '1'"),
    ],
)
def test_settings_that_cannot_be_read_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_settings(arguments, ("port", "output"))


def test_a_value_may_hold_an_equals_sign_and_a_bare_word_has_its_key() -> None:
    assert parse_settings(["port=a=b", "mine"], ("port", "sweep"), bare="sweep") == {"port": "a=b", "sweep": "mine"}


def test_the_exit_status_is_that_of_the_process() -> None:
    line = [sys.executable, "-m", "efficient_rl.status", "output=nowhere"]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
