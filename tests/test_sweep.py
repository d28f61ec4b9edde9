"""The command, end to end: it does each run once, survives every kill, and its second call does nothing."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from efficient_rl.config.compose import expand
from efficient_rl.config.run_config import parse_run
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.sweep.manifest import read_manifests
from efficient_rl.sweep.naming import Asked
from tests.conftest import ROOT, Sweep, command, cpu_seconds, environment, execute_alone, tiny
from tests.fake_launcher import fake_arguments


def records(folder: Path) -> list[RunDirectory]:
    return [RunDirectory(path) for path in sorted((folder / "outputs" / "runs").glob("*"))]


def states(folder: Path) -> list[str]:
    return sorted(record.state() for record in records(folder))


def start(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    """The command in the background, in a process group of its own."""
    return subprocess.Popen(
        command(overrides), cwd=folder, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def wait_for_steps(folder: Path, runs: int, steps: int = 2, seconds: float = 300) -> None:
    """Until that many runs have logged that many training steps."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        logged = [sum("train/reward" in row["metrics"] for row in record.metrics()) for record in records(folder)]
        if sum(count >= steps for count in logged) >= runs:
            return
        time.sleep(0.1)
    raise AssertionError(f"no {runs} runs with {steps} steps; {[r.folder / 'log.txt' for r in records(folder)]}")


def workers(folder: Path) -> list[psutil.Process]:
    """Processes that work in the folder (started below it)."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.cwd() == str(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


def all_gone(folder: Path, seconds: float = 60) -> bool:
    """Whether nothing works in the folder any more, after a while at most."""
    deadline = time.monotonic() + seconds
    while workers(folder) and time.monotonic() < deadline:
        time.sleep(0.2)
    return workers(folder) == []


@pytest.fixture
def sweep_fake(sweep_here: Sweep) -> Sweep:
    """Call the sweep command in this process, for runs that only look like training."""
    return lambda *overrides: sweep_here(*fake_arguments(*overrides))


def test_a_two_step_sweep_of_every_strategy_ends_in_results_tracking_and_a_report(finished: Path, tmp_path: Path) -> None:
    assert states(finished) == ["finished"] * 8
    done = subprocess.run(
        [sys.executable, "-m", "analysis.report", "sweep=all", f"output={finished / 'outputs'}", f"reports={tmp_path}"],
        cwd=finished, env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "all" / "report.html").read_text()
    for strategy in ("full", "first_k", "last_k", "lora"):
        assert strategy in page
    assert {"pareto.png", "reward_curves.png", "results.csv", "report.md"} <= {p.name for p in (tmp_path / "all").iterdir()}
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{finished / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("all")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len([run for run in runs if "config_hash" in run.data.tags]) == 8
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_the_same_command_again_does_nothing_and_takes_a_moment(finished: Path) -> None:
    before = {record.folder: record.newest_attempt() for record in records(finished)}
    spent = cpu_seconds()
    done = subprocess.run(
        command(["-m", "strategy=full,first_k,last_k,lora", "seed=0,1", "grpo.max_steps=2", "name=all"]),
        cwd=finished, env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "8 of 8 runs of sweep all finished" in done.stdout
    assert cpu_seconds() - spent < 10  # measured in benchmarks/planning.py; here only: no training, no torch
    assert {record.folder: record.newest_attempt() for record in records(finished)} == before


def test_a_dry_run_says_what_is_finished_duplicate_new_and_how_long(
    finished: Path, sweep_here: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    arguments = ["-m", "strategy=full,first_k", "seed=0,1,2", "lora.rank=8,16", "grpo.max_steps=2", "dry_run=true"]
    done = sweep_here(*tiny(arguments))
    assert done.returncode == 0, done.stderr
    assert "2 new, 0 active, 4 finished, 6 duplicate" in done.stdout
    assert "finished like it" in done.stdout
    assert len(records(finished)) == 8


def test_a_single_run_needs_no_flag_and_several_values_do(sweep_fake: Sweep, tmp_path: Path) -> None:
    several = sweep_fake("strategy=full,lora")
    assert several.returncode == 2
    assert "strategy takes several values; add -m" in several.stderr
    single = sweep_fake("strategy=last_k")
    assert single.returncode == 0, single.stdout + single.stderr
    assert states(tmp_path) == ["finished"]


@pytest.mark.slow
def test_a_single_run_trains_whatever_process_group_its_shell_has(sweep: Sweep, tmp_path: Path) -> None:
    torchrun = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "10.255.255.1", "MASTER_PORT": "29500"}
    mpirun = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "PMI_SIZE": "2", "PMI_RANK": "1"}
    single = sweep("strategy=last_k", "grpo.max_steps=1", "tracking=none", timeout=120, **torchrun, **mpirun)
    assert single.returncode == 0, single.stdout + single.stderr
    assert states(tmp_path) == ["finished"]


def test_a_named_sweep_with_a_filter_is_the_runs_of_its_file(sweep_here: Sweep, tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text(
        "# Is one block enough?\noverrides:\n  strategy: first_k,last_k\n  strategy.k: 1,2,3\n  seed: range(0,2)\n"
        "filter:\n  - strategy.k < 3 or seed == 0\n"
    )
    planned = sweep_here("sweep=mine", "dry_run=true")
    assert planned.returncode == 0, planned.stderr
    assert "sweep mine" in planned.stdout
    assert "10 new" in planned.stdout
    assert "2 dropped by filters" in planned.stdout
    narrower = sweep_here("sweep=mine", "strategy=first_k", "filter=strategy.k == 1", "dry_run=true")
    assert "2 new" in narrower.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "needs `overrides:`"),
        ("- a\n- b\n", "needs `overrides:`"),
        ("overrides: strategy=full\n", "needs `overrides:`"),
        ("overrides:\n\tseed: 1\n", "is not YAML"),
        ("overrides: {seed: 1}\nfilters: []\n", "unknown key 'filters'"),
        ("overrides: {seed: 1}\nfilter: 5\n", "filter must be a rule or a list"),
        ("overrides: {sweep: other}\n", "'sweep' cannot be an override here"),
        ("overrides: {seed: 2020-01-01}\n", "put quotes around it"),
        ("overrides: {model.path: /a=b}\n", "sweeps/mine.yaml: model.path: the value '/a=b' cannot be read"),
    ],
)
def test_a_sweep_file_with_a_mistake_is_refused_by_name(
    sweep_here: Sweep, tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text(content)
    done = sweep_here("sweep=mine", "dry_run=true")
    assert done.returncode == 2
    assert message in done.stderr


def test_different_requests_have_different_names(sweep_here: Sweep) -> None:
    names = [
        sweep_here(*arguments, "dry_run=true").stdout.splitlines()[0].split()[1]
        for arguments in (
            ("-m", "strategy=full,lora"),
            ("-m", "strategy=full,lora", "filter=seed == 0"),
            ("sweep=lora_rank",),
            ("sweep=lora_rank", "model=qwen2.5_0.5b"),
        )
    ]
    assert len(set(names)) == 4
    assert names[0] == "strategy-full-lora"
    assert names[2] == "lora_rank"


def lists(folder: Path) -> dict[str, set[str]]:
    """The runs of every sweep, by their labels."""
    return {each.name: {run.label for run in each.runs} for each in read_manifests(folder / "outputs")}


def test_filters_that_read_alike_make_two_sweeps_and_no_list_is_lost(sweep_fake: Sweep, tmp_path: Path) -> None:
    words = ("-m", "strategy=first_k", "strategy.k=1,2,3")
    for _ in range(2):
        for sign in "<>":
            done = sweep_fake(*words, f"filter=strategy.k {sign} 2")
            assert done.returncode == 0, done.stderr
    assert sorted(map(sorted, lists(tmp_path).values())) == [["first_k"], ["first_k"]]
    assert {len(manifest.runs) for manifest in read_manifests(tmp_path / "outputs")} == {1}
    assert len(records(tmp_path)) == 2
    assert [record.newest_attempt() for record in records(tmp_path)] == [1, 1]


def test_a_name_that_was_given_is_not_taken_from_other_runs(sweep_fake: Sweep, tmp_path: Path) -> None:
    assert sweep_fake("-m", "strategy=full,lora", "name=mine").returncode == 0
    for plan in ((), ("dry_run=true",)):
        taken = sweep_fake("strategy=last_k", "name=mine", *plan)
        assert taken.returncode == 2
        assert "name='mine' is a sweep that lists 2 runs which are not asked for here; choose another" in taken.stderr
    assert sweep_fake("strategy=full", "name=mine").returncode == 0
    assert sweep_fake("-m", "strategy=full,lora,last_k", "name=mine").returncode == 0
    assert lists(tmp_path) == {"mine": {"full", "lora", "last_k"}}


@pytest.mark.parametrize("filters", [(), ("filter=strategy.k < 2",)])
def test_a_sweep_of_version_0_1_stays_one_sweep(sweep_fake: Sweep, tmp_path: Path, filters: tuple[str, ...]) -> None:
    words = ("-m", "strategy=first_k", "strategy.k=1,2,3", *filters)
    assert sweep_fake(*words).returncode == 0
    (name,) = lists(tmp_path)
    folder = tmp_path / "outputs" / "sweeps" / name
    own = [text for text in fake_arguments(*words)[2:] if not text.startswith("-")]
    earlier = Asked.read(own, None).earlier_name
    folder.rename(folder.with_name(earlier))
    again = sweep_fake(*words)
    assert again.returncode == 0
    assert f"of sweep {earlier} finished" in again.stdout
    assert list(lists(tmp_path)) == [earlier]
    assert {record.newest_attempt() for record in records(tmp_path)} == {1}


def test_a_sweep_file_that_changed_makes_a_sweep_of_its_own(sweep_fake: Sweep, tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    for k in ("1,2", "2,3", "1,2", "2,3", "1,2,3"):
        (tmp_path / "sweeps" / "mine.yaml").write_text(f"overrides:\n  strategy: first_k\n  strategy.k: {k}\n")
        assert sweep_fake("sweep=mine").returncode == 0
    first, second = sorted(lists(tmp_path).items(), key=lambda item: len(item[0]))
    assert second[0].startswith(f"{first[0]}-")
    assert (first[1], second[1]) == ({"first_k k=1", "first_k k=2", "first_k k=3"}, {"first_k k=2", "first_k k=3"})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["strategy=frist_k"], "did you mean 'first_k'"),
        (["strategy=first_k", "strategy.k=9"], "exceeds the model's 6 blocks; use k<=6"),
        (["grpo.learning_rate=-1"], "must be above 0"),
        (["-m", "strategy=full,lora", "launcher.workers=1,2"], "one for the whole sweep"),
        (["sweep=which_block"], "did you mean 'which_blocks'"),
        (["filter=strategy.q < 2"], "filter names 'strategy.q'"),
        (["-m", "seed=0,1", "filter=seed > 5"], "drop all 2 runs"),
        (["filter=__import__('os').system('touch hacked')"], "is not allowed"),
        (["launcher.workers=0"], "launcher.workers=0 must be"),
        (["dry_run=maybe"], "dry_run='maybe' must be true or false"),
        (["name=a/b"], "name='a/b' must be a text without slashes"),
        (["checkpoint_steps=0"], "checkpoint_steps=0 must be"),
        (["nonsense"], "an override reads key=value"),
        (["output=null"], "must name a folder"),
        (["tracking.uri=5"], "tracking.uri=5 must be a text"),
        (["launcher.grace_seconds=abc"], "must be a number of seconds"),
        (["name=" + "x" * 200], "use at most 150"),
        (["+sweep=lora_rank"], "nothing reads 'sweep'"),
        (["launcher=debug", "launcher.workers=2"], "unknown key 'launcher.workers'; there is none that could be given"),
    ],
)
def test_bad_input_ends_with_status_2_and_a_remedy_before_anything_starts(
    sweep_here: Sweep, tmp_path: Path, overrides: list[str], message: str
) -> None:
    done = sweep_here(*tiny(overrides))
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "outputs" / "runs").exists()
    assert not (tmp_path / "hacked").exists()


def test_what_the_command_returns_is_its_exit_status_and_errors_go_to_the_error_stream(sweep: Sweep) -> None:
    done = sweep("strategy=frist_k")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'first_k'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_output_folder_that_cannot_be_made_is_a_clear_error(sweep_here: Sweep, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    done = sweep_here("output=taken", "check_models=false")
    assert done.returncode == 2
    assert "cannot write to output=" in done.stderr
    assert (tmp_path / "taken").read_text() == "a file"


def test_one_failure_does_not_stop_the_other_runs_and_is_named_with_its_log(sweep_fake: Sweep, tmp_path: Path) -> None:
    done = sweep_fake("-m", "grpo.learning_rate=1e-3,1e-4", "launcher.fails_at=1e-4")
    assert done.returncode == 1
    assert "1 of 2 runs" in done.stdout
    assert "diverged" in done.stdout
    assert "log.txt" in done.stdout
    assert "to resume: python -m efficient_rl.sweep -m" in done.stdout
    assert states(tmp_path) == ["failed", "finished"]


@pytest.mark.slow
def test_a_failed_run_does_not_stop_the_others_and_is_named(sweep: Sweep, tmp_path: Path) -> None:
    trouble = "+reward.trouble={_target_:tests.slurm.troubles.Raises,weight:1.0}"
    done = sweep("-m", trouble, "grpo.max_steps=1,8", "tracking=none")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 of 2 runs" in done.stdout
    assert "the fourth batch cannot be scored" in " ".join(done.stdout.split())
    assert "log.txt" in done.stdout.replace("\n", "")
    assert states(tmp_path) == ["failed", "finished"]


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_says_how_to_go_on_and_the_same_command_does(tmp_path: Path) -> None:
    overrides = ["-m", "strategy=last_k,lora", "grpo.max_steps=30", "checkpoint_steps=5", "tracking=none"]
    whole = start(tmp_path, *overrides)
    wait_for_steps(tmp_path, runs=2)
    os.killpg(whole.pid, signal.SIGINT)  # what a terminal does
    said, _ = whole.communicate(timeout=60)
    assert whole.returncode == 130, said
    assert "to resume: python -m efficient_rl.sweep -m" in said
    assert states(tmp_path) == ["waiting", "waiting"]
    assert all_gone(tmp_path, seconds=10)
    resumed_from = [record.checkpoint() for record in records(tmp_path)]
    assert all(resumed_from)
    done = subprocess.run(
        command(overrides), cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for record, checkpoint in zip(records(tmp_path), resumed_from, strict=True):
        assert checkpoint is not None
        assert f"resuming from {checkpoint}" in (record.folder / "log.txt").read_text()
        assert [row["step"] for row in record.metrics() if "train/reward" in row["metrics"]] == list(range(1, 31))


@pytest.mark.slow
def test_ctrl_c_under_the_debug_launcher_writes_a_checkpoint_and_starts_nothing_more(tmp_path: Path) -> None:
    overrides = ["-m", "strategy=last_k", "seed=0,1", "grpo.max_steps=30", "checkpoint_steps=5", "tracking=none"]
    whole = start(tmp_path, *overrides, "launcher=debug")
    wait_for_steps(tmp_path, runs=1)
    os.killpg(whole.pid, signal.SIGINT)
    said, _ = whole.communicate(timeout=60)
    assert whole.returncode == 130, said
    assert "to resume: python -m efficient_rl.sweep -m" in said
    assert "failed" not in said
    (record,) = records(tmp_path)
    assert record.state() == "waiting"
    assert record.checkpoint() is not None
    assert "the same command resumes from the last checkpoint" in (record.folder / "log.txt").read_text()
    assert " running " not in "".join(said.splitlines(keepends=True)[-4:])


KILLED = ("-m", "strategy=last_k", "seed=0,1", "grpo.max_steps=24", "checkpoint_steps=4")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep that the next test kills, done once without disturbance, in this process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for run in map(parse_run, expand(tiny(KILLED[1:]))):
        execute_alone(folder / "outputs" / "runs", run)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["launcher", "worker", "everything"])
def test_sigkill_at_any_moment_loses_nothing_and_ends_in_the_same_weights(
    tmp_path: Path, victim: str, undisturbed: Path
) -> None:
    shaken = start(tmp_path, *KILLED)
    wait_for_steps(tmp_path, runs=1, steps=6)
    if victim == "launcher":
        os.kill(shaken.pid, signal.SIGKILL)
    elif victim == "everything":
        for process in workers(tmp_path):
            process.kill()
    else:
        attempt = next((tmp_path / "outputs" / "runs").glob("*/attempts/*.json"))
        os.kill(json.loads(attempt.read_text())["pid"], signal.SIGKILL)
    said, _ = shaken.communicate(timeout=300)
    assert shaken.returncode != 0, f"the kill came too late\n{said}"
    if victim == "worker":
        assert shaken.returncode == 1, said
        assert "SIGKILL" in said
    assert all_gone(tmp_path)  # nobody works on without a launcher
    again = start(tmp_path, *KILLED)
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 0, said
    for one, other in zip(records(undisturbed), records(tmp_path), strict=True):
        a, b = (load_file(record.folder / "model" / "model.safetensors") for record in (one, other))
        assert all((a[name] == b[name]).all() for name in a)
        steps = [row["step"] for row in other.metrics() if "train/reward" in row["metrics"]]
        assert steps == list(range(1, 25))


def test_two_commands_at_once_launch_no_run_twice(tmp_path: Path) -> None:
    overrides = fake_arguments("-m", "strategy=full,last_k", "seed=0,1", "grpo.max_steps=20", "launcher.poll_seconds=0.1")
    line = [sys.executable, "-m", "efficient_rl.sweep", *overrides]
    both = [
        subprocess.Popen([*line, f"name={name}"], env=environment(), text=True, stdout=-1, stderr=-1) for name in ("a", "b")
    ]
    said = [process.communicate(timeout=100)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert states(tmp_path) == ["finished"] * 4
    for record in records(tmp_path):
        assert record.newest_attempt() == 1
        assert [row["step"] for row in record.metrics()] == list(range(1, 21))


@pytest.mark.slow
def test_two_commands_at_once_do_every_run_once(tmp_path: Path) -> None:
    overrides = ["-m", "strategy=full,last_k", "seed=0,1", "grpo.max_steps=8"]
    both = [start(tmp_path, *overrides, f"name={name}", "launcher.workers=1") for name in ("a", "b")]
    said = [process.communicate(timeout=400)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert states(tmp_path) == ["finished"] * 4
    for record in records(tmp_path):
        assert [row["step"] for row in record.metrics() if "train/reward" in row["metrics"]] == list(range(1, 9))
        assert (record.folder / "log.txt").read_text().count("Traceback") == 0


@pytest.mark.slow
def test_a_full_disk_fails_the_run_by_name_and_the_next_command_finishes_it(tmp_path: Path) -> None:
    """A real file system of a few megabytes, mounted for the test in a namespace of its own."""
    script = f'mount -t tmpfs -o size=2600k tmpfs {tmp_path} && cd {tmp_path} && exec "$@"'
    inside = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh"]
    probe = subprocess.run([*inside, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"this system gives no mount namespace: {probe.stderr.strip()}")
    line = shlex.join(command(["strategy=lora", "tracking=none", "checkpoint_steps=1", "grpo.max_steps=40"]))
    both = f"{line}; echo status $?; mount -o remount,size=200m .; {line}; echo status $?"
    done = subprocess.run(
        [*inside, "sh", "-c", both], env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert "status 1" in done.stdout, done.stdout + done.stderr
    assert "No space left on device" in done.stdout
    assert done.stdout.rstrip().endswith("status 0"), done.stdout + done.stderr


def test_force_does_finished_runs_again_and_keeps_the_old_results(sweep_fake: Sweep, tmp_path: Path) -> None:
    assert sweep_fake("strategy=last_k").returncode == 0
    assert sweep_fake("strategy=last_k").returncode == 0
    (record,) = records(tmp_path)
    assert record.newest_attempt() == 1
    assert sweep_fake("strategy=last_k", "force=true").returncode == 0
    assert record.newest_attempt() == 2
    assert len(list((record.folder / "earlier").glob("*/result.json"))) == 1


@pytest.mark.slow
def test_force_trains_finished_runs_again_and_keeps_the_old_results(sweep: Sweep, tmp_path: Path) -> None:
    arguments = ("strategy=last_k", "grpo.max_steps=1")
    assert sweep(*arguments).returncode == 0
    assert sweep(*arguments, "force=true").returncode == 0
    (record,) = records(tmp_path)
    assert record.newest_attempt() == 2
    assert len(list((record.folder / "earlier").glob("*/result.json"))) == 1


def test_the_composed_configuration_can_be_printed(sweep_here: Sweep) -> None:
    shown = sweep_here("--cfg", "job", "strategy=lora", "lora.rank=4")
    assert shown.returncode == 0
    assert "rank: 4" in shown.stdout


def test_the_output_of_a_terminal_is_a_live_table() -> None:
    text = on_a_terminal([sys.executable, "-m", "efficient_rl.sweep", *fake_arguments("launcher.poll_seconds=0.4")])
    assert_live_table(text)


@pytest.mark.slow
def test_training_shows_on_a_terminal_as_a_live_table() -> None:
    assert_live_table(on_a_terminal(command(["strategy=last_k", "grpo.max_steps=3", "tracking=none"])))


def on_a_terminal(line: list[str]) -> str:
    """What the command, which must succeed, writes to a terminal."""
    import pty

    leader, follower = pty.openpty()
    process = subprocess.Popen(line, env=environment(TERM="xterm-256color"), stdout=follower, stderr=follower)
    os.close(follower)
    shown = b""
    while True:
        try:
            chunk = os.read(leader, 65536)
        except OSError:
            break
        if not chunk:
            break
        shown += chunk
    assert process.wait(timeout=60) == 0
    return shown.decode(errors="replace")


def assert_live_table(text: str) -> None:
    for column in ("state", "reward", "accuracy", "trained", "peak memory", "left"):
        assert column in text
    assert "running" in text
    assert "finished" in text


def test_the_package_works_from_another_folder_and_with_its_own_options(sweep_here: Sweep, tmp_path: Path) -> None:
    assert (ROOT / "conf").is_dir()
    (tmp_path / "mine" / "task").mkdir(parents=True)
    (tmp_path / "mine" / "task" / "easy.yaml").write_text(
        "_target_: efficient_rl.tasks.countdown.Countdown\noperands: [3]\n"
    )
    done = sweep_here("--config-dir", "mine", "task=easy", "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "1 new" in done.stdout
