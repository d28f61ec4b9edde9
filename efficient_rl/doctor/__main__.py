"""What would stop or ruin a sweep here, found in seconds: versions, GPUs, memory, host, folders, Slurm, model, reward.

python -m efficient_rl.doctor [-m] [overrides as for efficient_rl.sweep]
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape

from efficient_rl.compose import ConfigError
from efficient_rl.config import RunConfig
from efficient_rl.doctor import batches, cluster, folders, gpus, host, memory, services, versions
from efficient_rl.doctor.finding import Finding
from efficient_rl.launch import build_launcher
from efficient_rl.launch.slurm import SlurmLauncher
from efficient_rl.sweep import Request, read_request

EXIT_FAILS, EXIT_WARNINGS = 1, 2
SIGNS = {"ok": "[green]ok     [/]", "warning": "[yellow]warning[/]", "failure": "[bold red]FAILURE[/]"}
MOST_PROBES = 3


def findings(request: Request, probe: bool, probe_seconds: float) -> Iterator[Finding]:
    """Everything that the checks find, the quick ones first."""
    launcher = build_launcher(request.settings["launcher"])
    slurm = launcher if isinstance(launcher, SlurmLauncher) else None
    runs = request.runs
    seen = gpus.visible()
    machine = host.this_host()
    installed = versions.installed_versions()
    yield from versions.check_versions(installed, versions.requirements())
    yield from versions.check_driver(seen[0].driver if seen else None, versions.torch_cuda())
    for model in {run.model for run in runs}:
        yield from gpus.check_gpus(seen, model.dtype, model.attn_implementation)
        yield from services.check_model(model)
    if slurm is None:
        yield from host.check_host(machine, getattr(launcher, "workers", None) or 1)
    yield from folders.check_folder(request.outputs)
    if slurm is not None:
        yield from cluster.check_cluster(slurm)
    yield from services.check_tracking(request.settings["tracking"]["uri"])
    processes = getattr(launcher, "processes_per_run", 1)
    yield from _each(runs, lambda run: (run.grpo, processes), lambda run: batches.check_batch(run, processes))
    yield from _each(runs, _memory_key, lambda run: _memory(run, slurm, seen, machine))
    yield from _learning(runs, probe and slurm is None, probe_seconds)


def _each(
    runs: Sequence[RunConfig], key: Callable[[RunConfig], object], check: Callable[[RunConfig], list[Finding]]
) -> Iterator[Finding]:
    """The findings of one run of every kind."""
    first = {repr(key(run)): run for run in reversed(runs)}
    for run in first.values():
        try:
            yield from check(run)
        except (ConfigError, ValueError) as error:
            yield Finding("failure", "configuration", str(error), "the run would end so", "change what the message names")


def _memory_key(run: RunConfig) -> object:
    return run.model, run.strategy, run.grpo


def _memory(run: RunConfig, slurm: SlurmLauncher | None, seen: Sequence[gpus.Gpu], machine: host.Host) -> list[Finding]:
    try:
        shape = memory.shape_of(run)
    except (OSError, NotImplementedError, RuntimeError) as error:
        what = f"model={run.model.name} strategy={run.strategy.name} could not be estimated ({str(error).splitlines()[0]})"
        return [Finding("warning", "memory", what, "it may not fit", "the first run tells")]
    if slurm is not None and slurm.gpus_per_node:
        return memory.check_memory(run, shape, None, "the nodes' GPU memory")
    if slurm is not None:
        return memory.check_memory(run, shape, int(slurm.mem_gb * 2**30 / slurm.at_once), "launcher.mem_gb gives a run")
    if seen:
        return memory.check_memory(run, shape, seen[0].free_bytes, f"on {seen[0].name}")
    return memory.check_memory(run, shape, machine.memory_bytes, "of this machine's memory")


def _learning(runs: Sequence[RunConfig], probe: bool, seconds: float) -> Iterator[Finding]:
    from efficient_rl.doctor import learning

    yield from _each(runs, lambda run: (run.task, run.reward, run.prompt), learning.check_golden)
    if probe:
        chosen = {repr((run.model, run.task, run.reward, run.prompt)): run for run in reversed(runs)}
        yield from _each(list(chosen.values())[:MOST_PROBES], repr, lambda run: learning.check_probe(run, seconds))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks and print what they find; 0, 1 where something will fail, 2 for warnings with --strict."""
    known, overrides = _parser().parse_known_args(arguments)
    console = Console()
    try:
        request = read_request(overrides, known.multirun, known.config_dir)
    except ConfigError as error:
        found = [Finding("failure", "configuration", str(error), "nothing can start", "change what the message names")]
    else:
        found = []
        for finding in findings(request, not known.no_probe, known.probe_seconds):
            found.append(finding)
            if not known.json:
                _show(finding, console)
    if known.json:
        print(json.dumps([asdict(finding) for finding in found], indent=1))
    elif len(found) == 1 and found[0].check == "configuration":
        _show(found[0], console)
    levels = [finding.level for finding in found]
    if "failure" in levels:
        return EXIT_FAILS
    return EXIT_WARNINGS if known.strict and "warning" in levels else 0


def _show(finding: Finding, console: Console) -> None:
    console.print(
        f"{SIGNS[finding.level]} [bold]{finding.check}[/]: {escape(finding.what)}", soft_wrap=True, highlight=False
    )
    for word, text in (("why", finding.why), ("mend", finding.remedy)):
        if text and finding.level != "ok":
            console.print(f"        {word}: {escape(text)}", soft_wrap=True, highlight=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m efficient_rl.doctor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-m", "--multirun", action="store_true", help="the overrides name several runs")
    parser.add_argument("--config-dir", "-cd", metavar="FOLDER", help="a folder of your own options, searched too")
    parser.add_argument("--strict", action="store_true", help="exit status 2 where there are warnings")
    parser.add_argument("--json", action="store_true", help="the findings as JSON")
    parser.add_argument("--no-probe", action="store_true", help="do not try one step on eight prompts")
    parser.add_argument("--probe-seconds", type=float, default=120, help="how long a probe may take")
    return parser


if __name__ == "__main__":
    sys.exit(main())
