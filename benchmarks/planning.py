"""Measures planning thousands of runs, help, a dry run and a finished sweep, against bare Hydra.

python -m benchmarks.planning --repeats 5
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import Cost, cost_of, spread, spread_text, write_result
from efficient_rl.config.options import config_folder

PLAN = """
import json, sys, time
started = time.monotonic()
from efficient_rl.sweep.plan import read_plan
from efficient_rl.sweep.request import read_request
imported = time.monotonic()
plan = read_plan(read_request(sys.argv[1:], multirun=True))
planned = time.monotonic()
print(json.dumps({
    "runs": len(plan.pending),
    "import_seconds": imported - started,
    "plan_seconds": planned - imported,
    "torch_imported": "torch" in sys.modules,
}))
"""
HYDRA_APP = """
import hydra


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config):
    pass


if __name__ == "__main__":
    main()
"""
BLOCKS = ("strategy=first_k,last_k", "strategy.k=1,2,3,4,5")  # 10 distinct runs a seed
SWEEP = (sys.executable, "-m", "efficient_rl.sweep")
DRY_RUN = (*SWEEP, "-m", "strategy=first_k,last_k,lora", "dry_run=true")
TINY = (
    *SWEEP,
    "-m",
    "strategy=first_k,last_k,lora",
    "seed=0,1,2,3",
    "grpo.max_steps=1",
    "grpo.per_device_train_batch_size=8",
    "grpo.num_generations=4",
    "grpo.max_completion_length=8",
    "grpo.train_problems=16",
    "eval.problems=4",
    "eval.samples=1",
)


def measure_planning(runs: int, repeats: int, folder: Path) -> dict[str, Any]:
    """Plan that many distinct runs, each time in a fresh process."""
    command = [sys.executable, "-c", PLAN, *BLOCKS, f"seed=range(0,{runs // 10})"]
    costs = [cost_of(command, cwd=folder) for _ in range(repeats)]
    said = [json.loads(cost.output) for cost in costs]
    if any(answer["runs"] != runs for answer in said):
        raise RuntimeError(f"planned {said[0]['runs']} runs instead of {runs}")
    return {
        "torch_imported": any(answer["torch_imported"] for answer in said),
        "plan_seconds": spread([answer["plan_seconds"] for answer in said]),
        "import_seconds": spread([answer["import_seconds"] for answer in said]),
        **process_seconds(costs),
    }


def process_seconds(costs: Sequence[Cost]) -> dict[str, dict[str, float]]:
    return {
        "wall_seconds": spread([cost.wall_seconds for cost in costs]),
        "cpu_seconds": spread([cost.cpu_seconds for cost in costs]),
    }


def measure_commands(repeats: int, folder: Path) -> dict[str, Any]:
    """Our command line and a bare Hydra application on the same configuration, taking turns."""
    app = write_app(folder)
    commands = {
        "ours --help": (*SWEEP, "--help"),
        "hydra --help": (sys.executable, str(app), "--help"),
        "ours --cfg job": (*SWEEP, "--cfg", "job"),
        "ours dry_run": DRY_RUN,
        "hydra --cfg job": (sys.executable, str(app), "--cfg", "job"),
        "hydra -m": (sys.executable, str(app), "-m", DRY_RUN[-2]),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            costs[name].append(cost_of(command, cwd=folder))
    found = {name: process_seconds(known) for name, known in costs.items()}
    pairs = (
        ("ours --help", "hydra --help"),
        ("ours --cfg job", "hydra --cfg job"),
        ("ours dry_run", "hydra --cfg job"),
        ("ours dry_run", "hydra -m"),  # the same three configurations
    )
    ratios = {f"{ours} / {bare}": ratio(found[ours], found[bare]) for ours, bare in pairs}
    return {"dry_run": " ".join(("python", *DRY_RUN[1:])), "commands": found, "ratios_of_medians": ratios}


def write_app(folder: Path) -> Path:
    """A Hydra application that does nothing, with a copy of our configuration groups."""
    shutil.copytree(config_folder("conf"), folder / "conf")
    app = folder / "app.py"
    app.write_text(HYDRA_APP)
    return app


def ratio(ours: Mapping[str, Any], bare: Mapping[str, Any]) -> dict[str, float]:
    return {name: ours[name]["median"] / bare[name]["median"] for name in ("wall_seconds", "cpu_seconds")}


def measure_finished(repeats: int, folder: Path) -> dict[str, Any]:
    """Do a tiny sweep once with the default tracking store, then ask for it again."""
    first = cost_of(TINY, cwd=folder)
    results = sorted(folder.glob("outputs/runs/*/result.json"))
    before = [path.stat().st_mtime_ns for path in results]
    again = [cost_of(TINY, cwd=folder) for _ in range(repeats)]
    if before != [path.stat().st_mtime_ns for path in sorted(folder.glob("outputs/runs/*/result.json"))]:
        raise RuntimeError("the finished sweep did runs again")
    return {
        "command": " ".join(("python", *TINY[1:])),
        "runs": len(results),
        "first_time": {"wall_seconds": first.wall_seconds, "cpu_seconds": first.cpu_seconds},
        "again": process_seconds(again),
    }


def measure(repeats: int, sizes: Sequence[int]) -> dict[str, Any]:
    """Everything that this file measures, in temporary folders."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "app").mkdir()
        (folder / "sweep").mkdir()
        return {
            "repeats": repeats,
            "planning": {str(runs): measure_planning(runs, repeats, folder) for runs in sizes},
            **measure_commands(repeats, folder / "app"),
            "finished_sweep": measure_finished(repeats, folder / "sweep"),
        }


def table(measured: Mapping[str, Any]) -> Table:
    rows = Table(title="seconds of a fresh process: median (min..max)", title_justify="left")
    for column in ("command", "wall s", "CPU s"):
        rows.add_column(column, justify="left" if column == "command" else "right")
    finished = measured["finished_sweep"]
    costs = {
        **{f"plan {runs} runs": found for runs, found in measured["planning"].items()},
        **measured["commands"],
        f"finished sweep of {finished['runs']} again": finished["again"],
    }
    for name, found in costs.items():
        rows.add_row(name, spread_text(found["wall_seconds"], 2), spread_text(found["cpu_seconds"], 2))
    return rows


def main() -> None:
    """Measure, write the JSON, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--runs", type=int, nargs="+", default=[1_000, 10_000], help="sizes of the plans, multiples of 10")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "planning.json")
    arguments = parser.parse_args()
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # the finished sweep keeps to its own folder
    measured = measure(arguments.repeats, arguments.runs)
    write_result(arguments.output, str(__doc__), measured)
    console = Console()
    console.print(table(measured))
    for pair, found in measured["ratios_of_medians"].items():
        console.print(f"{pair}: {found['wall_seconds']:.2f} wall, {found['cpu_seconds']:.2f} CPU", highlight=False)
    imported = {runs: found["torch_imported"] for runs, found in measured["planning"].items()}
    console.print(f"planning imported torch: {imported}", highlight=False)


if __name__ == "__main__":
    main()
