"""The status command says what each run does, why it does not go on, and can end it or try it again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from efficient_rl.compose import ConfigError
from efficient_rl.record import Failure, Record
from efficient_rl.status import find_manifest, main, read_status
from tests.conftest import command, environment, tiny_run


def manifest(folder: Path, *runs: str, name: str = "mine") -> list[Record]:
    """A sweep's manifest in an output folder, and the records of its runs."""
    configs = [tiny_run(run) for run in runs]
    listed = [{"hash": c.config_hash, "label": f"run {i}", "params": c.flat()} for i, c in enumerate(configs)]
    path = folder / "sweeps" / name / "sweep.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"name": name, "command": "python -m efficient_rl.sweep", "question": None, "runs": listed}))
    return [Record(folder / "runs" / config.config_hash) for config in configs]


def test_every_state_is_told_with_its_step_and_its_cause(tmp_path: Path) -> None:
    active, failed, waiting = manifest(tmp_path, "seed=0", "seed=1", "seed=2")
    active.claim(tiny_run("seed=0"))
    active.append(2, {"train/reward": 0.25, "time/step_seconds": 3.0})
    failed.claim(tiny_run("seed=1"))
    failed.note_failure(Failure(1, "out of memory: 7 GiB", "log.txt", "out_of_memory"))
    failed.release()
    status = read_status(tmp_path, find_manifest(tmp_path, None))
    assert [row.state for row in status.rows] == ["running", "failed", "waiting"]
    told = status.as_json()
    assert told["counts"] == {"failed": 1, "running": 1, "waiting": 1}
    assert told["runs"][0] | {"step": 2, "max_steps": 3, "reward": 0.25, "seconds_left": 3.0} == told["runs"][0]
    assert (told["runs"][1]["cause"], told["runs"][1]["error"]) == ("out_of_memory", "out of memory: 7 GiB")
    assert (told["runs"][2]["step"], told["runs"][2]["job"]) == (0, None)
    assert waiting.state() == "pending"


def test_the_exit_status_says_whether_a_run_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, failed = manifest(tmp_path, "seed=0", "seed=1")
    assert main(["--output", str(tmp_path)]) == 0
    failed.claim(tiny_run("seed=1"))
    failed.fail(ValueError("no letters"))
    failed.release()
    assert main(["mine", "--output", str(tmp_path)]) == 1
    assert "ValueError: no letters" in capsys.readouterr().out


def test_unknown_sweeps_and_runs_are_named_with_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="no sweep in"):
        find_manifest(tmp_path, None)
    records = manifest(tmp_path, "seed=0", "seed=1")
    assert main(["yours", "--output", str(tmp_path)]) == 2
    assert "valid: mine" in capsys.readouterr().err
    assert main(["--output", str(tmp_path), "--logs", "x"]) == 2
    assert "names 0 runs" in capsys.readouterr().err
    assert main(["--output", str(tmp_path), "--logs", records[0].folder.name[:6]]) == 2
    assert "has written nothing yet" in capsys.readouterr().err


def test_the_newest_sweep_is_taken_where_none_is_named(tmp_path: Path) -> None:
    manifest(tmp_path, "seed=0", name="first")
    manifest(tmp_path, "seed=1", name="second")
    os.utime(tmp_path / "sweeps" / "first" / "sweep.json", (1, 1))
    assert find_manifest(tmp_path, None)["name"] == "second"
    assert find_manifest(tmp_path, "first")["name"] == "first"


def test_a_local_run_is_watched_cancelled_and_tried_again(tmp_path: Path) -> None:
    def status(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "efficient_rl.status", *arguments]
        return subprocess.run(
            line, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=200, check=False
        )

    overrides = ["strategy=last_k", "grpo.max_steps=60", "tracking=none", "launcher.workers=1", "name=one"]
    sweep = subprocess.Popen(
        command(overrides), cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 90
        while not any(row["step"] >= 2 for r in tmp_path.glob("outputs/runs/*") for row in Record(r).metrics()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        (run,) = json.loads(status("--json").stdout)["runs"]
        assert run["state"] == "running"
        cancelled = status("one", "--cancel", run["hash"][:5])
        assert "to write a checkpoint and end" in cancelled.stdout
        sweep.wait(timeout=60)
    finally:
        if sweep.poll() is None:
            sweep.send_signal(signal.SIGKILL)
            sweep.wait()
    assert Record(tmp_path / "outputs" / "runs" / run["hash"]).checkpoint() is not None
    assert "nothing goes on" in status("--cancel").stdout
    assert "Traceback" not in status("--logs", run["hash"][:5]).stdout
    again = status("--retry")
    assert again.returncode == 0, again.stdout + again.stderr
    (run,) = json.loads(status("--json").stdout)["runs"]
    assert (run["state"], run["step"]) == ("finished", 60)
