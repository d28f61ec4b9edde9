"""The wheel is whole: installed alone, it finds its configurations, sweeps and embedded model from any folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the installed wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    assert wheel.stat().st_size < 3e6
    install = [*pip, "install", "--no-deps", "--no-index", "--target", str(folder / "site"), str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    return folder / "site"


def run(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder, env=environment(PYTHONPATH=str(installed)), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_help_and_dry_run_work_from_any_folder(installed: Path, tmp_path: Path) -> None:
    where = run(installed, tmp_path, "-c", "import efficient_rl, analysis; print(efficient_rl.__file__, analysis.__file__)")
    assert where.stdout.count(str(installed)) == 2
    shown = run(installed, tmp_path, "-m", "efficient_rl.sweep", "--help")
    assert shown.returncode == 0
    assert "first_k, full, galore" in shown.stdout
    planned = run(installed, tmp_path, "-m", "efficient_rl.sweep", "sweep=which_blocks", "dry_run=true")
    assert planned.returncode == 0, planned.stderr
    assert "12 new" in planned.stdout


def test_the_embedded_model_comes_along(installed: Path, tmp_path: Path) -> None:
    script = "from efficient_rl.config.run_config import fingerprint; print(fingerprint('package:nano/model'))"
    theirs = run(installed, tmp_path, "-c", script).stdout.strip()
    from efficient_rl.config.run_config import fingerprint

    assert theirs == fingerprint("package:nano/model") != ""
