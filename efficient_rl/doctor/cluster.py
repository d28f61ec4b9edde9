"""Checks whether a Slurm cluster would ever start the requested jobs."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from efficient_rl.doctor.finding import Finding, ok
from efficient_rl.errors import ConfigError
from efficient_rl.launch.slurm.settings import SlurmRequest

SECONDS = 30
SIGNAL_ROUNDING = 60  # Slurm may send the signal up to a minute early


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
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["refused"])[-1].removeprefix("allocation failure: ")
        partitions = "; ".join(_call(["sinfo", "-h", "-o", "%R: %l, %c cpus, %m MB, %G, features %f"]).stdout.splitlines())
        why = f"it would wait for ever, or be refused; there is {partitions}"
        keys = "launcher.partition, .gpus_per_node, .cpus_per_task, .mem_gb, .timeout_min, .constraint"
        remedy = f"{keys} within what there is"
        return [Finding("failure", "slurm", f"Slurm would never start such a job: {reason}", why, remedy)]
    answer = done.stderr.strip().rpartition("\n")[2].removeprefix("sbatch: ")
    return [ok("slurm", f"the request can start ({answer})")]


def _options(launcher: SlurmRequest) -> dict[str, object]:
    asked = launcher.sbatch_parameters("doctor")
    asked.pop("setup")
    for ours in ("array_parallelism", "signal_delay_s"):
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
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer within {SECONDS} s")
