"""A real Slurm cluster on this machine, whose nodes are processes with made-up GPUs, and the sweeps that run on it."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from efficient_rl.launch.slurm.commands import job_states
from efficient_rl.rundir.directory import RunDirectory
from tests.conftest import command, environment, wait_until

SCRIPT = Path(__file__).with_name("cluster.sh")
PORTS = 15
REQUEST = (  # one run of the embedded model needs more memory than it looks: Slurm counts shared pages in every process
    "launcher=slurm",
    "launcher.gpus_per_node=1",
    "launcher.cpus_per_task=1",
    "launcher.mem_gb=4",
    "launcher.timeout_min=60",
    "tracking=none",
    "check_models=false",
)


@dataclass
class Cluster:
    """The running cluster: its folder, and what can be done to it."""

    folder: Path
    variables: dict[str, str]

    def control(self, *arguments: str) -> str:
        """Call the script that starts, stops and crashes it."""
        done = subprocess.run(
            [str(SCRIPT), *arguments],
            env=os.environ | self.variables, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> None:
        """Start what does not run and wait for every node."""
        self.control("start")

    def kill_daemon(self, name: str, number: int = signal.SIGKILL) -> None:
        """Kill one daemon (`slurmctld`, `n1`, ...) and nothing else."""
        pid = int((self.folder / "run" / f"{name}.pid").read_text())
        os.kill(pid, number)
        wait_until(lambda: not alive(pid), 20, f"{name} to die")

    def slurm(self, *arguments: str) -> str:
        """Call a command of Slurm."""
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ended(self, job: str) -> str:
        """State and exit code of a job, as sacct writes them."""
        return self.slurm("sacct", "-X", "-n", "-P", "-j", job, "-o", "State,ExitCode").strip()


def alive(pid: int) -> bool:
    """Whether the process still runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def why_not() -> str | None:
    """Why no cluster can be started here; None where one can."""
    if os.geteuid() != 0:
        return "a local Slurm cluster needs root"
    if not all(shutil.which(name) for name in ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "sbatch")):
        return f"Slurm is not installed; `tests/slurm/{SCRIPT.name} install` does it on Debian"
    return None


@contextmanager
def local_cluster() -> Iterator[Cluster]:
    """Start a cluster, point Slurm's commands at it, and stop it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="erl-slurm-"))
    folder.chmod(0o755)  # munge's clients must reach its socket
    variables = {
        "SLURM_LOCAL_DIR": str(folder),
        "SLURM_LOCAL_PORT": str(free_ports()),
        "SLURM_LOCAL_CPUS": "8",
        "SLURM_LOCAL_MEM_MB": "64000",
    }
    cluster = Cluster(folder, variables)
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.control("stop")
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before
        shutil.rmtree(folder, ignore_errors=True)


def free_ports() -> int:
    """The first of a block of ports on which nothing listens."""
    for first in range(21000 + os.getpid() % 500 * 16, 32000, 16):
        sockets = []
        try:
            for port in range(first, first + PORTS):
                sockets.append(socket.socket())
                sockets[-1].bind(("127.0.0.1", port))
        except OSError:
            continue
        else:
            return first
        finally:
            for one in sockets:
                one.close()
    raise AssertionError("no free ports")


class Sweep:
    """A sweep command in a folder of its own, and its runs."""

    started: ClassVar[list["Sweep"]] = []

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.folder = folder
        self.overrides = (*REQUEST, *overrides)
        self.process: subprocess.Popen[str] | None = None

    def start(self, *more: str) -> "Sweep":
        """Start the command in the background, in a process group of its own; its output goes to a file."""
        names = {text.split("=")[0] for text in more}
        overrides = [text for text in self.overrides if text.split("=")[0] not in names]
        with (self.folder / "sweep.out").open("a") as out:
            self.process = subprocess.Popen(
                command([*overrides, *more]), cwd=self.folder, env=environment(), text=True,
                stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self.started.append(self)
        return self

    def end(self, seconds: float = 900) -> int:
        """Wait for the command; its exit status."""
        assert self.process is not None
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the sweep did not end\n{self.output()}") from None

    def kill(self) -> None:
        """SIGKILL for the command and what it started here, as a lost login node would."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def kill_if_alive(self) -> None:
        """The same where the command still runs."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def output(self) -> str:
        """What the command has said so far, then what its jobs said."""
        logs = [*self.folder.glob("outputs/runs/*/log.txt"), *self.folder.glob("outputs/jobs/*/*.err")]
        texts = [f"--- {path}\n{path.read_text(errors='replace')[-1500:]}" for path in logs]
        return "\n".join([(self.folder / "sweep.out").read_text(), *texts])

    @property
    def records(self) -> list[RunDirectory]:
        """Its run directories."""
        return [RunDirectory(path) for path in sorted((self.folder / "outputs" / "runs").glob("*"))]

    def wait_steps(self, steps: int, runs: int = 1, seconds: float = 600) -> list[str]:
        """Wait until so many runs have logged so many steps; their job ids."""

        def there() -> list[RunDirectory]:
            return [r for r in self.records if sum("train/reward" in row["metrics"] for row in r.metrics()) >= steps]

        wait_until(lambda: len(there()) >= runs, seconds, f"{runs} runs with {steps} steps\n{self.output()}")
        return [record.owner().job_id for record in there()]

    def job(self) -> str:
        """The job id of its only run."""
        (record,) = self.records
        return str(record.owner().job_id)


def running(job: str) -> bool:
    """Whether Slurm says that a job runs."""
    state = job_states([job]).get(job)
    return state is not None and state.running
