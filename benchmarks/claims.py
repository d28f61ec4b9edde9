"""What published claims come to under GRPO on the embedded model, 5 seeds each."""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from analysis.claims.__main__ import as_data, evaluate_all, write_page
from analysis.claims.spec import read_claims
from benchmarks.machine import write_result

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "claims.json"


def main() -> None:
    """Do the claims' runs in an empty folder (or go on in `--folder`), write the page there and its numbers here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    claims = read_claims(ROOT / "sweeps" / "claims")
    for claim in claims:
        command = [sys.executable, "-m", "efficient_rl.sweep", f"sweep=claims/{claim.name}", "tracking.uri=none"]
        subprocess.run(command, cwd=folder, check=True)
    found = evaluate_all(claims, [f"output={folder / 'outputs'}"])
    print(*write_page(found, folder / "reports" / "claims"), sep="\n")
    write_result(arguments.output, __doc__ or "", {"claims": as_data([judged for judged, _ in found])})


if __name__ == "__main__":
    main()
