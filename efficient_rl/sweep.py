"""The command line: compose, plan, show, launch and watch.

python -m efficient_rl.sweep -m strategy=first_k,last_k,lora seed=0,1,2
python -m efficient_rl.sweep -m sweep=which_blocks dry_run=true
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from efficient_rl.compose import (
    ConfigError,
    config_folder,
    expand,
    group_options,
    override_key,
    suggest,
    swept_keys,
)
from efficient_rl.config import RunConfig, parse_run
from efficient_rl.display import bytes_text, duration
from efficient_rl.estimate import estimate
from efficient_rl.filters import keeps
from efficient_rl.launch import build_launcher
from efficient_rl.naming import label_runs, sweep_name
from efficient_rl.plan import Plan, make_plan
from efficient_rl.record import Record

EXIT_BAD_REQUEST, EXIT_STOPPED = 2, 130
SHARED_KEYS = (
    "launcher",
    "tracking",
    "search",
    "output",
    "dry_run",
    "force",
    "name",
    "sweep",
    "checkpoint_steps",
    "checkpoint_minutes",
)
DRY_RUN_ROWS = 50
MAX_NAME_BYTES = 150


@dataclass(frozen=True)
class Request:
    """What the command line asks for. `settings` are the keys that do not belong to a single run."""

    name: str
    question: str | None
    command: str
    runs: tuple[RunConfig, ...]
    dropped: int
    settings: Mapping[str, Any]

    @property
    def outputs(self) -> Path:
        """The absolute output folder."""
        return Path(str(self.settings["output"])).resolve()

    def folder(self, run: RunConfig) -> Path:
        """The directory of one run."""
        return self.outputs / "runs" / run.config_hash


@dataclass(frozen=True)
class Overrides:
    """The overrides of a command line and of the sweep file that it names.

    `given` are the command line's own, `rules` the filters, `command` is the whole command again.
    """

    arguments: tuple[str, ...]
    rules: tuple[str, ...]
    given: tuple[str, ...]
    command: str
    question: str | None
    file_name: str | None

    @property
    def searches(self) -> bool:
        """Whether they name a search."""
        return any(text.startswith("search=") and text not in ("search=none", "search=null") for text in self.arguments)


def read_overrides(overrides: Sequence[str], multirun: bool, extra_folder: str | None = None) -> Overrides:
    """The overrides put in order; ConfigError where several values are given for what takes one."""
    rules = [argument.removeprefix("filter=") for argument in overrides if argument.startswith("filter=")]
    given = [argument for argument in overrides if not argument.startswith("filter=")]
    filed, file_rules, question, file_name = _sweep_file(given)
    keys = {override_key(argument) for argument in given}
    if "filter" in keys:
        raise ConfigError("a filter reads 'filter=strategy.k < 3'")
    arguments = [*(argument for argument in filed if override_key(argument) not in keys), *given]
    swept = swept_keys(arguments)
    if swept and not multirun and file_name is None:
        raise ConfigError(f"{swept[0]} takes several values; add -m for a sweep over them")
    if shared := [key for key in swept if key.split(".")[0] in SHARED_KEYS]:
        raise ConfigError(f"{shared[0]} is one for the whole sweep; give it a single value")
    options = ["--config-dir", extra_folder] if extra_folder else []
    return Overrides(
        arguments=tuple(arguments),
        rules=(*file_rules, *rules),
        given=(*given, *(f"filter={rule}" for rule in rules)),
        command=shlex.join(["python", "-m", "efficient_rl.sweep", *(["-m"] if multirun else []), *options, *overrides]),
        question=question,
        file_name=file_name,
    )


def read_request(overrides: Sequence[str], multirun: bool, extra_folder: str | None = None) -> Request:
    """Everything that the overrides name, checked; ConfigError says what is wrong with them."""
    return _planned(read_overrides(overrides, multirun, extra_folder), extra_folder)


def _planned(asked: Overrides, extra_folder: str | None) -> Request:
    points = expand(asked.arguments, extra_folder)
    runs, dropped = _filtered([parse_run(point) for point in points], asked.rules)
    return make_request(asked, points[0].config, runs, dropped)


def make_request(asked: Overrides, tree: Mapping[str, Any], runs: Sequence[RunConfig], dropped: int) -> Request:
    """The request for these runs, with the settings of the composed tree, checked."""
    settings = {key: tree[key] for key in SHARED_KEYS}
    if not asked.searches and (unread := set(settings["search"] or {}) - {"_target_"}):
        raise ConfigError(f"search.{min(unread)} is read with search=<method> only, e.g. search=pareto")
    _check_settings(settings)
    return Request(
        name=settings["name"] or sweep_name(asked.given, asked.file_name),
        question=asked.question,
        command=asked.command,
        runs=tuple(runs),
        dropped=dropped,
        settings=settings,
    )


def _sweep_file(given: Sequence[str]) -> tuple[list[str], list[str], str | None, str | None]:
    """Overrides, filters, question and name of the file that `sweep=` names; nothing without one."""
    name = next((argument.removeprefix("sweep=") for argument in given if argument.startswith("sweep=")), None)
    if name is None or name == "null":
        return [], [], None, None
    folders = (Path("sweeps"), config_folder("sweeps"))
    found = next((path for folder in folders if (path := folder / f"{name}.yaml").is_file()), None)
    if found is None:
        valid = {str(p.relative_to(folder).with_suffix("")) for folder in folders for p in folder.glob("**/*.yaml")}
        raise ConfigError(f"unknown sweep {name!r}; {suggest(name, valid)}")
    text, overrides, rules = _read_sweep_file(found)
    question = text.splitlines()[0].lstrip("# ").strip() if text.startswith("#") else None
    return [f"{key}={_hydra_value(value)}" for key, value in overrides.items()], rules, question, name.replace("/", "-")


def _read_sweep_file(path: Path) -> tuple[str, dict[str, Any], list[str]]:
    """Text, overrides and filters of a sweep file; ConfigError says what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not isinstance(content.get("overrides"), dict):
        raise ConfigError(
            f"{path} needs `overrides:` with one `key: values` a line, and may have `filter:` with a list of rules"
        )
    if unknown := [str(key) for key in content if key not in ("overrides", "filter", "claim")]:
        raise ConfigError(f"{path}: unknown key {unknown[0]!r}; valid: claim, filter, overrides")
    rules = content.get("filter") or []
    rules = [rules] if isinstance(rules, str) else rules
    if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
        raise ConfigError(f"{path}: filter must be a rule or a list of rules, not {rules!r}")
    overrides = content["overrides"]
    if nested := [str(key) for key in overrides if key in ("sweep", "filter") or not isinstance(key, str)]:
        raise ConfigError(f"{path}: {nested[0]!r} cannot be an override here")
    return text, overrides, rules


def _hydra_value(value: Any) -> str:
    """A YAML value in Hydra's syntax; text is taken as it stands."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool | int | float | list | dict):
        return "null" if value is None else json.dumps(value)
    raise ConfigError(f"a sweep file holds texts, numbers and lists, not {value!r}; put quotes around it")


def _filtered(runs: Sequence[RunConfig], rules: Sequence[str]) -> tuple[list[RunConfig], int]:
    flat = [run.flat() for run in runs] if rules else [{} for _ in runs]
    known = {name for values in flat for name in values}
    kept = [run for run, values in zip(runs, flat, strict=True) if all(keeps(rule, values, known) for rule in rules)]
    if not kept:
        raise ConfigError(f"the filters {list(rules)} drop all {len(runs)} runs; loosen one")
    return kept, len(runs) - len(kept)


def _check_settings(settings: Mapping[str, Any]) -> None:
    for key in ("dry_run", "force"):
        if not isinstance(settings[key], bool):
            raise ConfigError(f"{key}={settings[key]!r} must be true or false")
    steps = settings["checkpoint_steps"]
    if type(steps) is not int or steps < 1:
        raise ConfigError(f"checkpoint_steps={steps!r} must be a whole number of at least 1")
    minutes = settings["checkpoint_minutes"]
    if not isinstance(minutes, int | float) or isinstance(minutes, bool) or not minutes > 0:
        raise ConfigError(f"checkpoint_minutes={minutes!r} must be a number above 0")
    if not isinstance(settings["output"], str) or not settings["output"]:
        raise ConfigError(f"output={settings['output']!r} must name a folder")
    uri = settings["tracking"]["uri"]
    if uri is not None and not isinstance(uri, str):
        raise ConfigError(f"tracking.uri={uri!r} must be a text such as sqlite:///mlflow.db, or null")
    build_launcher(settings["launcher"])
    name = settings["name"]
    if name is not None and (not isinstance(name, str) or not name or set(name) & set("/\\'\"\n") or name.startswith(".")):
        raise ConfigError(f"name={name!r} must be a text without slashes and quotes")
    if name is not None and len(name.encode()) > MAX_NAME_BYTES:
        raise ConfigError(f"name={name[:20]!r}... has {len(name.encode())} bytes; use at most {MAX_NAME_BYTES}")


def read_plan(request: Request) -> Plan:
    """The plan, from the states of the run directories."""
    states = {run.config_hash: Record(request.folder(run)).state() for run in request.runs}
    return make_plan(request.runs, states, force=request.settings["force"])


def show_plan(request: Request, plan: Plan, console: Console) -> None:
    """The table of a dry run: every run, its state, and an estimate of time and memory."""
    known = []
    for run in plan.finished:
        result = Record(request.folder(run)).result()
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 0, 1 (a run failed), 2 (bad request) or 130 (stopped)."""
    parser = _parser()
    known, overrides = parser.parse_known_args(arguments)
    console, errors = Console(), Console(stderr=True)
    if bad := next((argument for argument in overrides if argument.startswith("-")), None):
        parser.error(f"unknown option {bad}")
    try:
        if known.cfg:
            for point in expand(overrides, known.config_dir)[:1]:
                print(yaml.safe_dump(dict(point.config), sort_keys=False), end="")
            return 0
        started = time.monotonic()
        asked = read_overrides(overrides, known.multirun, known.config_dir)
        if asked.searches:
            from efficient_rl.searching.request import do_search

            return do_search(asked, known.config_dir, console)
        request = _planned(asked, known.config_dir)
        plan = read_plan(request)
        if request.settings["dry_run"]:
            show_plan(request, plan, console)
            console.print(f"planned in {time.monotonic() - started:.1f} s; nothing was started")
            return 0
        from efficient_rl.watch import carry_out

        return carry_out(request, plan, console)
    except ConfigError as error:
        errors.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        return EXIT_BAD_REQUEST


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
    parser.add_argument("-m", "--multirun", action="store_true", help="sweep over every override with several values")
    parser.add_argument("--cfg", choices=["job"], help="print the composed configuration and stop")
    parser.add_argument("--config-dir", "-cd", metavar="FOLDER", help="a folder of your own options, searched too")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # before anything was started
        sys.exit(EXIT_STOPPED)
