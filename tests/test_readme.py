"""What the README and docs tell people to type works as written, and the numbers they show are the measured ones."""

import re
import runpy
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import efficient_rl.strategies
from benchmarks import readme
from benchmarks.readme import filled
from tests.conftest import ROOT, Sweep, environment

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
STARTS = ("make ", "python -m ", "pip install ", ".venv/bin/")


def commands() -> list[str]:
    """Every command of the pages: indented lines and inline code that start like one."""
    found = []
    for page in PAGES:
        text = page.read_text()
        indented = [line.strip() for line in text.splitlines() if line.startswith("    ")]
        inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]
        found += [code.partition("  #")[0].strip() for code in (*indented, *inline) if code.startswith(STARTS)]
    return sorted(set(found))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of make, where the Makefile is."""
    return subprocess.run(
        arguments, cwd=str(ROOT), env=environment(), capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # of runpy: a test has imported the module
@pytest.mark.parametrize("command", commands())
def test_every_command_parses_and_the_quick_ones_run(
    command: str,
    sweep_here: Sweep,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        done = run("make", "-n", *words[1:])
        assert done.returncode == 0, done.stderr
    elif command.startswith("python -m efficient_rl.sweep"):
        if "strategy=alternate" in command:
            add_the_strategy_of_contributing(tmp_path, monkeypatch)
            words += ["--config-dir", str(tmp_path)]
        done = sweep_here(*words[3:], *(() if "--help" in words else ("dry_run=true",)))
        assert done.returncode == 0, done.stderr
    elif command.startswith("python -m pytest"):
        assert all((ROOT / word).is_file() for word in words if word.startswith("tests/"))
    elif command.startswith("python -m"):
        monkeypatch.setattr(sys, "argv", [words[2], "--help"])
        status: object = None
        try:
            runpy.run_module(words[2], run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            status = ended.code
        assert not status
    elif words[0] == "pip":
        for file in ("constraints.txt", "pyproject.toml"):
            assert (ROOT / file).is_file()
        assert words == ["pip", "install", "-c", "constraints.txt", "-e", "."]
    else:
        assert command == ".venv/bin/pre-commit install"
        assert "pre_commit==" in (ROOT / "constraints.txt").read_text()


def add_the_strategy_of_contributing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The class and the option that CONTRIBUTING.md has one write, as they stand there."""
    blocks = re.findall(r"(?:^(?: {8}.*)?\n)+", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    (code,) = [block for block in blocks if "class Alternate" in block]
    (option,) = [block for block in blocks if "_target_:" in block]
    (folder / "alternate.py").write_text(textwrap.dedent(code))
    (folder / "strategy").mkdir()
    (folder / "strategy" / "alternate.yaml").write_text(textwrap.dedent(option).lstrip())
    monkeypatch.setattr(efficient_rl.strategies, "__path__", [*efficient_rl.strategies.__path__, str(folder)])


@pytest.mark.parametrize("module", ["efficient_rl.sweep", "analysis.report"])
def test_a_command_tells_how_it_is_used_and_ends_with_status_0(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert module in done.stdout


def test_the_readme_names_the_commands_that_matter() -> None:
    assert {"make demo", "make test", "python -m efficient_rl.sweep -m strategy=first_k,last_k,lora"} <= set(commands())


def test_the_readme_fits_on_a_screen_and_its_links_exist() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 75
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.name)
def test_the_numbers_in_the_pages_are_those_of_the_results(page: Path) -> None:
    text = page.read_text()
    assert "<!-- table:" in text
    assert filled(text, ROOT / "benchmarks" / "results") == text


def test_ci_calls_the_demo_then_the_readmes_test_command_then_the_slow_tests() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    demo = next(number for number, line in enumerate(lines) if line.startswith("make demo"))
    assert demo < lines.index("make test") < lines.index("make test-slow")


def test_every_requirement_is_pinned_to_a_version_that_it_allows() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"], *project["optional-dependencies"]["bench"]]
    for text in wanted:
        requirement = Requirement(text)
        name = requirement.name.lower().replace("_", "-")
        assert requirement.specifier.contains(pins[name]), f"{text} against {pins.get(name)}"
