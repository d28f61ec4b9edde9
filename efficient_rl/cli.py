"""Owns what command lines share: exit codes, one-line errors, `key=value` arguments."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

from efficient_rl.errors import ConfigError, SchedulerError, did_you_mean

DONE, FAILED, BAD_REQUEST, STOPPED = 0, 1, 2, 130
NO_READER = 128 + signal.SIGPIPE  # as a shell reports a process that a closed pipe has ended
HYDRAS = (
    *("--hydra-help", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r", "--shell-completion", "-sc"),
    *("--config-path", "-cp", "--config-name", "-cn", "--experimental-rerun", "--info", "-i"),
)
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
        known, overrides = self.parse_known_args(arguments)
        for text in overrides:
            name = text.partition("=")[0]
            if name in HYDRAS:
                raise ConfigError(
                    f"{name} is an option of Hydra that this command does not have; use --help for the options, "
                    "--config-dir FOLDER for your own, and in a sweep --cfg job for the composed configuration"
                )
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
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config-dir", "-cd")
    try:
        folder: str | None = parser.parse_known_args(arguments)[0].config_dir
    except argparse.ArgumentError:  # its value is missing: told when all is parsed
        return None
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
