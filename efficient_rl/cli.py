"""Owns what command lines share: exit codes, errors, `key=value` arguments, tables, signals."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from types import FrameType
from typing import Any, NoReturn

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from efficient_rl.errors import ConfigError, SchedulerError, did_you_mean

DONE, FAILED, BAD_REQUEST, STOPPED = 0, 1, 2, 130
NO_READER = 128 + signal.SIGPIPE  # as a shell reports a process that a closed pipe has ended
HYDRAS = (
    *("--hydra-help", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r", "--shell-completion", "-sc"),
    *("--config-path", "-cp", "--config-name", "-cn", "--experimental-rerun", "--info", "-i"),
)
GAP, CUT = "  ", "…"  # between the columns of a table, and in a text that was cut
Main = Callable[[Sequence[str]], int]


def command_line(
    usage: str | None = None, failures: tuple[type[Exception], ...] = ()
) -> Callable[[Main], Callable[..., int]]:
    """Make a command line of a `main` that gets the arguments and returns its exit status.

    A ConfigError or SchedulerError becomes one line on standard error and exit status 2, the
    exceptions `failures` such a line and 1, Ctrl-C 130. `--help` prints the `usage`, if given.
    Without arguments it takes those of the process.
    """

    def decorate(main: Main) -> Callable[..., int]:
        @wraps(main)
        def run(arguments: Sequence[str] | None = None) -> int:
            given = sys.argv[1:] if arguments is None else list(arguments)
            if usage is not None and {"-h", "--help"} & set(given):
                print(usage.rstrip())
                return DONE
            try:
                status = main(given)
                sys.stdout.flush()
                return status
            except BrokenPipeError:  # the reader, such as `head`, has seen enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the last flush complains
                return NO_READER
            except KeyboardInterrupt:
                return STOPPED
            except failures as error:
                _print_error(error)
                return FAILED
            except (ConfigError, SchedulerError) as error:
                _print_error(error)
                return BAD_REQUEST

        return run

    return decorate


class Parser(argparse.ArgumentParser):
    """A parser of options and Hydra's overrides, whose errors are one line as all others.

    It has `-m` and `--config-dir` as in Hydra. Options of Hydra that mean nothing here are named.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)
        self.add_argument("-m", "--multirun", action="store_true", help="sweep over every override with several values")
        self.add_argument("--config-dir", "-cd", metavar="FOLDER", help="a folder of your own options, searched too")
        self.add_argument("--version", action="version", version=f"efficient_rl {_version()}")

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")

    def split(self, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """The options and the overrides; ConfigError for an unknown option."""
        own = set(chain.from_iterable(action.option_strings for action in self._actions))
        for text in arguments:
            name = text.partition("=")[0]
            if name in HYDRAS and name not in own:
                raise ConfigError(
                    f"{name} is an option of Hydra that this command does not have; use --help for the options, "
                    "--config-dir FOLDER for your own, and in a sweep --cfg job for the composed configuration"
                )
        known, overrides = self.parse_known_args(arguments)
        for text in overrides:
            if text.startswith("-"):
                self.error(f"unknown option {text}; an override reads key=value, without dashes")
        return known, overrides


def _version() -> str:
    try:
        return version("efficient_rl")
    except PackageNotFoundError:  # a checkout that is not installed
        return "unknown"


def own_folder(arguments: Sequence[str]) -> str | None:
    """The folder after `--config-dir`, also where `--help` is asked for."""
    folder = None
    for place, text in enumerate(arguments):
        name, equals, value = text.partition("=")
        if name in ("--config-dir", "-cd"):
            folder = value if equals else next(iter(arguments[place + 1 :]), None)
    return folder


def parse_settings(arguments: Sequence[str], valid: Collection[str], bare: str | None = None) -> dict[str, str]:
    """The `key=value` arguments as a dictionary; a word without `=` is the value of the key `bare`.

    ConfigError for an unknown key, one given twice, and a missing value.
    """
    settings: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals and bare is not None:
            key, value = bare, argument
        if key not in valid:
            raise ConfigError(f"unknown key {key!r}; {did_you_mean(key, valid)}")
        if not value:
            raise ConfigError(f"{argument!r} has no value; write {key}=VALUE")
        if key in settings:
            raise ConfigError(f"{argument!r}: {key} is given twice, first as {settings[key]!r}; give it once")
        settings[key] = value
    return settings


def _print_error(error: Exception) -> None:
    text = Text.assemble(("error: ", "bold red"), str(error))
    Console(stderr=True).print(text, soft_wrap=True, highlight=False)


def print_line(console: Console, text: str | Text) -> None:
    """Print the text as it is: neither wrapped nor cut, so that it can be copied."""
    console.print(Text(text) if isinstance(text, str) else text, soft_wrap=True)


def print_table(
    console: Console,
    title: str,
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    drop: Sequence[str],
    cut: str,
    right: Collection[str] = (),
) -> None:
    """Print a table that fits the terminal below its title; see `lay_out`."""
    head, *lines = lay_out(titles, rows, room_of(console), drop, cut, right)
    print_line(console, Text.assemble(f"{title}\n", (head, "bold"), *(f"\n{line}" for line in lines)))


def room_of(console: Console) -> int | None:
    """How many cells a line may have; None for a pipe or a file, whose lines have no end."""
    if console.is_terminal or os.environ.get("COLUMNS", "").isdecimal():
        return console.width
    return None


def lay_out(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    room: int | None,
    drop: Sequence[str],
    cut: str,
    right: Collection[str] = (),
) -> list[str]:
    """The line of the titles and a line a row; the columns `right` are aligned on that side.

    Where the lines exceed `room`, columns are dropped, those without a value first, then in the
    order of `drop`. Before the last two of it go, the column `cut` is shortened to half of `room`.
    """
    table = [titles, *rows]
    columns = dict(zip(titles, zip(*table, strict=True), strict=True))
    widths = {title: max(map(cell_len, column)) for title, column in columns.items()}
    if room is not None:
        order = sorted(drop, key=lambda title: any(columns.get(title, titles)[1:]))
        shortest = max(cell_len(shorten(text, room // 2)) for text in columns[cut])
        widths = _fit(widths, room, order, cut, shortest)
    lines = []
    for row in table:
        cells = dict(zip(titles, row, strict=True))
        shown = [_cell(cells[title], width, title in right) for title, width in widths.items()]
        lines.append(GAP.join(shown).rstrip())
    return lines


def shorten(text: str, width: int) -> str:
    """The text, or as many of its first and last words as fit around an ellipsis."""
    if cell_len(text) <= width:
        return text
    words = text.split()
    for kept in range(len(words) - 1, 0, -1):
        last = kept // 2
        first = kept - last
        shown = " ".join([*words[:first], CUT, *words[len(words) - last :]])
        if cell_len(shown) <= width:
            return shown
    return set_cell_size(text, width - 1).rstrip() + CUT


def _fit(widths: Mapping[str, int], room: int, order: Sequence[str], cut: str, shortest: int) -> dict[str, int]:
    """The widths of the columns that stay."""
    whole = _dropped(widths, room, order[:-2])
    if _total(whole) <= room:
        return whole
    kept = _dropped({**widths, cut: shortest}, room, order)
    kept[cut] = max(1, min(widths[cut], shortest + room - _total(kept)))
    return kept


def _dropped(widths: Mapping[str, int], room: int, order: Sequence[str]) -> dict[str, int]:
    kept = dict(widths)
    for title in order:
        if _total(kept) <= room:
            break
        kept.pop(title, None)
    return kept


def _total(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + len(GAP) * (len(widths) - 1)


def _cell(text: str, width: int, right: bool) -> str:
    shown = shorten(text, width)
    space = " " * (width - cell_len(shown))
    return space + shown if right else shown + space


def is_live(console: Console) -> bool:
    """Whether what is drawn can be drawn over; a notebook only pretends to be a terminal."""
    return console.is_terminal and "JPY_PARENT_PID" not in os.environ


@contextmanager
def stop_handlers(handle: Callable[[int, FrameType | None], None]) -> Iterator[dict[signal.Signals, Any]]:
    """Inside, `handle` is called at Ctrl-C and SIGTERM; gives the handlers that come back after."""
    before = {name: signal.signal(name, handle) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield before
    finally:
        restore_handlers(before)


def restore_handlers(handlers: Mapping[signal.Signals, Any]) -> None:
    """Put handlers of signals back."""
    for name, handler in handlers.items():
        signal.signal(name, handler)
