"""A sweep under fire: kills of runs, jobs, nodes, the controller and the command, drawn from a seed."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from efficient_rl.rundir.directory import RunDirectory
from tests.slurm.local_cluster import Cluster, Sweep


@dataclass
class Report:
    """What was done to the sweep, and what became of it."""

    disturbances: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    commands: int = 0
    finished: int = 0
    attempts: int = 0
    finished_twice: int = 0
    steps_twice: int = 0


class Chaos:
    """Does one thing after another to the sweep. Each may find nothing to act on and is then not counted."""

    def __init__(self, cluster: Cluster, sweep: Sweep, seed: int) -> None:
        self._cluster = cluster
        self._sweep = sweep
        self._random = random.Random(seed)
        self.report = Report()
        self._events: dict[str, Callable[[], bool]] = {
            "run killed": self._kill_run,
            "job preempted (USR2)": lambda: self._on_job("scancel", "--signal=USR2"),
            "job requeued by hand": lambda: self._on_job("scontrol", "requeue"),
            "job cancelled": lambda: self._on_job("scancel"),
            "node crashed": self._crash_node,
            "node daemon killed, its jobs alive": self._kill_node_daemon,
            "controller killed": self._kill_controller,
            "sweep command killed": self._kill_command,
        }
        self._weights = (6, 4, 3, 2, 2, 1, 1, 3)

    def go(self, runs: int, disturbances: int, pause_seconds: float, limit_seconds: float) -> Report:
        """Disturb so many times, then let the sweep end; the same command is given again for as long as runs are left."""
        started = time.monotonic()
        self._command()
        while time.monotonic() - started < limit_seconds and self._left(runs):
            if self._sweep.process is not None and self._sweep.process.poll() is not None:
                self._command()
            if sum(self.report.disturbances.values()) < disturbances:
                (name,) = self._random.choices(list(self._events), self._weights)
                done = self._events[name]()
                self.report.disturbances[name] = self.report.disturbances.get(name, 0) + done
                time.sleep(self._random.uniform(0, 2 * pause_seconds))
            else:
                self._restore()
                time.sleep(1)
        self._sweep.end(60)
        self._measure(time.monotonic() - started)
        return self.report

    def _restore(self) -> None:
        """What an administrator does afterwards: every node back, jobs released that Slurm holds after a failed launch."""
        self._cluster.start()
        waiting = self._slurm("squeue", "-h", "-r", "-t", "PENDING", "-o", "%i|%r").splitlines()
        for job, reason in (line.split("|", 1) for line in waiting):
            if "held" in reason:
                self._slurm("scontrol", "release", job)

    def _command(self) -> None:
        self._sweep.start()
        self.report.commands += 1

    def _left(self, runs: int) -> bool:
        records = self._sweep.records
        return len(records) < runs or any(record.result() is None for record in records)

    def _measure(self, seconds: float) -> None:
        self.report.seconds = seconds
        for record in self._sweep.records:
            result = record.result()
            self.report.finished += result is not None
            self.report.attempts += record.newest_attempt() or 0
            steps = [row["step"] for row in record.metrics()]
            self.report.steps_twice += len(steps) - 1 - len(set(steps))  # the last step is evaluated beside being trained
            if result is not None:
                later = [path for path in (record.folder / "attempts").glob("*.json") if int(path.stem) > result.attempt]
                self.report.finished_twice += bool(later) or (record.folder / "earlier").exists()

    def _jobs(self) -> list[str]:
        return self._slurm("squeue", "-h", "-r", "-t", "RUNNING", "-o", "%i").split()

    def _slurm(self, *command: str) -> str:
        """Call a command of Slurm; what it refuses, or does not answer, is part of the chaos."""
        try:
            return self._cluster.slurm(*command)
        except (AssertionError, subprocess.TimeoutExpired):
            return ""

    def _on_job(self, *command: str) -> bool:
        jobs = self._jobs()
        if not jobs:
            return False
        self._slurm(*command, self._random.choice(jobs))
        return True

    def _kill_run(self) -> bool:
        active = [record for record in self._sweep.records if record.state() == "running"]
        if not active:
            return False
        try:
            os.kill(self._random.choice(active).owner().pid, signal.SIGKILL)
        except (ProcessLookupError, KeyError):
            return False
        return True

    def _nodes(self) -> list[str]:
        return self._slurm("squeue", "-h", "-t", "RUNNING", "-o", "%N").split()

    def _crash_node(self) -> bool:
        nodes = self._nodes()
        if nodes:
            self._cluster.control("crash", self._random.choice(nodes))
            time.sleep(2)
            self._cluster.start()
        return bool(nodes)

    def _kill_node_daemon(self) -> bool:
        nodes = self._nodes()
        if nodes:
            self._cluster.kill_daemon(self._random.choice(nodes))
            time.sleep(40)  # until Slurm has given the node up and started its job elsewhere
            self._cluster.start()
        return bool(nodes)

    def _kill_controller(self) -> bool:
        self._cluster.kill_daemon("slurmctld")
        time.sleep(3)
        self._cluster.start()
        return True

    def _kill_command(self) -> bool:
        if self._sweep.process is None or self._sweep.process.poll() is not None:
            return False
        self._sweep.kill()
        return True


def weights_equal(record: RunDirectory, other: RunDirectory) -> bool:
    """Whether two runs ended with the same weights, bit for bit."""
    import torch
    from safetensors.torch import load_file

    a, b = (load_file(Path(one.folder) / "model" / "model.safetensors") for one in (record, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
