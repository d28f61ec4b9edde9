"""Prints the table of a dry run: every run of a plan, its state, and what it will take."""

from collections import Counter

from rich.console import Console

from efficient_rl.cli import print_line, print_table
from efficient_rl.launch.base import build_launcher
from efficient_rl.preflight.memory import PROCESS_BYTES
from efficient_rl.sweep.display import bytes_text, duration
from efficient_rl.sweep.estimate import estimate, known_runs, make_budget
from efficient_rl.sweep.labels import label_runs
from efficient_rl.sweep.plan import Plan
from efficient_rl.sweep.request import Request

ROWS = 50
COLUMNS = ("run", "what", "state", "time", "memory")
DROPPED = ("memory", "run", "state")  # where a terminal is narrow


def show_plan(request: Request, plan: Plan, console: Console) -> None:
    """Print the table and the totals."""
    gpus = build_launcher(request.settings["launcher"]).gpus_per_run
    known = known_runs(request, {run.model.path for run in plan.runs})
    rows: list[tuple[str, ...]] = []
    labels = label_runs(plan.runs)
    states = ["finished"] * len(plan.finished) + ["active"] * len(plan.active) + ["new"] * len(plan.pending)
    sources: dict[str, Counter[str]] = {"time": Counter(), "memory": Counter()}
    for run, state in list(zip(plan.runs, states, strict=True))[:ROWS]:
        guess = estimate(run, known)
        seconds = "unknown" if guess.seconds is None else duration(guess.seconds)
        memory = "unknown" if guess.peak_bytes is None else bytes_text(guess.peak_bytes)
        rows.append((run.config_hash[:8], labels[run.config_hash], state, seconds, memory))
        sources["time"][guess.seconds_from] += 1
        sources["memory"][guess.bytes_from] += 1
    print_table(console, f"sweep {request.name}", COLUMNS, rows, DROPPED, "what", ("time", "memory"))
    if len(plan.runs) > ROWS:
        console.print(f"({len(plan.runs) - ROWS} more)")
    for word, counts in sources.items():
        said = [f"{source} ({count} runs)" for source, count in counts.items()]
        print_line(console, f"{word}: {'; '.join(said if len(said) > 1 else counts)}")
    process = bytes_text(PROCESS_BYTES)
    print_line(console, f"memory is that of tensors at the peak of a step; on a CPU a process takes {process} besides")
    counted = f"{len(plan.pending)} new, {len(plan.active)} active, {len(plan.finished)} finished"
    counted += f", {plan.duplicates} duplicate, {request.dropped} dropped by filters"
    print_line(console, f"{counted}; {make_budget(plan.pending, known, gpus)}")
