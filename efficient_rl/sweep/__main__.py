"""The command line: compose, plan, show, launch and watch.

python -m efficient_rl.sweep -m strategy=first_k,last_k,lora seed=0,1,2
python -m efficient_rl.sweep -m sweep=which_blocks dry_run=true
"""

import argparse
import sys
import time
from collections.abc import Sequence

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from efficient_rl.cli import DONE, command_line, parse_overrides
from efficient_rl.config.compose import expand
from efficient_rl.config.options import config_folder, group_options
from efficient_rl.launch.base import build_launcher
from efficient_rl.rundir.directory import RunDirectory
from efficient_rl.sweep.display import bytes_text, duration
from efficient_rl.sweep.estimate import estimate
from efficient_rl.sweep.labels import label_runs
from efficient_rl.sweep.plan import Plan, read_plan
from efficient_rl.sweep.request import Request, plan_request, read_overrides

DRY_RUN_ROWS = 50


def show_plan(request: Request, plan: Plan, console: Console) -> None:
    """The table of a dry run: every run, its state, and an estimate of time and memory."""
    known = []
    for run in plan.finished:
        result = RunDirectory(request.folder(run)).result()
        if result is not None:
            known.append((run, result))
    table = Table(title=escape(f"sweep {request.name}"), title_justify="left", caption_justify="left")
    for column in ("run", "what", "state", "time", "memory", "estimated from"):
        table.add_column(column, justify="right" if column in ("time", "memory") else "left")
    gpus = build_launcher(request.settings["launcher"]).gpus_per_run
    states = {"finished": plan.finished, "active": plan.active, "new": plan.pending}
    labels = label_runs(plan.runs)
    total, unknown = 0.0, 0
    for state, runs in states.items():
        for run in runs:
            guess = estimate(run, known, gpu=gpus > 0)
            if state == "new":
                total, unknown = total + (guess.seconds or 0.0), unknown + (guess.seconds is None)
            if table.row_count < DRY_RUN_ROWS:
                seconds = "" if guess.seconds is None else duration(guess.seconds)
                memory = "" if guess.peak_bytes is None else bytes_text(guess.peak_bytes)
                table.add_row(run.config_hash[:8], labels[run.config_hash], state, seconds, memory, guess.source)
    console.print(table)
    if len(plan.runs) > DRY_RUN_ROWS:
        console.print(f"({len(plan.runs) - DRY_RUN_ROWS} more)")
    console.print(
        f"{len(plan.pending)} new, {len(plan.active)} active, {len(plan.finished)} finished, {plan.duplicates} duplicate, "
        f"{request.dropped} dropped by filters; about {duration(total)} of one worker"
        + (f", {total / 3600 * gpus:.1f} GPU hours" if gpus else "")
        + (f" and {unknown} of unknown length" if unknown else ""),
        soft_wrap=True,
    )


@command_line()
def main(arguments: Sequence[str]) -> int:
    """Run the command line; the exit status is 0, 1 (a run failed), 2 (bad request) or 130 (stopped)."""
    known, overrides = parse_overrides(_parser(), arguments)
    console = Console()
    if known.cfg:
        for point in expand(overrides, known.config_dir)[:1]:
            print(yaml.safe_dump(dict(point.config), sort_keys=False), end="")
        return DONE
    started = time.monotonic()
    asked = read_overrides(overrides, known.multirun, known.config_dir)
    if asked.searches:
        from efficient_rl.search.request import do_search

        return do_search(asked, known.config_dir, console)
    request = plan_request(asked, known.config_dir)
    plan = read_plan(request)
    if request.settings["dry_run"]:
        show_plan(request, plan, console)
        console.print(f"planned in {time.monotonic() - started:.1f} s; nothing was started")
        return DONE
    from efficient_rl.sweep.execution import carry_out

    return carry_out(request, plan, console)


def _parser() -> argparse.ArgumentParser:
    groups = "\n".join(f"  {group}: {', '.join(options)}" for group, options in group_options().items())
    questions = config_folder("sweeps")
    sweeps = ", ".join(sorted(str(path.relative_to(questions).with_suffix("")) for path in questions.glob("**/*.yaml")))
    parser = argparse.ArgumentParser(
        prog="python -m efficient_rl.sweep",
        description=__doc__,
        epilog=f"groups (group=option):\n{groups}\n\nquestions (sweep=name): {sweeps}\n\n"
        "Any value: group.key=value, see --cfg job. With -m, key=a,b,c and Hydra's range() and choice() sweep.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [-m] [override ...]",
        allow_abbrev=False,
    )
    parser.add_argument("--cfg", choices=["job"], help="print the composed configuration and stop")
    return parser


if __name__ == "__main__":
    sys.exit(main())
