"""Prints the table of a dry run: every run of a plan, its state, and what it will take."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from efficient_rl.launch.base import build_launcher
from efficient_rl.sweep.display import bytes_text, duration
from efficient_rl.sweep.estimate import estimate, finished_results, make_budget
from efficient_rl.sweep.labels import label_runs
from efficient_rl.sweep.plan import Plan
from efficient_rl.sweep.request import Request

ROWS = 50


def show_plan(request: Request, plan: Plan, console: Console) -> None:
    """Print the table and the totals."""
    gpus = build_launcher(request.settings["launcher"]).gpus_per_run
    known = finished_results(request, plan.finished)
    table = Table(title=escape(f"sweep {request.name}"), title_justify="left", caption_justify="left")
    for column in ("run", "what", "state", "time", "memory", "estimated from"):
        table.add_column(column, justify="right" if column in ("time", "memory") else "left")
    labels = label_runs(plan.runs)
    states = ["finished"] * len(plan.finished) + ["active"] * len(plan.active) + ["new"] * len(plan.pending)
    for run, state in list(zip(plan.runs, states, strict=True))[:ROWS]:
        guess = estimate(run, known, gpu=gpus > 0)
        seconds = "" if guess.seconds is None else duration(guess.seconds)
        memory = "" if guess.peak_bytes is None else bytes_text(guess.peak_bytes)
        table.add_row(run.config_hash[:8], labels[run.config_hash], state, seconds, memory, guess.source)
    console.print(table)
    if len(plan.runs) > ROWS:
        console.print(f"({len(plan.runs) - ROWS} more)")
    budget = make_budget(plan.pending, known, gpus)
    counts = f"{len(plan.pending)} new, {len(plan.active)} active, {len(plan.finished)} finished"
    counts += f", {plan.duplicates} duplicate, {request.dropped} dropped by filters"
    total = f"about {duration(3600 * budget.hours)} of one worker"
    if gpus:
        total += f", {budget.gpu_hours:.1f} GPU hours"
    if budget.unknown:
        total += f" and {budget.unknown} of unknown length"
    console.print(f"{counts}; {total}", soft_wrap=True)
