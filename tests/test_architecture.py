"""Who may import whom, and what must stay cheap to import."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment

TORCH_FREE = (
    "doctor.__main__",
    "cli",
    "errors",
    "files",
    "config.compose",
    "config.filters",
    "config.options",
    "config.run_config",
    "config.schema",
    "rundir.directory",
    "rundir.process",
    "rundir.result",
    "rundir.state",
    "rundir.provenance",
    "distributed.failure_watch",
    "distributed.process_group",
    "launch.base",
    "launch.slurm.launcher",
    "tracking.client",
    "tracking.collector",
    "tracking.sync",
    "tracking.views",
    "sweep.__main__",
    "sweep.controller",
    "sweep.execution",
    "sweep.plan",
    "status.__main__",
    "status.snapshot",
    "ui",
)
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "mlflow", "tokenizers")
GROUND = {"cli", "errors", "files", "libraries", "metrics"}  # everybody may import these; they import one another only
ALLOWED = {  # package or module -> what else of ours it may import
    "cli": set(),
    "errors": set(),
    "files": set(),
    "libraries": set(),
    "metrics": set(),
    "strategies": set(),
    "rewards": set(),
    "tasks": {"rewards"},
    "curricula": set(),
    "config": {"rewards", "strategies", "tasks"},
    "distributed": set(),
    "rundir": {"config"},
    "models": {"config"},
    "chat": {"rewards"},
    "decoding": {"rewards"},
    "fit": {"decoding"},
    "prompts": {"chat", "config", "fit", "tasks"},
    "datasets": {"config", "tasks"},
    "nano": {"tasks"},
    "base_evaluation": {"evaluate", "rundir", "tasks"},
    "evaluate": {"decoding", "distributed", "rewards", "tasks", "training"},
    "training": {"config", "curricula", "decoding", "distributed", "rewards", "strategies"},
    "run": {
        *("base_evaluation", "config", "curricula", "datasets", "distributed", "evaluate", "fit", "models", "prompts"),
        *("rewards", "rundir", "strategies", "tasks", "training"),
    },
    "launch": {"config", "distributed", "evaluate", "models", "rundir", "run", "training"},
    "tracking": {"config", "rundir"},
    "preflight": {"config", "datasets", "launch", "models", "prompts", "rewards", "rundir", "strategies", "training"},
    "sweep": {"config", "launch", "preflight", "rundir", "tracking"},
    "search": {"config", "launch", "preflight", "rundir", "sweep", "tracking"},
    "status": {"config", "launch", "rundir", "sweep"},
    "doctor": {
        *("config", "datasets", "decoding", "launch", "models", "preflight", "prompts", "rewards", "rundir", "sweep"),
        *("tasks", "tracking", "training"),
    },
    "ui": {"tracking"},
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
        allowed = ALLOWED[part] | {part} | GROUND
        assert ours <= allowed, f"{path.name} imports {ours - allowed}"


def test_only_tracking_knows_mlflow() -> None:
    """Neither its modules nor its words: tags, tables, endpoints and commands."""
    for path in [*(ROOT / "efficient_rl").glob("**/*.py"), *(ROOT / "analysis").glob("**/*.py")]:
        if "tracking" not in path.parts:
            assert not any(name.split(".")[0] == "mlflow" for name in imported(path)), path
            assert not re.search(r"mlflow(?!\.db)", path.read_text()), path


ANALYSIS = {  # room of analysis -> the rooms below it, which it may import
    "data": set(),
    "stats": {"data"},
    "figures": {"data", "stats"},
    "report": {"data", "stats", "figures"},
    "claims": {"data", "stats", "figures", "report"},
    "compare": {"data", "stats", "figures", "report"},
    "load": {"data"},  # this and the next are import paths of version 0.1
    "aggregate": {"stats"},
}
OF_THE_PACKAGE = {  # file of analysis -> what it may import beside the reader of run directories
    "data/search.py": {"search"},
    "data/stored.py": {"tracking"},
    "report/__main__.py": {"tracking"},
    "claims/__main__.py": {"config", "sweep"},
    "claims/evaluate.py": {"config"},
}
READ_OF_A_SWEEP = ("efficient_rl.sweep.labels", "efficient_rl.sweep.manifest")


def test_the_rooms_of_analysis_import_one_way() -> None:
    for path in (ROOT / "analysis").glob("**/*.py"):
        room = path.relative_to(ROOT / "analysis").parts[0].removesuffix(".py")
        names = {name.split(".")[1] for name in imported(path) if name.startswith("analysis.")}
        assert names <= ANALYSIS.get(room, set()) | {room}, path


def test_analysis_imports_only_what_reads_run_directories_and_the_store() -> None:
    for path in (ROOT / "analysis").glob("**/*.py"):
        name = path.relative_to(ROOT / "analysis").as_posix()
        names = {each for each in imported(path) if each.startswith("efficient_rl.")} - {"efficient_rl.sweep"}
        ours = {each.split(".")[1] for each in names if not each.startswith(READ_OF_A_SWEEP)}
        allowed = {"rundir"} | GROUND | OF_THE_PACKAGE.get(name, set())
        assert ours <= allowed, path


def test_nothing_evaluates_or_executes_text() -> None:
    for folder in ("efficient_rl", "analysis"):
        for path in (ROOT / folder).glob("**/*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    assert node.func.id not in ("eval", "exec", "compile"), path


def heavy_after(*modules: str) -> list[str]:
    """A line a module, imported one after the other in one process: its name, and what heavy is loaded by then."""
    script = (
        "import importlib, sys\nfor module in sys.argv[1:]:\n    importlib.import_module(f'efficient_rl.{module}')\n"
        f"    print(module, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    line = [sys.executable, "-c", script, *modules]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_planning_imports_nothing_heavy() -> None:
    assert heavy_after(*TORCH_FREE) == [f"{module} []" for module in TORCH_FREE]


@pytest.mark.slow
@pytest.mark.parametrize("module", TORCH_FREE)
def test_a_module_of_planning_can_be_imported_first_and_imports_nothing_heavy(module: str) -> None:
    assert heavy_after(module) == [f"{module} []"]


@pytest.mark.parametrize("arguments", [["--help"], ["-m", "strategy=full,lora", "seed=0,1", "dry_run=true"]])
def test_help_and_dry_runs_import_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom efficient_rl.sweep.__main__ import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as error:\n    assert not error.code\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip().endswith("heavy: []"), done.stdout + done.stderr


def test_import_paths_of_version_0_1_still_work() -> None:
    from analysis.aggregate import summarize
    from analysis.load import load_sweep
    from efficient_rl.launch.slurm import SlurmLauncher
    from efficient_rl.run import Options, quiet_libraries, train
    from efficient_rl.strategies.static import FirstK
    from efficient_rl.training.grpo import EfficientGRPOTrainer

    for part in (summarize, load_sweep, SlurmLauncher, Options, quiet_libraries, train, FirstK, EfficientGRPOTrainer):
        assert part.__module__.partition(".")[0] in ("analysis", "efficient_rl")
