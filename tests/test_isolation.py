"""The tests see neither what is in the checkout nor the environment of whoever started them."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT, environment
from tests.isolation import DONE

FOREIGN = {
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    "HF_HOME": "/nonesuch",
    "HF_HUB_OFFLINE": "1",
    "SLURM_JOB_ID": "1",
    "SBATCH_PARTITION": "nonesuch",
    "RANK": "1",
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "nonesuch",
}


def test_the_variables_of_a_user_a_cluster_or_a_launcher_reach_no_test_and_no_child() -> None:
    script = (
        "import tests.conftest as shared, huggingface_hub.constants as hub\n"
        f"print([name for name in {sorted(FOREIGN)!r} if name in shared.environment()])\n"
        "print(hub.HF_HOME == shared.environment()['HF_HOME'])"
    )
    started = environment() | FOREIGN
    del started[DONE]
    done = subprocess.run([sys.executable, "-c", script], env=started, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['HF_HOME']", "True"]
    assert "/nonesuch" not in os.environ["HF_HOME"]


def test_no_test_and_no_child_starts_in_the_checkout() -> None:
    for path in (ROOT / "tests").glob("**/*.py"):
        assert "cwd" + "=ROOT" not in path.read_text(), path
    assert Path.cwd() != ROOT
    assert list(Path.cwd().iterdir()) == []
