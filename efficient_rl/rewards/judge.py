"""A bounded math-verify process, shared by this process and started on first use."""

import atexit
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from efficient_rl.rewards.judge_bounds import ANSWER_CALLS, READY

START_SECONDS = 120.0  # loading math-verify on a busy machine
END_SECONDS = 2.0
PAIR_SECONDS = 900.0  # by the clock, on a starved machine; only a stopped server needs it
ROOT = str(Path(__file__).parents[2])


class Judge:
    """A server process of `judge_server` and the connection to it; for one thread at a time."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "efficient_rl.rewards.judge_server", str(os.getpid())],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path or ROOT for path in sys.path), "PYTHONHASHSEED": "0"},
            )
        self.connection = Connection(ours.detach())
        if self._receive(START_SECONDS) != READY:
            self.close()
            raise RuntimeError(
                f"the math-verify process is not ready (exit status {self.process.returncode}, within "
                f"{START_SECONDS:.0f} s); install the requirements so that `{sys.executable} -c 'import math_verify'` works"
            )

    def same(self, answer: str, gold: str, calls: int, private: bool) -> tuple[bool, int] | None:
        """Whether two expressions are equal, and the calls made; None if the server ended."""
        reply = self._ask(json.dumps((calls, private, answer, gold)).encode())
        if reply is None:
            return None
        right, made = json.loads(reply)
        return right, made

    def end_private(self) -> None:
        """Let the server end the worker of the answer that was judged alone."""
        self._ask(b"")

    def _ask(self, request: bytes) -> bytes | None:
        try:
            self.connection.send_bytes(request)
        except OSError:
            return None
        return self._receive(PAIR_SECONDS)

    def _receive(self, seconds: float) -> bytes | None:
        try:
            return self.connection.recv_bytes() if self.connection.poll(seconds) else None
        except (EOFError, OSError):
            return None

    def close(self) -> None:
        """End the server, and so its worker, at the closed connection or by a kill."""
        self.connection.close()
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def forget(self) -> None:
        """In a forked child: let go of the parent's server without ending it."""
        self.connection.close()
        self.process.returncode = 0  # it is not this process's child


class Judges:
    """The judge of this process, shared by its threads; a forked child starts its own."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.judge: Judge | None = None
        self.owner = os.getpid()
        self.private = False
        self.asked = 0  # how many verdicts were given

    def same(self, answer: str, gold: str, calls: int = ANSWER_CALLS) -> tuple[bool, int]:
        """Whether math-verify finds two expressions equal, and how many Python calls it made.

        Over the limit of calls the verdict is wrong, and the number higher than the limit.
        RuntimeError if the server cannot be started or is killed from outside three times over the
        same pair.
        """
        with self.lock:
            for _ in range(3):
                judge = self._ready()
                verdict = judge.same(answer, gold, calls, self.private)
                if verdict is not None:
                    self.asked += 1
                    return verdict
                self._end()
        raise RuntimeError("the math-verify process was killed three times; check memory limits and whatever ends processes")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Judge the pairs inside in one new worker, so that their calls depend on nothing else.

        Other threads wait.
        """
        with self.lock:
            self.private = True
            try:
                yield
            finally:
                self.private = False
                if self.judge is not None:
                    self.judge.end_private()

    def _ready(self) -> Judge:
        if self.judge is None:
            self.judge = Judge()
            self.owner = os.getpid()
        return self.judge

    def _end(self) -> None:
        if self.judge is not None and self.owner == os.getpid():
            self.judge.close()
        self.judge = None

    def close(self) -> None:
        """End the process, if this process started one."""
        with self.lock:
            self._end()

    def after_fork(self) -> None:
        """Make a forked child's copy usable: its parent's threads and judge are not its own."""
        self.lock = threading.RLock()
        self.private = False
        if self.judge is not None:
            self.judge.forget()
            self.judge = None


JUDGES = Judges()
atexit.register(JUDGES.close)
os.register_at_fork(after_in_child=JUDGES.after_fork)
