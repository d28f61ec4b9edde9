"""The command line: plans a sweep or a search, and runs it or shows what it would do.

python -m efficient_rl.sweep -m strategy=first_k,last_k,lora seed=0,1,2
python -m efficient_rl.sweep -m sweep=which_blocks dry_run=true
"""

import sys
import time
from collections.abc import Sequence
from typing import Any

import yaml
from rich.console import Console

from efficient_rl.cli import DONE, Parser, command_line, own_folder
from efficient_rl.config.options import check_folder, config_folder, group_options, option_names
from efficient_rl.errors import ConfigError, did_you_mean


@command_line()
def main(arguments: Sequence[str]) -> int:
    """Run the command line; exit status 0, 1 (a run failed), 2 (bad request), 130 (stopped)."""
    known, overrides = _parser(own_folder(arguments)).split(arguments)
    # Imported here and not for --help, which is to answer at once.
    from efficient_rl.config.compose import expand
    from efficient_rl.launch.base import build_launcher
    from efficient_rl.preflight.inspection import refuse_known_faults
    from efficient_rl.sweep.dry_run import show_plan
    from efficient_rl.sweep.plan import read_plan
    from efficient_rl.sweep.request import build_search, plan_request, read_command_line

    console = Console()
    if known.cfg:
        point = expand(overrides, known.config_dir)[0]
        print(yaml.safe_dump(_part(dict(point.config), known.package), sort_keys=False), end="")
        return DONE
    started = time.monotonic()
    line = read_command_line(overrides, known.multirun, known.config_dir)
    if line.searches:
        return build_search(line).run(line, console)
    request = plan_request(line)
    plan = read_plan(request)
    refuse_known_faults(plan.pending, build_launcher(request.settings["launcher"]))
    if request.settings["dry_run"]:
        show_plan(request, plan, console)
        console.print(f"planned in {time.monotonic() - started:.1f} s; nothing was started")
        return DONE
    from efficient_rl.sweep.execution import execute_plan

    return execute_plan(request, plan, console)


def _part(tree: dict[str, Any], package: str | None) -> Any:
    """What lies below a dotted key, or everything."""
    for key in package.split(".") if package else ():
        if not isinstance(tree, dict) or key not in tree:
            raise ConfigError(f"--package {package}: unknown key {key!r}; {did_you_mean(key, tree)}")
        tree = tree[key]
    return tree


def _parser(folder: str | None) -> Parser:
    if folder is not None:
        check_folder(folder)
    groups = "\n".join(f"  {group}: {', '.join(options)}" for group, options in group_options(folder).items())
    sweeps = ", ".join(option_names(config_folder("sweeps")))
    parser = Parser(
        prog="python -m efficient_rl.sweep",
        description=__doc__,
        epilog=f"groups (group=option):\n{groups}\n\nquestions (sweep=name): {sweeps}\n\n"
        "Any value: group.key=value, see --cfg job. With -m, key=a,b,c and Hydra's range(), choice() and glob() sweep.",
        usage="%(prog)s [-m] [override ...]",
    )
    parser.add_argument("--cfg", "-c", choices=["job"], help="print the composed configuration and stop")
    parser.add_argument("--package", "-p", metavar="KEY", help="with --cfg: only what is below this key, such as task")
    parser.add_argument("--resolve", action="store_true", help="with --cfg: as always, with every reference replaced")
    parser.add_argument("--run", "-r", action="store_true", help="as always: run, or plan with dry_run=true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
