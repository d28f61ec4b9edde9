"""Finds in seconds what would stop or ruin a sweep here, from versions to the reward.

python -m efficient_rl.doctor [-m] [overrides as for efficient_rl.sweep]
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain
from operator import attrgetter
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from efficient_rl.cli import BAD_REQUEST, DONE, FAILED, Parser, command_line
from efficient_rl.config.run_config import RunConfig
from efficient_rl.doctor import batches, cluster, compute, folders, gpus, host, machines, services, versions
from efficient_rl.doctor.finding import Finding, counted, ok
from efficient_rl.doctor.machines import Machine
from efficient_rl.errors import ConfigError, first_line
from efficient_rl.launch.base import Launcher, build_launcher
from efficient_rl.launch.gpus import visible_gpus
from efficient_rl.launch.local import LocalLauncher
from efficient_rl.launch.slurm.launcher import SlurmLauncher
from efficient_rl.preflight.checks import gpus_of, quick_checks
from efficient_rl.preflight.faults import Faults, find
from efficient_rl.preflight.hub import is_here
from efficient_rl.preflight.inspection import inspect_models
from efficient_rl.sweep.request import Request, read_request

SIGNS = {"ok": "[green]ok     [/]", "warning": "[yellow]warning[/]", "failure": "[bold red]FAILURE[/]"}
MOST_PROBES = 3
CHECKPOINTS = 3  # of a run at work: two that are kept, and the one being written


def findings(request: Request, probe: bool, probe_seconds: float) -> Iterator[Finding]:
    """Everything that the checks find, the quick ones first."""
    launcher = build_launcher(request.settings["launcher"])
    slurm = launcher if isinstance(launcher, SlurmLauncher) else None
    runs = request.runs
    seen, here = visible_gpus(), host.this_host()
    installed, cuda = versions.installed_versions(), versions.torch_cuda()
    yield from _caught("versions", lambda: versions.check_versions(installed, versions.requirements()))
    yield from _caught("driver", lambda: versions.check_driver(seen[0].driver if seen else None, cuda))
    if slurm is None:
        yield from _each(runs, lambda run: (run.model.dtype, run.model.attn_implementation),
                         lambda run: gpus.check_gpus(seen, run.model.dtype, run.model.attn_implementation, cuda,
                                                     "flash-attn" in installed))  # fmt: skip
    yield from _each(runs, lambda run: run.model, lambda run: services.check_model(run.model))
    if any(map(services.needs_hub, runs)) and not services.reach_hub():
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}  # what is cached loads, the rest fails at once
    processes = getattr(launcher, "processes_per_run", 1)
    at_once = min(len(runs), _slots(launcher))
    if slurm is None:
        if not seen:
            yield from _each(runs, lambda run: run.model, lambda run: compute.check_compute(run.model, here.bfloat16))
        yield from _caught("host", lambda: host.check_host(here, at_once, processes))
    yield from _caught("folder", lambda: folders.check_folder(request.outputs))
    if slurm is not None:
        yield from _caught("slurm", partial(cluster.check_cluster, slurm))
        yield from _caught("slurm", partial(cluster.check_python, slurm, request.outputs))
    yield from _caught("tracking", lambda: services.check_tracking(request.settings["tracking"]["uri"]))
    yield from _each(runs, _batch_key, lambda run: batches.check_batch(run, processes))
    yield from _faults(runs, launcher)
    machine = machines.machine_of(launcher, at_once, seen, here)
    yield from _prompts(runs)
    yield from _caught("memory", lambda: _memory(runs, machine, launcher, request.outputs))
    yield from _caught("probe", lambda: _learning(runs, probe and slurm is None, probe_seconds))


def _faults(runs: Sequence[RunConfig], launcher: Launcher) -> Iterator[Finding]:
    """What would end runs at once, as the sweep command says it before it starts them."""
    faults = Faults()
    for text, hashes in chain(find(runs, quick_checks(gpus_of(launcher))), inspect_models(runs)):
        if hashes:
            faults.add(text, hashes)
    for text in faults.texts(len(runs)):
        yield Finding("failure", "start", text, "these runs are not started", "change what the message names")
    if not faults.runs:
        yield ok("start", f"problems, prompts, rewards and strategies of {counted(len(runs), 'run')} fit the model")


def _slots(launcher: Launcher) -> int:
    """The number of concurrent runs on one machine."""
    if isinstance(launcher, SlurmLauncher):
        return launcher.at_once
    return launcher.slots if isinstance(launcher, LocalLauncher) else 1


def _caught(name: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a check; what it raises is one too, and the checks go on."""
    try:
        yield from check()
    except ValueError as error:
        yield Finding("failure", name, str(error), "the run would end so", "change what the message names")
    except Exception as error:  # noqa: BLE001  whatever a model, a task or a reward makes it raise
        what = f"it could not be checked: {type(error).__name__}: {first_line(error)}"
        yield Finding("warning", name, what, "the run may end so", "grpo.max_steps=1 tells")


def _each(
    runs: Sequence[RunConfig], key: Callable[[RunConfig], object], check: Callable[[RunConfig], list[Finding]]
) -> Iterator[Finding]:
    """The findings of one run of every kind."""
    first = {repr(key(run)): run for run in reversed(runs)}
    for run in reversed(first.values()):
        yield from _caught("configuration", partial(check, run))


def _batch_key(run: RunConfig) -> object:
    grpo = run.grpo
    return grpo.per_device_train_batch_size, grpo.gradient_accumulation_steps, grpo.num_generations, grpo.loss_type


def _prompts(runs: Sequence[RunConfig]) -> Iterator[Finding]:
    """What the tokenizers that are here make of the prompts."""
    from efficient_rl.doctor import prompt

    near = [run for run in runs if is_here(run.model)]

    def kind(run: RunConfig) -> object:
        return run.model, run.task, run.prompt, run.grpo.max_completion_length

    yield from _each(near, kind, prompt.check_prompt)


def _memory(runs: Sequence[RunConfig], machine: Machine, launcher: Launcher, outputs: Path) -> Iterator[Finding]:
    """Memory of every kind of run, and the disk that all of them take."""
    from efficient_rl.doctor import memory

    slurm = launcher if isinstance(launcher, SlurmLauncher) else None
    parallel = _slots(launcher) * (slurm.array_parallelism if slurm else 1)
    sizes: list[int] = []

    def check(run: RunConfig) -> list[Finding]:
        if not is_here(run.model) and os.environ.get("HF_HUB_OFFLINE") == "1":
            return []  # said already
        name = f"model={run.model.name} strategy={run.strategy.name}"
        try:
            verdict = memory.check_memory(run, machine)
        except ValueError:
            raise
        except Exception as error:  # noqa: BLE001  of an architecture that the estimate does not know
            what = f"{name} could not be estimated ({first_line(error)})"
            return [Finding("warning", "memory", what, "it may not fit", "grpo.max_steps=1 tells")]
        sizes.append(verdict.step.saved + verdict.step.optimizer_state)
        if slurm is None:
            return [verdict.finding]
        return [verdict.finding, *memory.check_loading(name, verdict.step, slurm)]

    yield from _each(runs, lambda run: (run.model, run.strategy, run.prompt, run.task, run.grpo, run.eval), check)
    if sizes:
        yield from folders.check_room(outputs, max(sizes) * (len(runs) + CHECKPOINTS * min(len(runs), parallel)))


def _learning(runs: Sequence[RunConfig], probe: bool, seconds: float) -> Iterator[Finding]:
    from efficient_rl.doctor import learning

    golden = list(_each(runs, lambda run: (run.task, run.reward, run.prompt, run.model), learning.check_golden))
    yield from golden
    if not probe or "failure" in map(attrgetter("level"), golden):
        return
    kinds: dict[str, RunConfig] = {}
    for run in reversed(runs):
        if is_here(run.model):
            kinds[repr((run.model, run.task, run.reward, run.prompt))] = run
    yield from _each(list(kinds.values())[-MOST_PROBES:], repr, lambda run: learning.check_probe(run, seconds))
    if len(kinds) > MOST_PROBES:
        yield ok("probe", f"{len(kinds) - MOST_PROBES} more kinds of run were not tried; give their overrides alone")


@command_line()
def main(arguments: Sequence[str]) -> int:
    """Run the checks and print the findings; exit codes as in `cli`, --strict fails warnings."""
    known, overrides = _parser().split(arguments)
    console, found = Console(), list[Finding]()

    def tell(finding: Finding) -> None:
        found.append(finding)
        if not known.json:
            _show(finding, console)

    status = DONE
    try:
        request = read_request(overrides, known.multirun, known.config_dir)
    except ConfigError as error:
        tell(Finding("failure", "configuration", str(error), "nothing can start", "change what the message names"))
        status = BAD_REQUEST
    else:
        for finding in _caught("doctor", lambda: findings(request, not known.no_probe, known.probe_seconds)):
            tell(finding)
            if finding.level == "failure" or (known.strict and finding.level == "warning"):
                status = FAILED
    if known.json:
        print(json.dumps(list(map(asdict, found)), indent=1))
    return status


def _show(finding: Finding, console: Console) -> None:
    console.print(
        f"{SIGNS[finding.level]} [bold]{finding.check}[/]: {escape(finding.what)}", soft_wrap=True, highlight=False
    )
    for word, text in (("why", finding.why), ("fix", finding.remedy)):
        if text and finding.level != "ok":
            console.print(f"        {word}: {escape(text)}", soft_wrap=True, highlight=False)


def _parser() -> Parser:
    parser = Parser(prog="python -m efficient_rl.doctor", description=__doc__)
    parser.add_argument("--strict", action="store_true", help="exit status 1 for warnings too")
    parser.add_argument("--json", action="store_true", help="the findings as JSON")
    parser.add_argument(
        "--no-probe", action="store_true", help="do not try one step on eight prompts (the only check that loads the model)"
    )
    parser.add_argument("--probe-seconds", type=float, default=120, help="how long a probe may take")
    return parser


if __name__ == "__main__":
    sys.exit(main())
