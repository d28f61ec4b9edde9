"""Owns what command lines share: exit codes, one-line errors, `key=value` arguments."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from functools import wraps

from rich.console import Console
from rich.text import Text

from efficient_rl.errors import ConfigError, SchedulerError, did_you_mean

DONE, FAILED, BAD_REQUEST, STOPPED = 0, 1, 2, 130
NO_READER = 128 + signal.SIGPIPE  # as a shell reports a process that a closed pipe has ended
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


def split_overrides(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The parser's own options and the overrides, with `-m` and `--config-dir` as in Hydra."""
    parser.add_argument("-m", "--multirun", action="store_true", help="sweep over every override with several values")
    parser.add_argument("--config-dir", "-cd", metavar="FOLDER", help="a folder of your own options, searched too")
    known, overrides = parser.parse_known_args(arguments)
    for text in overrides:
        if text.startswith("-"):
            parser.error(f"unknown option {text}")
    return known, overrides


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
