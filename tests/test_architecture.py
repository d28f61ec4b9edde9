"""Who may import whom, and what must stay cheap to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment

TORCH_FREE = (
    "doctor.__main__",
    "compose",
    "config",
    "sections",
    "plan",
    "record",
    "filters",
    "naming",
    "estimate",
    "display",
    "sweep",
    "watch",
    "flight",
    "supervise",
    "budget",
    "status",
    "observe",
    "watchers",
    "launch.slurm",
    "launch.processes",
    "team",
    "tracking",
    "provenance",
    "ui",
)
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "mlflow", "tokenizers")
ALLOWED = {  # package or module -> what of ours it may import
    "strategies": {"strategies"},
    "tasks": {"tasks"},
    "rewards": {"rewards"},
    "curricula": {"curricula"},
    "compose": set(),
    "sections": {"compose", "rewards"},
    "config": {"compose", "sections", "strategies", "tasks"},
    "filters": {"compose"},
    "plan": {"config", "record"},
    "record": {"config", "sections"},
    "naming": {"config"},
    "estimate": {"config", "record"},
    "display": {"record"},
    "provenance": set(),
    "ui": {"compose", "tracking"},
    "metrics": set(),
    "tracking": {"config", "metrics", "record"},
    "models": {"compose", "sections"},
    "prompts": {"compose", "sections", "tasks"},
    "problems": {"compose", "config", "tasks"},
    "rendezvous": set(),
    "team": {"rendezvous"},
    "evaluate": {"rewards", "tasks", "team", "training"},
    "training": {"compose", "config", "sections", "strategies", "rewards", "curricula", "team", "training"},
    "run": {
        "compose",
        "config",
        "record",
        "strategies",
        "tasks",
        "rewards",
        "curricula",
        "training",
        "models",
        "evaluate",
        "provenance",
        "prompts",
        "problems",
        "sections",
        "team",
    },
    "preload": {"run", "training", "models", "evaluate", "estimate", "filters", "plan", "watch"},
    "nano": {"tasks"},
    "launch": {"compose", "config", "record", "rendezvous", "run", "launch", "sections", "team"},
    "sweep": {
        "compose",
        "config",
        "plan",
        "record",
        "filters",
        "naming",
        "estimate",
        "display",
        "watch",
        "launch",
        "searching",
    },
    "watch": {"budget", "compose", "config", "plan", "record", "naming", "display", "flight", "launch", "tracking", "sweep"},
    "flight": {"config", "display", "launch", "provenance", "record", "supervise", "sweep", "watchers"},
    "searching": {
        "budget",
        "compose",
        "config",
        "display",
        "filters",
        "flight",
        "launch",
        "metrics",
        "naming",
        "record",
        "searching",
        "sections",
        "sweep",
        "tracking",
        "watch",
    },
    "doctor": {
        "compose",
        "config",
        "display",
        "doctor",
        "launch",
        "models",
        "problems",
        "prompts",
        "record",
        "sections",
        "strategies",
        "sweep",
        "tasks",
        "tracking",
        "training",
    },
    "watchers": {"record"},
    "observe": {"compose", "display", "launch", "record", "watchers"},
    "status": {"compose", "display", "launch", "observe", "record", "sweep"},
    "supervise": {"display", "launch", "record"},
    "budget": {"compose", "config", "estimate", "record"},
}


def imported(path: Path) -> set[str]:
    """Full names of all modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def parts() -> dict[str, list[Path]]:
    package = ROOT / "efficient_rl"
    found: dict[str, list[Path]] = {}
    for path in package.glob("**/*.py"):
        relative = path.relative_to(package)
        if relative.name != "__init__.py":
            found.setdefault(relative.parts[0].removesuffix(".py"), []).append(path)
    return found


def test_the_table_names_every_part_of_the_package() -> None:
    assert set(parts()) == set(ALLOWED)


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_a_part_imports_only_what_the_table_allows(part: str) -> None:
    for path in parts()[part]:
        ours = {name.split(".")[1] for name in imported(path) if name.startswith("efficient_rl.")}
        assert ours <= ALLOWED[part], f"{path.name} imports {ours - ALLOWED[part]}"


def test_only_tracking_says_mlflow() -> None:
    for path in (ROOT / "efficient_rl").glob("**/*.py"):
        if path.name != "tracking.py":
            assert not any(name.split(".")[0] == "mlflow" for name in imported(path)), path


ANALYSIS = {  # room of analysis -> the rooms below it, which it may import
    "data": set(),
    "labels": set(),
    "stats": {"data", "labels"},
    "figures": {"data", "stats"},
    "report": {"data", "stats", "figures"},
    "claims": {"data", "stats", "figures", "report"},
    "compare": {"data", "stats", "figures", "report"},
}
OF_THE_PACKAGE = {  # file of analysis -> what it may import beside the reader of run directories
    "data/server.py": {"tracking"},
    "report/__main__.py": {"tracking"},
    "claims/__main__.py": {"compose", "sweep"},
    "claims/evaluate.py": {"filters"},
}


def test_the_rooms_of_analysis_import_one_way() -> None:
    for path in (ROOT / "analysis").glob("**/*.py"):
        room = path.relative_to(ROOT / "analysis").parts[0].removesuffix(".py")
        names = {name.split(".")[1] for name in imported(path) if name.startswith("analysis.")}
        assert names <= ANALYSIS.get(room, set()) | {room}, path


def test_analysis_imports_only_what_reads_run_directories_and_the_store() -> None:
    for path in (ROOT / "analysis").glob("**/*.py"):
        name = path.relative_to(ROOT / "analysis").as_posix()
        ours = {name.split(".")[1] for name in imported(path) if name.startswith("efficient_rl.")}
        assert ours <= {"metrics", "record"} | OF_THE_PACKAGE.get(name, set()), path
        mlflow = any(each.split(".")[0] == "mlflow" for each in imported(path))
        assert name == "data/server.py" or not mlflow, path


def test_nothing_evaluates_or_executes_text() -> None:
    for folder in ("efficient_rl", "analysis"):
        for path in (ROOT / folder).glob("**/*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    assert node.func.id not in ("eval", "exec", "compile"), path


@pytest.mark.parametrize("module", TORCH_FREE)
def test_planning_imports_nothing_heavy(module: str) -> None:
    script = f"import sys, efficient_rl.{module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["-m", "strategy=full,lora", "seed=0,1", "dry_run=true"]])
def test_help_and_dry_runs_import_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom efficient_rl.sweep import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as error:\n    assert not error.code\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip().endswith("heavy: []"), done.stdout + done.stderr
