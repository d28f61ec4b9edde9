"""The entry point of a launched process: claims a run, executes it, records its outcome."""

import errno
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from multiprocessing import connection, process
from pathlib import Path
from typing import Any, Self

from efficient_rl.config.run_config import RunConfig, from_dict
from efficient_rl.config.run_options import Options
from efficient_rl.distributed.failure_watch import PeerFailed
from efficient_rl.distributed.process_group import ProcessGroup
from efficient_rl.files import write_atomic
from efficient_rl.rundir.attempt import AlreadyActive, AlreadyFinished, Attempt, AttemptLost
from efficient_rl.rundir.directory import RunDirectory

EXIT_FAILED = 1
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: try again later
EXIT_NOT_MINE = 76
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
EXIT_DISK_FULL = 74  # EX_IOERR: why the run failed could not be written either
DISK_FULL = f"{os.strerror(errno.ENOSPC)}, or a quota is used up; with free space the same command resumes the run"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One run to do: its directory, its configuration as plain values, and options.

    `redo_through_attempt`: redo what attempts up to this number left. `ended_attempts`: attempts up
    to this number are known to have ended. `retries`: how often the job may be started again.
    `sweep`: the name under which a cluster's queue shows it.
    """

    folder: Path
    config: Mapping[str, Any]
    options: Options = field(default_factory=Options)
    redo_through_attempt: int | None = None
    ended_attempts: int = 0
    retries: int = 3
    sweep: str = ""

    @property
    def key(self) -> str:
        return self.folder.name

    @property
    def directory(self) -> RunDirectory:
        return RunDirectory(self.folder)

    def cut(self, micro_batches: int) -> Self:
        """The same job with each batch cut into `micro_batches` parts, to fit into memory."""
        return replace(self, options=replace(self.options, micro_batches=micro_batches))


def work(job: Job, environment: Mapping[str, str]) -> None:
    """Do the job in this process, its output in the run's log; exits with a code from above."""
    os.environ.update(environment)
    job.folder.mkdir(parents=True, exist_ok=True)
    _redirect(job.folder / "log.txt")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher decides what Ctrl-C means
    _stop_with_launcher()
    sys.exit(do(job))


def do(job: Job, release: bool = False) -> int:
    """Claim and execute; returns the exit code. All processes of a run call it, and rank 0 claims.

    `release` gives the run up at the end, where this process lives on.
    """
    from efficient_rl.run import Interrupted, Stop, execute

    config, stop = from_dict(job.config), Stop()
    if threading.current_thread() is threading.main_thread():
        stop.listen(signal.SIGTERM)
        if release:  # else the launcher decides what Ctrl-C means
            stop.listen(signal.SIGINT)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # the process that it was forked from does not hear it
    group = ProcessGroup.join()
    claimed = group.broadcast(_claim(job, config) if group.is_main else None)
    if not isinstance(claimed, Attempt):
        group.close()
        return claimed or 0
    group.watch(lambda loss: os._exit(_failed(loss, group, claimed)))
    try:
        execute(config, claimed, job.options, stop, group)
        group.close()
    except Interrupted:
        logger.warning("stopped; the same command resumes from the last checkpoint")
        group.close()
        return EXIT_INTERRUPTED
    except AttemptLost as error:
        logger.warning("%s", error)
        group.report_failure(error, EXIT_NOT_MINE)
        return EXIT_NOT_MINE
    except Exception as error:
        logger.exception("the run failed")
        return _failed(group.root_cause(error), group, claimed)
    finally:
        if release:
            claimed.release()
    return 0


def _claim(job: Job, config: RunConfig) -> Attempt | int:
    """Become the owner of the run directory; the exit code where there is nothing to do."""
    try:
        return job.directory.claim(config, job.redo_through_attempt, job.ended_attempts)
    except AlreadyFinished:
        return 0
    except AlreadyActive as error:
        logger.warning("%s", error)
        return EXIT_NOT_MINE


def _failed(error: Exception, group: ProcessGroup, attempt: Attempt) -> int:
    """Tell the other processes, and note the error in the run directory; the exit code."""
    code = error.exit_code if isinstance(error, PeerFailed) and error.exit_code is not None else EXIT_FAILED
    if isinstance(error, PeerFailed):
        logger.error("%s", error)
    group.report_failure(error, code)
    if group.is_main and code == EXIT_FAILED:
        try:
            attempt.fail(error)
        except OSError as problem:
            if problem.errno in (errno.ENOSPC, errno.EDQUOT):
                return EXIT_DISK_FULL
            raise
    return code


def _redirect(log: Path) -> None:
    stream = _open_log(log)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    os.close(stream)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)


def _open_log(path: Path) -> int:
    """The log, opened to append; one that another user may only read is replaced by a copy."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        return os.open(path, flags, 0o666)
    except PermissionError:
        write_atomic(path, path.read_bytes())
        return os.open(path, flags)


def _stop_with_launcher() -> None:
    """Ask this process to stop when the one that launched it is gone, however it went."""
    parent = process.parent_process()
    if parent is None:
        return

    def wait() -> None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
