"""What the README and docs tell people to type works as written, and the numbers they show are the measured ones."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from benchmarks import readme
from benchmarks.readme import filled
from tests.conftest import ROOT, environment

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


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("command", commands())
def test_every_command_parses_and_the_quick_ones_run(command: str, tmp_path: Path) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        done = run(["make", "-n", *words[1:]], ROOT)
        assert done.returncode == 0, done.stderr
    elif command.startswith("python -m efficient_rl.sweep"):
        quick = words[3:] if "--help" in words else [*words[3:], "dry_run=true"]
        done = run([sys.executable, "-m", "efficient_rl.sweep", *quick], tmp_path)
        assert done.returncode == 0, done.stderr
    elif command.startswith("python -m"):
        done = run([sys.executable, "-m", words[2], "--help"], tmp_path)
        assert done.returncode == 0, done.stderr
    elif words[0] == "pip":
        for file in ("constraints.txt", "pyproject.toml"):
            assert (ROOT / file).is_file()
        assert words == ["pip", "install", "-c", "constraints.txt", "-e", "."]
    else:
        assert command == ".venv/bin/pre-commit install"
        assert "pre_commit==" in (ROOT / "constraints.txt").read_text()


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
