"""What the command lines of analysis share: key=value arguments, help, errors, exit statuses."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from efficient_rl.errors import ConfigError, did_you_mean
from efficient_rl.files import write_atomic

FAILED, BAD_REQUEST, STOPPED = 1, 2, 130


def run_command(usage: str, arguments: Sequence[str], work: Callable[[Sequence[str]], None]) -> int:
    """Do the work and return the exit status; the reason of a failure goes to standard error.

    0 where it is done, 1 where a file could not be read or written, 2 for a bad request, 130 where
    the user stopped it.
    """
    if {"--help", "-h"} & set(arguments):
        print(usage, end="")
        return 0
    try:
        work(arguments)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_REQUEST
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return STOPPED
    return 0


def read_settings(arguments: Iterable[str], defaults: Mapping[str, str]) -> dict[str, str]:
    """The key=value arguments over the defaults; ConfigError lists the valid keys."""
    settings = dict(defaults)
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in defaults:
            raise ConfigError(f"unknown key {key!r}; {did_you_mean(key, defaults)}")
        if not equals or not value:
            raise ConfigError(f"{argument!r} has no value; write {key}=VALUE")
        settings[key] = value
    return settings


def write_files(folder: Path, contents: Mapping[str, str | bytes]) -> list[Path]:
    """Write every file whole or not at all; returns their paths."""
    for name, content in contents.items():
        write_atomic(folder / name, content)
    return [folder / name for name in contents]
