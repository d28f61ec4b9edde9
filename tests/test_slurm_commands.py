"""What goes to Slurm's commands and what their answers mean; real answers are in tests/slurm."""

import os
from pathlib import Path

import pytest

from efficient_rl.doctor.cluster import gpus_of, slurm_minutes
from efficient_rl.errors import ConfigError, SchedulerError
from efficient_rl.launch.base import Handle
from efficient_rl.launch.slurm import commands
from efficient_rl.launch.slurm.commands import JobState, Refused, corrected, job_environment, require_slurm
from efficient_rl.launch.slurm.launcher import SlurmLauncher
from efficient_rl.launch.slurm.ledger import Batch, Ledger
from efficient_rl.launch.slurm.node import _exit_status
from efficient_rl.launch.slurm.retries import EXIT_RUN_FAILED
from efficient_rl.launch.slurm.settings import SlurmRequest
from efficient_rl.launch.slurm.submit import submit
from efficient_rl.launch.slurm.waiting import advice, warnings
from efficient_rl.launch.worker import DISK_FULL, EXIT_DISK_FULL, Job
from efficient_rl.libraries import forget_process_group
from efficient_rl.rundir.result import Failure
from efficient_rl.rundir.state import RunState
from tests.conftest import Sweep

OF_AN_ALLOCATION = (
    *("SLURM_JOB_ID", "SLURM_MEM_PER_CPU", "SLURM_MEM_PER_NODE", "SLURM_CPU_BIND", "SLURM_EXPORT_ENV", "SLURMD_NODENAME"),
    *("SLURM_CPUS_PER_TASK", "SRUN_CPUS_PER_TASK", "SBATCH_EXPORT", "SBATCH_PARTITION", "SALLOC_ACCOUNT", "SQUEUE_FORMAT"),
    *("SQUEUE_PARTITION", "SACCT_FORMAT", "SCANCEL_INTERACTIVE", "SINFO_FORMAT", "CUDA_VISIBLE_DEVICES"),
    *("ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_PLACES", "KMP_AFFINITY"),
)
OF_A_PROCESS_GROUP = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK"),
    *("ROLE_NAME", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "PMI_RANK", "PMI_SIZE", "PMIX_RANK", "PMI2_X"),
    *("OMPI_COMM_WORLD_SIZE", "PALS_RANKID", "MV2_COMM_WORLD_RANK", "MPI_LOCALRANKID", "FLUX_TASK_RANK"),
)
PASSED_ON = (
    *("SLURM_CONF", "SLURM_JWT", "PATH", "HOME", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "HF_HOME", "HF_TOKEN"),
    *("MLFLOW_TRACKING_URI", "MY_RANK", "RANKING", "WORLD", "MASTERS", "CUDA_HOME", "NVIDIA_VISIBLE", "SLURMY"),
)


def test_a_job_inherits_everything_but_the_allocation_and_process_group_of_its_submission() -> None:
    own = dict.fromkeys((*OF_AN_ALLOCATION, *OF_A_PROCESS_GROUP, *PASSED_ON), "1")
    assert set(job_environment(own)) == set(PASSED_ON)
    outside = {"OMP_NUM_THREADS": "8", "SBATCH_EXPORT": "NONE"}
    assert job_environment(outside) == {"OMP_NUM_THREADS": "8"}  # what a user sets on a login node is meant


def test_a_run_here_forgets_the_process_group_and_stays_in_its_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*OF_A_PROCESS_GROUP, *PASSED_ON, "SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "1")
    forget_process_group()
    left = {name for name, value in os.environ.items() if value == "1"}
    assert not left & set(OF_A_PROCESS_GROUP)
    assert {*PASSED_ON, "SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES"} <= left


def put(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Commands of these names, and no others of Slurm, in PATH."""
    (folder / "bin").mkdir(exist_ok=True)
    for name, script in scripts.items():
        path = folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"))


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("echo 71", "71"),
        ("echo '71;cluster'", "71"),
        ("echo 71; echo 'sbatch: lua: 3 credits' >&2", "71"),
        ("echo 'job 1 of 1'; echo 71", None),  # a wrapper of the site: its numbers are no ids
        ("echo 'Submitted batch job 71'", None),
        ("echo 3; echo 71", None),
        ("true", None),
    ],
)
def test_an_answer_with_more_than_an_id_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, found: str | None
) -> None:
    put(tmp_path, monkeypatch, sbatch=answer)
    assert commands.sbatch(tmp_path / "job.sh") == found


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        ("echo 'sbatch: error: invalid partition' >&2; exit 1", Refused, "sbatch: error: invalid partition"),
        ("echo \"sbatch: unrecognized option '--foo'\" >&2; exit 1", Refused, "sbatch: unrecognized option '--foo'"),
        ("echo 'sbatch: error: Socket timed out on send/recv' >&2; exit 1", SchedulerError, "Socket timed out"),
        ("echo 'our filter has a bad day' >&2; exit 1", SchedulerError, "sbatch: our filter has a bad day"),
        ("exit 3", SchedulerError, "sbatch: exit status 3"),
    ],
)
def test_a_refusal_is_told_from_an_answer_that_leaves_it_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, kind: type[SchedulerError], words: str
) -> None:
    put(tmp_path, monkeypatch, sbatch=script)
    with pytest.raises(SchedulerError) as caught:
        commands.sbatch(tmp_path / "job.sh")
    assert (type(caught.value), words in str(caught.value)) == (kind, True)


def test_without_slurm_the_missing_commands_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, monkeypatch, squeue="true")
    with pytest.raises(SchedulerError, match=r"sbatch, scontrol, scancel cannot be found in PATH; run on a login node"):
        require_slurm()
    with pytest.raises(SchedulerError, match="cannot be found in PATH"):
        SlurmLauncher().attach([])
    put(tmp_path, monkeypatch, sbatch="true", scontrol="true", scancel="true")
    require_slurm()
    (tmp_path / "bin" / "sbatch").chmod(0o644)
    with pytest.raises(SchedulerError, match="sbatch cannot be found in PATH"):
        require_slurm()


def test_a_sweep_without_slurm_ends_with_one_line(
    sweep_here: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = sweep_here("launcher=slurm", "tracking=none", "check_models=false")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(
        "error: launcher=slurm needs Slurm's commands, and sbatch, squeue, scontrol, scancel cannot"
    )


def test_what_sacct_and_squeue_print_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = ["7_0|CANCELLED by 1000|0:15|n1", "7_1|CANCELLED by 0|0:0|None assigned", "7_[2-4,9%2]|PENDING|0:0|None assigned",
            "7_5|RUNNING|0:0|n[1-2]", "7_6|FAILED|15:0|n1", "7_7|OUT_OF_ME+|0:125|n2"]  # fmt: skip
    queue = ["7_2  |PENDING |0 | |Priority |", "7_3|PENDING|0||launch failed requeued held|", "7_6|COMPLETING|0:0|n1|None|",
             "7_8|CONFIGURING|0|n3|None|", "7_9|PENDING|0||Nodes required are DOWN, DRAINED or reserved|",
             "7_10 |FAILED |36608 |n1 |NonZeroExitCode |"]  # fmt: skip
    scripts = {name: f"cat <<'END'\n{chr(10).join(lines)}\nEND" for name, lines in (("sacct", told), ("squeue", queue))}
    put(tmp_path, monkeypatch, **{name: script.replace("cat", "/bin/cat") for name, script in scripts.items()})
    states = commands.job_states([f"7_{task}" for task in (*range(7), 8, 9, 10)])
    assert states == {
        "7_0": JobState("CANCELLED", "0:15", "n1"),
        "7_1": JobState("CANCELLED", "0:0"),
        "7_2": JobState("PENDING", "0:0", reason="Priority"),
        "7_3": JobState("PENDING", "0:0", reason="launch failed requeued held"),
        "7_4": JobState("PENDING", "0:0"),
        "7_5": JobState("RUNNING", "0:0", "n[1-2]"),
        "7_6": JobState("COMPLETING", "0:0", "n1"),  # it may be put back
        "7_8": JobState("CONFIGURING", "0:0", "n3"),
        "7_9": JobState("PENDING", "0:0", reason="Nodes required are DOWN, DRAINED or reserved"),
        "7_10": JobState("FAILED", "143:0", "n1"),  # a site without accounting
    }


def ready(folder: Path, tasks: int) -> Batch:
    """A recorded batch of so many tasks."""
    return Ledger(folder).record_submission("mine", [[f"run{number}"] for number in range(tasks)], {})


def jobs(folder: Path, tasks: int) -> list[list[Job]]:
    return [[Job(folder / "runs" / f"run{number}", {})] for number in range(tasks)]


@pytest.mark.parametrize("tasks", [1, 3])
def test_jobs_under_a_wrapper_that_talks_are_found_by_their_name_and_get_their_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: int
) -> None:
    batch = ready(tmp_path, tasks)
    by_name = f'case "$*" in *"--name {batch.name}"*) echo 71 ;; esac'
    put(tmp_path, monkeypatch, sbatch="echo 'job 1 of 1'", squeue=by_name, srun="true")
    submit(batch, SlurmRequest(), jobs(tmp_path, tasks))
    assert batch.job == "71"
    ids = ["71"] if tasks == 1 else [f"71_{number}" for number in range(tasks)]
    assert sorted(path.name for path in batch.folder.glob("*.pkl")) == [f"{name}_submitted.pkl" for name in ids]


def test_a_wrapper_whose_jobs_nobody_knows_leaves_the_batch_open_for_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = ready(tmp_path, 1)
    put(tmp_path, monkeypatch, sbatch="echo 'job 1 of 1'", squeue="true", srun="true")
    with pytest.raises(SchedulerError, match=f"printed no job id, and squeue knows no job {batch.name}"):
        submit(batch, SlurmRequest(), jobs(tmp_path, 1))
    assert not batch.settled


def test_bad_nodes_are_avoided_where_slurm_has_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no = 'echo "sbatch: error: Requested node configuration is not available" >&2; exit 1'
    refuses = f'/bin/grep -q "exclude=n9,n1" "$3" && {{ {no}; }}'
    for name, script, excluded in (("takes", "echo 71", "n9,n1"), ("refuses", f"{refuses}\necho 71", "n9")):
        batch = ready(tmp_path / name, 1)
        put(tmp_path, monkeypatch, sbatch=script, srun="true")
        submit(batch, SlurmRequest(exclude="n9"), jobs(tmp_path / name, 1), ["n1"])
        assert batch.job == "71"
        assert f"#SBATCH --exclude={excluded}\n" in (batch.folder / "submission.sh").read_text()


def test_a_job_passes_its_environment_and_cores_on_to_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm 22.05 and later give a step one core unless it asks for them, and none of the environment at some sites."""
    batch = ready(tmp_path, 1)
    put(tmp_path, monkeypatch, sbatch=f'echo "$*" > {tmp_path}/called; echo 71', srun="true")
    submit(batch, SlurmRequest(cpus_per_task=6), jobs(tmp_path, 1))
    (step,) = [line for line in (batch.folder / "submission.sh").read_text().splitlines() if line.startswith("srun")]
    assert {"--export=ALL", "--cpus-per-task=6"} <= set(step.split())
    assert (tmp_path / "called").read_text() == f"--parsable --export=ALL {batch.folder / 'submission.sh'}\n"


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("time", 60, "is set by launcher.timeout_min; use that"),
        ("t", "1:00:00", "is set by launcher.timeout_min"),
        ("mem", "32G", "is set by launcher.mem_gb"),
        ("mem-per-cpu", "4G", "is set by launcher.mem_gb"),
        ("mem_per_gpu", "4G", "is set by launcher.mem_gb"),
        ("partition", "gpu", "is set by launcher.partition"),
        ("p", "gpu", "is set by launcher.partition"),
        ("exclude", "n1", "is set by launcher.exclude"),
        ("gpus_per_node", 2, "is set by launcher.gpus_per_node"),
        ("N", 2, "is set by launcher.nodes"),
        ("array", "0-5", "is set by launcher.array_parallelism"),
        ("signal", "USR1@60", "is set by launcher.signal_seconds"),
        ("ntasks", 2, "is set by launcher.processes_per_run"),
        ("job-name", "mine", "by it; leave it out"),
        ("job_name", "mine", "by it; leave it out"),
        ("output", "a.log", "by it; leave it out"),
        ("export", "NONE", "by it; leave it out"),
        ("no-requeue", True, "by it; leave it out"),
        ("requeue", False, "by it; leave it out"),
        ("clusters", "other", "by it; leave it out"),
        ("--mail-type", "FAIL", "without dashes in front"),
        ("comment\n#SBATCH --time", "1", "is no option of sbatch"),
        ("hold", False, "must be a text on one line, a number, or true"),
        ("comment", None, "must be a text on one line, a number, or true"),
        ("comment", "a\nsleep 5", "must be a text on one line, a number, or true"),
        ("comment", ["a"], "must be a text on one line, a number, or true"),
    ],
)
def test_additional_options_that_the_launcher_sets_are_refused_with_their_key(
    option: str, value: object, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        SlurmRequest(additional={option: value})
    assert f"launcher.additional.{option}={value!r}" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("given", "works"),
    [
        ("launcher.exclude=n[1-4]", "'launcher.exclude=\"n[1-4]\"'"),
        ("launcher.exclude=n[1-4],m7", "'launcher.exclude=\"n[1-4],m7\"'"),
        ("launcher.exclude=n1,n2", "'launcher.exclude=\"n1,n2\"'"),
        ("launcher.exclude=[n1,n2]", "'launcher.exclude=\"n1,n2\"'"),
        ("launcher.constraint=a100&ib", "'launcher.constraint=\"a100&ib\"'"),
        ("launcher.partition=a,b", "'launcher.partition=\"a,b\"'"),
    ],
)
def test_a_text_that_the_command_line_misreads_is_named_with_what_works(sweep_here: Sweep, given: str, works: str) -> None:
    refused = sweep_here("launcher=slurm", given, "dry_run=true")
    assert (refused.returncode, refused.stderr.count("\n"), works in refused.stderr) == (2, 1, True), refused.stderr
    taken = sweep_here("launcher=slurm", works.strip("'"), "dry_run=true")
    assert taken.returncode == 0, taken.stderr


def test_other_options_are_passed_on() -> None:
    given = {"mail-type": "FAIL", "mail_user": "me@here", "mem": 0, "hold": True, "gres": "tmp:5", "reservation": "r"}
    assert SlurmRequest(additional=given).sbatch_parameters("a")["additional_parameters"] == {"requeue": True, **given}


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("PartitionTimeLimit", "launcher.timeout_min"),
        ("QOSMaxWallDurationPerJobLimit", "launcher.timeout_min"),
        ("AssocMaxWallDurationPerJobLimit", "launcher.timeout_min"),
        ("PartitionNodeLimit", "launcher.nodes"),
        ("QOSMaxNodePerJobLimit", "launcher.nodes"),
        ("DependencyNeverSatisfied", "launcher.additional.dependency"),
        ("BadConstraints", "a request that the partition and qos allow"),
        ("AssocMaxCpuPerJobLimit", "a request that the partition and qos allow"),
        ("QOSMinCpuNotSatisfied", "a request that the partition and qos allow"),
        ("QOSMaxMemoryPerJob", "launcher.mem_gb"),
        ("MaxMemPerLimit", "launcher.mem_gb"),
        ("QOSMaxGRESPerJob", "launcher.gpus_per_node"),
        ("InvalidAccount", "launcher.account"),
        ("InvalidQOS", "launcher.qos"),
        ("AssocGrpCPUMinutesLimit", "used up its budget"),
        ("QOSUsageThreshold", "used up its budget"),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-4]", "sinfo -R"),
        ("PartitionDown", "its partition takes no jobs"),
        ("PartitionInactive", "its partition takes no jobs"),
        ("JobHeldUser", "`scontrol release 7_1 7_2` lets it start"),
        ("launch failed requeued held", "`scontrol release 7_1 7_2` lets it start"),
        ("job requeued in held state", "`scontrol release 7_1 7_2` lets it start"),
        ("JobHoldMaxRequeue", "`scontrol release 7_1 7_2` lets it start"),
        ("JobHeldAdmin", "ask them"),
        *((reason, None) for reason in (
            "", "Priority", "Resources", "Dependency", "BeginTime", "Licenses", "JobArrayTaskLimit", "AssocMaxJobsLimit",
            "AssocGrpCpuLimit", "AssocGrpNodeLimit", "AssocGrpCPURunMinutesLimit", "QOSMaxJobsPerUserLimit",
            "QOSMaxCpuPerUserLimit", "QOSGrpMemLimit", "Reservation", "Prolog", "Cleaning", "ReqNodeNotAvail",
            "ReqNodeNotAvail, May be reserved for other job",
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
        )),
    ],
)  # fmt: skip
def test_a_reason_that_does_not_pass_by_itself_is_told_with_what_helps(reason: str, words: str | None) -> None:
    states = dict.fromkeys(("7_1", "7_2"), JobState("PENDING", reason=reason)) | {"8": JobState("RUNNING", reason=reason)}
    found = warnings(states)
    if words is None:
        assert (advice(reason), found) == (None, {})
    else:
        assert list(found) == [reason]
        assert found[reason].startswith(f"jobs 7_1, 7_2 will not start by themselves ({reason}): ")
        assert words in found[reason]


def test_many_jobs_that_wait_for_good_are_one_line() -> None:
    states = {f"7_{number}": JobState("PENDING", reason="BadConstraints") for number in range(40)}
    (line,) = warnings(states).values()
    assert line.startswith("jobs 7_0, 7_1, 7_2, 7_3, 7_4 and 35 more will not start by themselves (BadConstraints): ")


def test_of_a_job_that_goes_on_the_controllers_word_counts() -> None:
    ended, waits, runs = JobState("PREEMPTED", "0:15", "n1"), JobState("PENDING", reason="BeginTime"), JobState("RUNNING")
    unknown, gone = JobState(commands.VANISHED), JobState("CANCELLED")
    assert corrected({"7": ended}, {"7": waits}) == {"7": waits}  # PreemptMode=REQUEUE, and the accounting lags behind
    assert corrected({"7": waits}, {"7": runs}) == {"7": runs}
    assert corrected({"7": ended}, {"7": gone}) == {"7": ended}  # the accounting says how
    assert corrected({"7": unknown}, {"7": gone}) == {"7": gone}
    assert corrected({}, {"7": gone}) == {"7": gone}
    assert corrected({"7": ended}, {}) == {"7": ended}


def test_a_job_in_which_a_run_failed_ends_so_and_tells_a_full_disk() -> None:
    def status(*errors: str | None, before: bool = False) -> int:
        handles = []
        for error in errors:
            failure = None if error is None else Failure(1, error, "log.txt")
            state = RunState.FINISHED if error is None else RunState.FAILED
            handles.append(Handle(Job(Path("runs/a"), {}), state, failure=failure))
        return _exit_status(handles, before)

    assert status(None, None) == 0
    assert status(None, "ValueError: no letters") == EXIT_RUN_FAILED
    assert status(None, before=True) == EXIT_RUN_FAILED  # the job was requeued after that
    assert status("OSError: [Errno 28] No space left on device") == EXIT_DISK_FULL
    assert status(None, "the process ended by exit status 1; Disk quota exceeded") == EXIT_DISK_FULL
    assert status(DISK_FULL) == EXIT_DISK_FULL


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("01:30:00", 90), ("2-00:00:00", 2880), ("00:00:30", 0.5), ("UNLIMITED", None), ("NONE", None), ("", None)],
)
def test_slurms_times_are_read(text: str, minutes: float | None) -> None:
    assert slurm_minutes(text) == minutes


@pytest.mark.parametrize(
    ("text", "count"),
    [("gpu:4", 4), ("gpu:a100:2(S:0-1)", 2), ("gpu:a:2,gpu:b:1", 3), ("mps:100,gpu:1", 1), ("(null)", 0), ("gpumem:5", 0)],
)
def test_slurms_gpus_are_counted(text: str, count: int) -> None:
    assert gpus_of(text) == count
