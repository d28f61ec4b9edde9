"""Refuses runs that would end at once: quick checks at planning, with torch before a launch."""

import importlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from multiprocessing.connection import Connection, Pipe
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rich.console import Console

from efficient_rl.cli import is_live
from efficient_rl.config.run_config import RunConfig, from_dict, to_dict
from efficient_rl.files import write_atomic
from efficient_rl.launch.base import Launcher
from efficient_rl.launch.processes import fork
from efficient_rl.libraries import quiet_libraries
from efficient_rl.preflight.checks import gpus_of, quick_checks
from efficient_rl.preflight.faults import Faults, find

FILE = "checked.json"
LOAD_SECONDS, SECONDS = 180.0, 60.0  # of the libraries, and then of all checks together
Found = tuple[str, list[str]]


def refuse_known_faults(runs: Sequence[RunConfig], launcher: Launcher) -> None:
    """ConfigError with all that can be known of the runs' ends without torch."""
    faults = Faults()
    for text, hashes in find(runs, quick_checks(gpus_of(launcher))):
        faults.add(text, hashes)
    faults.refuse(len(runs))


def refuse_model_faults(runs: Sequence[RunConfig], launcher: Launcher, console: Console, folder: Path) -> None:
    """ConfigError with all that models without weights and imports say; prints what they did not.

    The checks run in a process of their own, forked from the server of local runs, for a cluster
    in one that ends with them, unless the launcher trains in this one. The sweep's folder remembers
    which runs they found faultless.
    """
    faultless = _read_hashes(folder / FILE)
    runs = [run for run in runs if run.config_hash not in faultless]
    if not runs or not getattr(launcher, "trains", True):
        return
    inspect: Callable[[Sequence[RunConfig], int], Iterator[Found]] = inspect_models
    if not getattr(launcher, "in_process", False):
        inspect = partial(_inspected, _spawn if launcher.detaches else fork)
    processes = getattr(launcher, "processes_per_run", 1)
    faults, unchecked = Faults(), list[str]()
    with console.status("checking models, strategies and rewards") if is_live(console) else nullcontext():
        for text, hashes in inspect(runs, processes):
            if hashes:
                faults.add(text, hashes)
            else:
                unchecked.append(text)
    faults.refuse(len(runs))
    for text in unchecked:
        console.print(f"not checked before the start: {text}", soft_wrap=True, highlight=False, markup=False)
    if not unchecked:
        with suppress(OSError):  # who may not write there hears of it soon
            write_atomic(folder / FILE, json.dumps(sorted(faultless.union(run.config_hash for run in runs))))


def _read_hashes(path: Path) -> set[str]:
    try:
        return set(map(str, json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError):
        return set()


def _spawn(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Call the target in a process that loads the libraries itself."""
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    return process


def _inspected(start: Callable[..., BaseProcess], runs: Sequence[RunConfig], processes: int) -> Iterator[Found]:
    """What the other process finds; a text without hashes says what was not checked."""
    ours, theirs = Pipe(duplex=False)
    try:
        process = start(_inspect, theirs, list(map(to_dict, runs)), processes)
    except RuntimeError as error:
        yield f"models, strategies and rewards ({error})", []
        return
    theirs.close()
    deadline = time.monotonic() + LOAD_SECONDS
    try:
        while ours.poll(max(0.0, deadline - time.monotonic())):
            found: Found | str | None = ours.recv()
            if found is None:
                return
            if isinstance(found, str):  # it has begun
                deadline = time.monotonic() + SECONDS
            else:
                yield found
        yield f"the rest of models, strategies and rewards, after {SECONDS:.0f} s", []
    except EOFError:
        yield "the rest of models, strategies and rewards: the process that checks them died", []
    finally:
        process.kill()
        process.join()


def _inspect(results: Connection, configurations: Sequence[Mapping[str, Any]], processes: int) -> None:
    """Send what the checks find, at the end None; loads nothing from the hub and prints nothing."""
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(silence, stream.fileno())
    quiet_libraries()
    import huggingface_hub.constants

    huggingface_hub.constants.HF_HUB_OFFLINE = True
    importlib.import_module("efficient_rl.preflight.model_checks")  # takes seconds, in which nothing is checked
    results.send("begun")
    for found in inspect_models(list(map(from_dict, configurations)), processes):
        results.send(found)
    results.send(None)


def inspect_models(runs: Sequence[RunConfig], processes: int = 1) -> Iterator[Found]:
    """Each fault that models' shapes, tokenizers and imports show, with the hashes of its runs."""
    quiet_libraries()
    from efficient_rl.preflight.hub import is_here
    from efficient_rl.preflight.model_checks import model_checks

    for model in {run.model.path: run.model for run in runs}.values():
        if not is_here(model):
            yield f"model={model.name}, which is not on this machine yet", []
    yield from find(runs, model_checks(processes))
