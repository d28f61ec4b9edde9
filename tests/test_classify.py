"""One table: what a run directory and Slurm's word about its job, together, say of a run."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from efficient_rl.launch.slurm.classify import JobView, RunView, classify
from efficient_rl.launch.slurm.commands import VANISHED, JobState
from efficient_rl.launch.slurm.retries import RETRIED, ending
from efficient_rl.rundir.directory import HEARTBEAT_SECONDS, RunDirectory
from efficient_rl.rundir.process import Owner, SlurmJob
from efficient_rl.rundir.result import Failure
from efficient_rl.rundir.state import RunState
from tests.conftest import tiny_run
from tests.fake_launcher import result
from tests.test_snapshot import claim_and_die, claim_in_job

HERE = Owner("here", 1, 0.0, None, 0.0)
IN_7 = replace(HERE, host="n1", job=SlurmJob("7", 0, "n1"))
IN_6 = replace(HERE, host="n9", job=SlurmJob("6", 0, "n9"))
ERROR = Failure(1, "ValueError: no letters", "log.txt")

NEW = RunView(RunState.WAITING, None, None, 0, 0.0, "log.txt")
HALF = replace(NEW, attempt=1)  # an attempt has ended without a word, or after a checkpoint
ALIVE = replace(HALF, state=RunState.RUNNING, quiet_seconds=5.0)
DONE = replace(HALF, state=RunState.FINISHED, owner=IN_7)
BROKEN = replace(HALF, state=RunState.FAILED, failure=ERROR)
ALIVE_IN_7 = replace(ALIVE, owner=IN_7)
QUIET = replace(ALIVE, owner=IN_7, quiet_seconds=1800.0)

PENDING, RUNNING = JobState("PENDING"), JobState("RUNNING", node="n1")
NO_ANSWER = JobView("7", None)
WAITS = JobView("7", replace(PENDING, reason="Priority"))
RUNS = JobView("7", RUNNING)


def ended(word: str, text: str = "", code: str = "1:0") -> JobView:
    return JobView("7", JobState(word, code), error_text=text, error_log="7_0_log.err", timeout_min=60)


@pytest.mark.parametrize(
    ("run", "job", "state", "note"),
    [
        # no job: the directory alone
        (NEW, None, "waiting", ""),
        (replace(HALF, owner=HERE), None, "waiting", "here"),
        (replace(ALIVE, owner=HERE), None, "running", "here"),
        (replace(ALIVE, owner=HERE, quiet_seconds=1800.0), None, "running", "here, no heartbeat for 30 min"),
        (replace(ALIVE, owner=IN_7), None, "running", "n1"),
        (DONE, None, "finished", "n1"),
        (replace(BROKEN, owner=HERE), None, "failed", "here"),
        # Slurm does not answer
        (NEW, NO_ANSWER, "waiting", "job 7"),
        (replace(ALIVE, owner=IN_7), NO_ANSWER, "running", "job 7"),
        (DONE, NO_ANSWER, "finished", "job 7"),
        (replace(BROKEN, owner=IN_7), NO_ANSWER, "failed", "job 7"),
        (replace(BROKEN, owner=IN_6), NO_ANSWER, "failed", "job 7"),
        # the job waits
        (NEW, WAITS, "queued", "job 7 (Priority)"),
        (NEW, JobView("7", PENDING), "queued", "job 7"),
        (replace(HALF, owner=IN_7), WAITS, "queued", "job 7 (Priority)"),
        (replace(ALIVE, owner=IN_7), WAITS, "running", "job 7 on n1"),  # the accounting lags behind
        (QUIET, WAITS, "queued", "job 7 (Priority)"),  # requeued
        (replace(ALIVE, owner=IN_6), WAITS, "elsewhere", "n9"),
        (replace(ALIVE, owner=HERE), WAITS, "elsewhere", "here"),
        (replace(BROKEN, owner=IN_6), WAITS, "queued", "job 7 (Priority)"),  # the job is a retry
        (replace(BROKEN, owner=IN_7), WAITS, "failed", "job 7"),
        (DONE, WAITS, "finished", "job 7"),
        # the job runs
        (NEW, RUNS, "queued", "job 7 (starting)"),
        (NEW, JobView("7", replace(RUNNING, reason="JobArrayTaskLimit")), "queued", "job 7 (starting)"),  # another task's
        (NEW, replace(RUNS, shared=True), "queued", "job 7 (behind others of its job)"),
        (replace(BROKEN, owner=IN_6), replace(RUNS, shared=True), "queued", "job 7 (behind others of its job)"),
        (replace(ALIVE, owner=IN_7), RUNS, "running", "job 7 on n1"),
        (QUIET, RUNS, "running", "job 7 on n1, no heartbeat for 30 min"),
        (replace(ALIVE, owner=IN_6), RUNS, "elsewhere", "n9"),
        (replace(BROKEN, owner=IN_7), replace(RUNS, shared=True), "failed", "job 7"),  # the others of its job go on
        (ALIVE_IN_7, JobView("7", JobState("SUSPENDED", node="n1")), "queued", "job 7 (suspended)"),  # not stalled
        (QUIET, JobView("7", JobState("STOPPED", node="n1")), "queued", "job 7 (suspended)"),
        # the job has ended
        (DONE, ended("COMPLETED"), "finished", "job 7"),
        (replace(BROKEN, owner=IN_7), ended("COMPLETED"), "failed", "job 7"),
        (replace(BROKEN, owner=IN_6), ended("CANCELLED"), "failed", "job 7"),  # recorded by the command that watched
        (replace(ALIVE, owner=IN_6), ended("CANCELLED"), "elsewhere", "n9"),
    ],
)
def test_directory_and_job_together_say_how_a_run_is_doing(run: RunView, job: JobView | None, state: str, note: str) -> None:
    verdict = classify(run, job)
    assert (verdict.state, verdict.note) == (state, note)
    assert verdict.failure == (ERROR if state == "failed" else None)


STARTED, UNSTARTED = replace(HALF, owner=IN_7), NEW
SLURMSTEPD, AT = "slurmstepd: error: *** ", "CANCELLED AT 2026-11-23T07:00:00"


@pytest.mark.parametrize(
    ("run", "job", "state", "cause", "words"),
    [
        (STARTED, ended("NODE_FAIL"), "waiting", "node_failure", "its node failed"),
        (STARTED, ended("PREEMPTED"), "waiting", "preempted", "preempted"),
        (STARTED, ended("TIMEOUT"), "waiting", "time_limit", "the time limit of 60 min was reached (launcher.timeout_min)"),
        (UNSTARTED, ended("TIMEOUT"), "waiting", "time_limit", "the time limit of 60 min was reached"),
        (STARTED, ended("COMPLETED"), "waiting", "preempted", "preempted"),  # after a checkpoint, and not requeued
        (STARTED, ended("FAILED", code="143:0"), "waiting", "preempted", "preempted"),
        (STARTED, ended("OUT_OF_MEMORY"), "failed", "out_of_memory", "out of memory"),
        (STARTED, ended("FAILED", "StepId=1.0 exceeded memory limit (2 > 1), being killed"), "failed", "out_of_memory", ""),
        (STARTED, ended("CANCELLED"), "failed", "cancelled", "cancelled"),
        (STARTED, ended("FAILED"), "failed", "killed", "exit code 1:0"),
        (STARTED, ended("FAILED", "a line\nthe last word\n", "11:0"), "failed", "killed",
         "its job ended as FAILED with exit code 11:0 (SIGSEGV): the last word"),
        # the heartbeat of a process that the node has lost is still young
        (replace(STARTED, state=RunState.RUNNING), ended("NODE_FAIL"), "waiting", "node_failure", "its node failed"),
        # the run never began; a neighbour's memory, or something that may be better next time
        (UNSTARTED, ended("OUT_OF_MEMORY"), "failed", "not_started", "out of memory"),
        (UNSTARTED, ended("FAILED", "StepId=7.0 exceeded memory limit\nTask 0: Killed"), "failed", "not_started",
         "out of memory"),
        (UNSTARTED, ended("FAILED", "module: command not found"), "failed", "not_started",
         "its job ended before it began (FAILED, module: command not found)"),
        (UNSTARTED, ended("FAILED"), "failed", "not_started", "its job ended before it began (FAILED, exit code 1:0)"),
        # the request is wrong, and a retry would fail again
        (UNSTARTED, ended("FAILED", "launcher.setup failed with exit status 1, in the line: module load x"), "failed",
         "error", "launcher.setup failed with exit status 1, in the line: module load x"),
        (UNSTARTED, ended("FAILED", "slurmstepd: error: execve(): /no/python: No such file or directory"), "failed",
         "error", "Python could not be started on the node (launcher.python): slurmstepd: error: execve()"),
        (UNSTARTED, ended("FAILED", "", "127:0"), "failed", "error", "(launcher.python): exit code 127:0"),
        # Slurm has forgotten the job
        (UNSTARTED, ended(VANISHED), "waiting", "not_started", "Slurm does not know its job"),
        (STARTED, ended(VANISHED), "waiting", "node_failure", "its job is gone"),
        (STARTED, ended(VANISHED, f"slurmstepd-n1: error: *** STEP 7.0 {AT} ***"), "failed", "cancelled", ""),
        (UNSTARTED, ended(VANISHED, f"{SLURMSTEPD}JOB 7 ON n1 {AT} ***"), "failed", "cancelled", ""),
        (STARTED, ended(VANISHED, f"{SLURMSTEPD}JOB 7 ON n1 {AT} DUE TO TIME LIMIT ***"), "waiting", "time_limit", ""),
        (STARTED, ended(VANISHED, f"{SLURMSTEPD}JOB 7 ON n1 {AT} DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***"),
         "waiting", "node_failure", ""),
        (STARTED, ended(VANISHED, f"{SLURMSTEPD}JOB 7 ON n1 {AT} DUE TO PREEMPTION ***\n{SLURMSTEPD}JOB 7 ON n1 {AT} ***"),
         "failed", "cancelled", ""),
    ],
)  # fmt: skip
def test_how_a_job_ended_that_nobody_watched_is_told_in_words(
    run: RunView, job: JobView, state: str, cause: str, words: str
) -> None:
    verdict = classify(run, job)
    assert verdict.failure is not None
    assert (verdict.state, verdict.failure.cause, verdict.failure.attempt) == (state, cause, run.attempt)
    assert words in verdict.failure.error
    assert verdict.note == (f"job 7, {verdict.failure.error}" if state == "waiting" else "job 7")
    assert verdict.failure.log == ("7_0_log.err" if run is UNSTARTED else "log.txt")
    assert job.state is not None
    assert ending(job.state, run is not UNSTARTED, job.error_text, 60) == (cause, verdict.failure.error)


AGAIN, PREEMPTED = "waiting", ("preempted", "preempted or asked to stop")
OUT_OF_MEMORY = ("out_of_memory", "out of memory: the job exceeded what it asked for (launcher.mem_gb)")
SIGKILL = "SIGKILL: out of memory, perhaps"
TRACEBACK = (
    "Traceback (most recent call last):\n  File \"a.py\", line 1\nModuleNotFoundError: No module named 'efficient_rl'\n"
    "srun: error: n1: task 0: Exited with exit code 1\n"
)


@pytest.mark.parametrize(
    ("word", "code", "text", "state", "cause", "words"),
    [
        # asked to end, and the checkpoint is written: sacct writes a status above 128 less 128
        *(("FAILED", code, "", AGAIN, *PREEMPTED) for code in ("15:0", "0:15", "143:0", "12:0", "0:12", "140:0")),
        # killed: nobody knows by whom
        *(("FAILED", code, "", "failed", "killed", f"its job ended as FAILED with exit code {code} ({SIGKILL})")
          for code in ("0:9", "9:0", "137:0")),
        ("FAILED", "0:9", "slurmstepd: error: Detected 1 oom-kill event(s)", "failed", *OUT_OF_MEMORY),
        ("FAILED", "0:11", "", "failed", "killed", "its job ended as FAILED with exit code 0:11 (SIGSEGV)"),
        ("FAILED", "139:0", "", "failed", "killed", "its job ended as FAILED with exit code 139:0 (SIGSEGV)"),
        ("FAILED", "134:0", "", "failed", "killed", "its job ended as FAILED with exit code 134:0 (SIGABRT)"),
        ("FAILED", "1:0", "", "failed", "killed", "its job ended as FAILED with exit code 1:0"),
        ("FAILED", "2:0", "", "failed", "killed", "its job ended as FAILED with exit code 2:0"),
        ("FAILED", "", "", "failed", "killed", "its job ended as FAILED with exit code "),
        ("FAILED", "1:0", TRACEBACK, "failed", "killed",
         "its job ended as FAILED with exit code 1:0: ModuleNotFoundError: No module named 'efficient_rl'"),
        # our own job: another run of it has failed, and this one has a checkpoint; or the disk is full
        ("FAILED", "65:0", "", AGAIN, *PREEMPTED),
        ("FAILED", "74:0", "", "failed", "error",
         "No space left on device, or a quota is used up; with free space the same command resumes the run"),
        ("COMPLETED", "0:0", "", AGAIN, *PREEMPTED),
        # the words of Slurm
        ("PREEMPTED", "0:0", "", AGAIN, *PREEMPTED),  # PreemptMode=CANCEL
        ("PREEMPTED", "0:15", "", AGAIN, *PREEMPTED),
        ("TIMEOUT", "0:0", "", AGAIN, "time_limit", "the time limit of 60 min was reached (launcher.timeout_min)"),
        ("TIMEOUT", "0:15", "", AGAIN, "time_limit", "the time limit of 60 min was reached (launcher.timeout_min)"),
        ("NODE_FAIL", "0:0", "", AGAIN, "node_failure", "its node failed"),
        ("NODE_FAIL", "1:0", "", AGAIN, "node_failure", "its node failed"),
        ("BOOT_FAIL", "0:0", "", AGAIN, "node_failure", "its node failed to boot"),
        ("LAUNCH_FAILED", "0:0", "", AGAIN, "node_failure", "its node failed"),
        ("OUT_OF_MEMORY", "0:125", "", "failed", *OUT_OF_MEMORY),
        ("OUT_OF_MEMORY", "0:9", "", "failed", *OUT_OF_MEMORY),
        ("CANCELLED", "0:0", "", "failed", "cancelled", "cancelled"),
        ("CANCELLED", "0:15", "", "failed", "cancelled", "cancelled"),  # not preempted, although asked to end
        ("DEADLINE", "0:0", "", "failed", "cancelled",
         "cancelled: it could not end before its deadline (launcher.additional.deadline)"),
        ("REVOKED", "0:0", "", "failed", "cancelled", "cancelled: another cluster of the federation has taken the job"),
    ],
)  # fmt: skip
def test_every_end_that_sacct_writes_is_a_cause_in_words_and_tried_again_or_not(
    word: str, code: str, text: str, state: str, cause: str, words: str
) -> None:
    verdict = classify(STARTED, ended(word, text, code))
    assert verdict.failure is not None
    assert (verdict.state, verdict.failure.cause, verdict.failure.error) == (state, cause, words)


@pytest.mark.parametrize(
    ("word", "code", "text", "cause", "words"),
    [
        ("FAILED", "1:0", TRACEBACK, "not_started", "(FAILED, ModuleNotFoundError: No module named 'efficient_rl')"),
        ("FAILED", "1:0", "srun: error: n1: task 0: Exited with exit code 1", "not_started", "(FAILED, srun: error: n1"),
        ("FAILED", "0:53", "", "not_started", "(FAILED, exit code 0:53)"),  # its output file cannot be opened
        ("FAILED", "15:0", "", "preempted", "preempted or asked to stop"),
        ("FAILED", "0:12", "", "preempted", "preempted or asked to stop"),  # before Python could listen
        ("COMPLETED", "0:0", "", "not_started", "(COMPLETED, exit code 0:0)"),
        ("BOOT_FAIL", "0:0", "", "node_failure", "its node failed to boot"),
    ],
)
def test_the_end_of_a_job_that_had_not_begun_its_run_names_what_was_said_last(
    word: str, code: str, text: str, cause: str, words: str
) -> None:
    found, told = ending(JobState(word, code), False, text)
    assert (found, words in told) == (cause, True), told
    assert found in RETRIED


@pytest.mark.parametrize(
    ("word", "waits", "runs"),
    [
        *(
            (word, True, False)
            for word in ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "POWER_UP_NODE")
        ),
        *((word, False, True) for word in ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT")),
        *((word, False, False) for word in ("COMPLETED", "FAILED", "PREEMPTED", "CANCELLED", "DEADLINE", VANISHED)),
    ],
)
def test_a_job_that_is_put_back_stopped_or_ending_has_not_ended(word: str, waits: bool, runs: bool) -> None:
    state = JobState(word)
    assert (state.waits, state.running, state.ended) == (waits, runs, not (waits or runs))


def test_a_failed_node_is_named() -> None:
    assert ending(JobState("NODE_FAIL", "0:0", "n3"), True, "") == ("node_failure", "its node failed (n3)")
    assert (
        ending(JobState("FAILED", "1:0", "n3"), False, "")[1]
        == "its job ended on n3 before it began (FAILED, exit code 1:0)"
    )


def test_a_run_is_retried_where_it_is_not_to_blame() -> None:
    assert set(RETRIED) == {"node_failure", "preempted", "time_limit", "not_started"}


def test_a_view_is_what_the_directory_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = RunDirectory(tmp_path / "runs" / tiny_run().config_hash)
    record.claim(tiny_run()).finish(result(tiny_run(), 1))
    finished = RunView.read(record)
    assert (finished.state, finished.failure, finished.attempt) == ("finished", None, 1)
    record = RunDirectory(tmp_path / "runs" / tiny_run("seed=5").config_hash)
    assert RunView.read(record) == replace(NEW, log=str(record.folder / "log.txt"))
    attempt = claim_in_job(record, tiny_run("seed=5"), "7", monkeypatch)
    alive = RunView.read(record)
    assert (alive.state, alive.is_in("7"), alive.is_in("8"), alive.quiet_seconds < 60) == ("running", True, False, True)
    past = time.time() - 2 * HEARTBEAT_SECONDS
    os.utime(record.folder / "attempts" / "000001.json", (past, past))
    assert RunView.read(record).quiet_seconds == pytest.approx(2 * HEARTBEAT_SECONDS, abs=60)
    attempt.fail(ValueError("no letters"))
    failed = RunView.read(record)
    assert (failed.state, failed.failure) == ("failed", replace(ERROR, log=failed.log))
    claim_and_die(tmp_path, "seed=6", SLURM_JOB_ID="7", SLURMD_NODENAME="n1")
    dead = RunView.read(RunDirectory(tmp_path / "runs" / tiny_run("seed=6").config_hash))
    assert (dead.state, dead.failure, dead.attempt, dead.is_in("7")) == ("waiting", None, 1, True)
