"""The examples run in an empty folder as a newcomer would run them, and print what they promise and nothing else."""

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from ipykernel.kernelspec import write_kernel_spec
from nbclient import NotebookClient
from nbformat import NotebookNode

from efficient_rl.config.compose import expand
from efficient_rl.config.run_config import parse_run
from efficient_rl.errors import ConfigError
from efficient_rl.run import train
from tests.conftest import ROOT, TINY, environment

MINIMAL = ROOT / "examples" / "minimal.py"
OWN_SCRIPT = ROOT / "examples" / "own_script.py"
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
STRATEGIES = {"first_k", "last_k", "lora"}
SHORTER = [  # the first two cells train
    ('"grpo.max_steps=30"', '"grpo.max_steps=2", "eval.problems=20"'),
    (" grpo.max_steps=30 ", " grpo.max_steps=2 eval.problems=20 "),
]


def read_notebook() -> NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook: NotebookNode) -> dict[str, NotebookNode]:
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def printed(cell: NotebookNode) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NotebookNode]:
    """The code cells of the notebook with two training steps instead of 30, run by this very Python in an empty folder."""
    notebook = read_notebook()
    for cell, (long, short) in zip(code_cells(notebook).values(), SHORTER, strict=False):
        assert cell.source.count(long) == 1
        cell.source = cell.source.replace(long, short)
    jupyter, folder = tmp_path_factory.mktemp("jupyter"), tmp_path_factory.mktemp("notebook")
    write_kernel_spec(jupyter / "kernels" / "python3")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_PATH", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
            patch.setenv(name, str(jupyter))
        patch.delenv("MPLBACKEND", raising=False)
        for name, value in environment().items():
            patch.setenv(name, value)
        client = NotebookClient(notebook, timeout=300, allow_errors=True, resources={"metadata": {"path": str(folder)}})
        client.execute()
    return code_cells(notebook)


@pytest.mark.parametrize(
    ("strategy", "parameters"),
    [("last_k", "107,136 of 323,776"), pytest.param("lora", "61,440 of 385,216", marks=pytest.mark.slow)],
)
def test_minimal_prints_accuracy_before_and_after_and_no_warnings(tmp_path: Path, strategy: str, parameters: str) -> None:
    done = subprocess.run(
        [sys.executable, str(MINIMAL), *TINY, f"strategy={strategy}"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("training with ")
    found = re.fullmatch(rf"accuracy (\d+\.\d)% -> (\d+\.\d)%, trained {parameters} parameters", second)
    assert found, second
    assert all(0 <= float(percent) / 100 <= 1 for percent in found.groups())
    assert done.stderr == ""


def test_minimal_trains_the_last_two_blocks_of_nano_for_30_steps_by_default() -> None:
    run = parse_run(expand(runpy.run_path(str(MINIMAL))["DEFAULTS"])[0])
    assert (run.model.name, run.strategy.name, run.strategy.arguments["k"]) == ("nano", "last_k", 2)
    assert run.grpo.max_steps == 30


def test_minimal_fits_on_one_screen() -> None:
    assert len(MINIMAL.read_text().splitlines()) <= 40


@pytest.mark.slow
def test_a_script_of_ones_own_prints_every_step_and_the_most_bytes(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(OWN_SCRIPT)],
        cwd=tmp_path,
        env=environment(HF_HUB_OFFLINE="1"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *steps, last = done.stdout.splitlines()
    found = [re.fullmatch(r"step (\d): loss -?\d\.\d{3}, reward (\d\.\d{2})", line) for line in steps]
    assert [match and match[1] for match in found] == list("12345678"), done.stdout
    assert all(match and 0 <= float(match[2]) <= 1 for match in found)
    sizes = ast.literal_eval(last.removeprefix("MiB at most: "))
    assert {"parameters", "gradients", "optimizer_state", "activations", "generation_peak", "backward_peak"} <= set(sizes)
    assert sizes["optimizer_state"] == pytest.approx(2 * sizes["gradients"], abs=0.2) == pytest.approx(0.8, abs=0.1)
    assert not (tmp_path / "outputs").exists()


def test_a_script_of_ones_own_is_short() -> None:
    assert len(OWN_SCRIPT.read_text().splitlines()) <= 30


@pytest.mark.slow
def test_no_cell_of_the_notebook_errs_or_warns(executed: dict[str, NotebookNode]) -> None:
    for name, cell in executed.items():
        assert cell.execution_count, name
        for output in cell.outputs:
            assert output.output_type != "error", f"{name}: {output.get('evalue')}"
            assert output.get("name") != "stderr", f"{name}: {output.get('text')}"


@pytest.mark.slow
def test_the_notebook_trains_one_run_and_then_only_the_two_that_are_left(executed: dict[str, NotebookNode]) -> None:
    assert re.search(r"^accuracy \d+\.\d% -> \d+\.\d%$", printed(executed["train"]), re.MULTILINE)
    sweep = printed(executed["sweep"])
    assert "\x1b" not in sweep  # a live table would repeat itself in a notebook
    assert {label for label in STRATEGIES if f"{label}: running" in sweep} == {"first_k", "lora"}
    assert "3 of 3 runs of sweep quickstart finished" in sweep


@pytest.mark.slow
def test_the_table_of_the_notebook_lists_every_strategy_with_its_accuracy(executed: dict[str, NotebookNode]) -> None:
    rows = [line.split() for line in printed(executed["table"]).splitlines()[1:]]
    assert {row[0] for row in rows} == STRATEGIES
    assert all(0 <= float(cell.removesuffix("%")) <= 100 for row in rows for cell in row[2:])
    assert len({row[2] for row in rows}) == 1  # all start from the same model


@pytest.mark.slow
def test_the_notebook_draws_its_pareto_plot_inline(executed: dict[str, NotebookNode]) -> None:
    assert sum("image/png" in output.get("data", {}) for output in executed["pareto"].outputs) == 1


def test_the_notebook_is_committed_without_outputs_and_paths() -> None:
    notebook = read_notebook()
    nbformat.validate(notebook)
    for cell in code_cells(notebook).values():
        assert cell.outputs == []
        assert cell.execution_count is None
    assert notebook.metadata.kernelspec.name == "python3"
    assert not re.search(r"(?<![\w.])/\w+/", NOTEBOOK.read_text())


def test_train_does_a_run_once_and_can_be_told_to_do_it_again(tmp_path: Path) -> None:
    overrides = [*TINY, "grpo.max_steps=1", "strategy=last_k"]
    first = train(*overrides)
    assert train(*overrides) == first
    again = train(*overrides, "force=true")
    assert (again.attempt, again.accuracy) == (first.attempt + 1, first.accuracy)
    assert (tmp_path / "outputs" / "runs" / first.config_hash / "result.json").is_file()


def test_train_goes_on_after_it_was_interrupted_in_the_same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [*TINY, "grpo.max_steps=2", "strategy=last_k"]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("efficient_rl.run._make_trainer", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(*overrides)
    assert train(*overrides).attempt == 2


@pytest.mark.parametrize("overrides", [["seed=0,1"], ["sweep=which_blocks"], ["dry_run=true"], ["filter=[a]"]])
def test_train_leaves_sweeps_to_the_sweep_command(overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"use python -m efficient_rl\.sweep"):
        train(*overrides)
