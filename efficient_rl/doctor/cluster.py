"""Checks whether a Slurm cluster would ever start the requested jobs."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from efficient_rl.doctor.finding import Finding, Level, ok
from efficient_rl.errors import ConfigError
from efficient_rl.launch.slurm.commands import job_environment
from efficient_rl.launch.slurm.settings import SlurmRequest

SECONDS = 30
SIGNAL_ROUNDING = 60  # Slurm may send the signal up to a minute early
NODE_FIELDS = "%c|%m|%G|%t"  # cores, megabytes, generic resources, state
NOT_USABLE = ("down", "drain", "drng", "fail", "maint", "unk", "power", "inval", "futr")


def check_cluster(launcher: SlurmRequest) -> list[Finding]:
    """Slurm's commands, its answer, and its own verdict on the request (`sbatch --test-only`)."""
    if missing := [name for name in ("sbatch", "sacct", "squeue", "scontrol", "srun") if shutil.which(name) is None]:
        what = f"{', '.join(missing)} not found"
        remedy = "run this on a login node, or launcher=local"
        return [Finding("failure", "slurm", what, "launcher=slurm submits by it", remedy)]
    done = _call(["scontrol", "ping"])
    if done.returncode or "UP" not in done.stdout:
        what = f"the controller does not answer ({(done.stderr or done.stdout).strip().splitlines()[0:1]})"
        return [Finding("failure", "slurm", what, "nothing can be submitted", "scontrol ping; ask the administrators")]
    return [*_request(launcher), *_accounting(), *_signal(launcher)]


def check_python(launcher: SlurmRequest, outputs: Path) -> list[Finding]:
    """What is to start Python on the nodes, as far as that can be seen from here."""
    try:
        launcher.check_python(outputs)
    except ConfigError as error:
        what, remedy = str(error).split("; ", 1)
        return [Finding("failure", "python", what, "no job could begin", remedy)]
    return []


def _request(launcher: SlurmRequest) -> list[Finding]:
    options = [f"--{key.replace('_', '-')}={value}" for key, value in _options(launcher).items()]
    done = _call(["sbatch", "--test-only", *options, "--wrap", "true"])
    said = (done.stderr.strip().splitlines() or ["refused"])[-1]
    # sbatch does not compare with the partition's limits: the job would wait for ever.
    found = [said.removeprefix("allocation failure: ")] if done.returncode else []
    found += _beyond_partitions(launcher)
    if not found:
        return [ok("slurm", f"the request can start ({said.removeprefix('sbatch: ')})")]
    partitions = "; ".join(_call(["sinfo", "-h", "-o", "%R: %l, %c cpus, %m MB, %G, features %f"]).stdout.splitlines())
    why = f"it would wait for ever, or be refused; there is {partitions}"
    keys = "launcher.partition, .gpus_per_node, .cpus_per_task, .mem_gb, .timeout_min, .constraint"
    level: Level = "failure" if done.returncode or launcher.qos is None else "warning"  # a qos may lift limits
    return [
        Finding(
            level, "slurm", f"Slurm would never start such a job: {'; '.join(found)}", why, f"{keys} within what there is"
        )
    ]


def _beyond_partitions(launcher: SlurmRequest) -> list[str]:
    """What exceeds the limits of each partition that the job may use; none if it fits into one."""
    lines = _call(["scontrol", "-a", "-o", "show", "partition"]).stdout.splitlines()
    partitions = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines]
    names = launcher.partition.split(",") if launcher.partition else []
    found: list[str] = []
    for fields in partitions:
        name = fields.get("PartitionName", "")
        if name in names or (not names and fields.get("Default") == "YES"):
            beyond = [*_beyond_limits(launcher, fields), *_beyond_nodes(launcher, name)]
            if not beyond:
                return []
            found += [f"{text} of partition {name}" for text in beyond]
    return found


def _beyond_limits(launcher: SlurmRequest, partition: Mapping[str, str]) -> Iterator[str]:
    """What exceeds the limits of a partition, given its fields in `scontrol show partition`."""
    if partition.get("State", "UP") != "UP":
        yield f"the state {partition['State']}"
    minutes = slurm_minutes(partition.get("MaxTime", ""))
    if minutes is not None and launcher.timeout_min > minutes:
        yield f"launcher.timeout_min={launcher.timeout_min} exceeds the time limit {minutes:g} min"
    limits = (
        ("nodes", launcher.nodes, ("MaxNodes", "TotalNodes")),
        ("cpus_per_task", launcher.cpus_per_task, ("MaxCPUsPerNode",)),
        ("mem_gb", launcher.mem_gb * 1024, ("MaxMemPerNode",)),
    )
    for key, asked, names in limits:
        for name in names:
            bound = partition.get(name, "")
            if bound.isdigit() and asked > int(bound) > 0:
                yield f"launcher.{key}={getattr(launcher, key)} exceeds {name}={bound}"
                break


def _beyond_nodes(launcher: SlurmRequest, partition: str) -> Iterator[str]:
    """What no node of a partition has, or too few nodes that are up have."""
    listed = _call(["sinfo", "-h", "-N", "-p", partition, "-o", NODE_FIELDS]).stdout.split()
    nodes = [line.split("|") for line in listed]
    usable = 0
    most = {"cpus_per_task": 0, "mem_gb": 0.0, "gpus_per_node": 0}
    for cores, megabytes, resources, state in nodes:
        has = {"cpus_per_task": int(cores), "mem_gb": int(megabytes) / 1024, "gpus_per_node": gpus_of(resources)}
        usable += not state.startswith(NOT_USABLE) and all(has[key] >= getattr(launcher, key) for key in has)
        most = {key: max(value, most[key]) for key, value in has.items()}
    over = [key for key, value in most.items() if nodes and getattr(launcher, key) > value]
    yield from (f"launcher.{key}={getattr(launcher, key)} exceeds the {most[key]:g} of a node" for key in over)
    if nodes and not over and usable < launcher.nodes:
        yield f"launcher.nodes={launcher.nodes} exceeds the {usable} nodes that fit and are up"


def slurm_minutes(text: str) -> float | None:
    """Minutes of a time as Slurm prints it (`2-00:00:00`, `01:30:00`); None for no limit."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return 1440 * days + 60 * hours + minutes + seconds / 60


def gpus_of(resources: str) -> int:
    """GPUs in a list of generic resources: `gpu:4`, `gpu:a100:2(S:0-1),mps:100`."""
    counts = re.findall(r"(?:^|,)gpu(?::[^,:()]*)?:(\d+)(?![^,(])", resources)
    return sum(map(int, counts))


def _options(launcher: SlurmRequest) -> dict[str, object]:
    asked = launcher.sbatch_parameters("doctor")
    for ours in ("setup", "array_parallelism", "signal_delay_s", "srun_args"):
        asked.pop(ours)
    extra = {key: value for key, value in asked.pop("additional_parameters").items() if value is not True}
    return {**asked, **extra}


def _accounting() -> list[Finding]:
    done = _call(["sacct", "-X", "-n", "-S", "now-1hour"])
    if done.returncode:
        what = "sacct does not answer: this site has no accounting"
        why = "why a job ended is only known for some minutes, from squeue; after that its run is started again"
        return [Finding("warning", "slurm", what, why, "keep the sweep command running (in tmux)")]
    return [ok("slurm", "accounting answers")]


def _signal(launcher: SlurmRequest) -> list[Finding]:
    if 60 * launcher.timeout_min > 3 * (launcher.signal_seconds + SIGNAL_ROUNDING):
        return []
    what = f"launcher.timeout_min={launcher.timeout_min} is hardly longer than {launcher.signal_seconds} signal_seconds"
    why = "Slurm signals up to a minute early: a job would spend its time writing checkpoints"
    remedy = f"launcher.timeout_min={-(-3 * (launcher.signal_seconds + SIGNAL_ROUNDING) // 60) + 1}"
    return [Finding("warning", "slurm", what, why, remedy)]


def _call(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, env=job_environment())
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer within {SECONDS} s")
