"""The math-verify server: relays pairs to bounded workers, replaces those that reach a bound.

Started alone by `efficient_rl.rewards.judge`; it imports no more than math-verify, and its workers
are forked from it, so that a new one costs milliseconds. Model text reaches sympy only as
parsed LaTeX: sympy's own text parser, which evaluates Python, is replaced before the first pair by
one that knows decimal numbers only.
"""

import gc
import json
import logging
import os
import re
import select
import signal
import sys
from collections.abc import Callable
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import sympy

from efficient_rl.rewards.judge_bounds import DONE, READY, allow_cpu_seconds, counted, limit_process, refuse_giants

POLL_MILLISECONDS = 500
PAIRS_PER_WORKER = 20_000
ATTEMPTS = 3  # with a worker that is killed from outside
DECIMAL = re.compile(r"\d{1,400}(?:\.\d{0,400})?|\.\d{1,400}", re.ASCII)
Same = Callable[[str, str], bool]
SEEN_FIRST = (  # what the grammar and sympy load lazily, loaded before the first pair is timed
    (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"),
    (r"x^2 + 2x + 1", r"(x+1)^{2}"),
    (r"\frac{a^2-b^2}{a-b}", r"a + b"),
    (r"y = \frac{3}{2}x - 1.5", r"2y = 3x - 3"),
    (r"3x - 2y + 1 = 0", r"6x - 4y = -2"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 5 \end{pmatrix}"),
    (r"\sin^2 x + \cos x", r"1 - \cos^2 x + \cos(x)"),
    (r"2 \sin x \cos x", r"\sin(2x)"),
    (r"\log_2 8 + \ln e^3 + \binom{5}{2} - 3!", r"10"),
    (r"e^{i\pi} + |x| + \sqrt[3]{2}", r"-1 + |x| + 2^{1/3}"),
    (r"2^x", r"e^{x \ln 2}"),
    (r"\binom{n}{2}", r"\frac{n(n-1)}{2}"),
    (r"\frac{x}{y} + x^{-1}", r"x/y + 1/x"),
    (r"\sqrt[3]{x} \cdot 4", r"4 * x^{1/3}"),
    (r"n!", r"n (n-1)!"),
    (r"\pi (a^2 - b^2)", r"\pi a^2 - \pi b^{2}"),
    (r"\tan x + \sec x", r"\frac{1}{\cot x}"),
    (r"4x^2 + 9y^2 = 36", r"\frac{x^2}{9} + \frac{y^2}{4} = 1"),
    (r"\frac{3x}{4} - z^3", r"\frac{3}{4}x(y+1)(y-1)"),
    (r"-1 < x \leq 2", r"x > 3"),
    (r"a_1 + \theta^{n-1} - 2i", r"\theta^{n} + 45^\circ"),
    (r"\frac{7(\sin(\cos(n) + \sqrt{n}))}{7} + 3 - 3", r"(\frac{\cos(y)}{6!}) \cdot ((2^{-42})^{3} - ((x)^{3}))"),
    (r"((\frac{\frac{y}{y}}{x}) \cdot (|n| \cdot (n - (x))))(1 - 2^{-9})", r"\sqrt{|\frac{2}{9}| + \cos(10^{26})}"),
    (r"(\sqrt{x})^{4} + \sin((\frac{9}{13}) \cdot (y)) \cdot 10^{-18}", r"-(2 - (\ln(278))^{3}) \cdot 2^{11} + e"),
    (r"\frac{1}{\frac{1}{\ln(3) \cdot \sqrt[3]{5} + e^{-3}}}", r"(\log_2 3 + \arctan(7)) \cdot (1 - \binom{9}{4})"),
    (r"\sqrt{2} \cdot \frac{3^{-4} \cdot \sin\frac{\pi}{7}}{\sqrt{2}}", r"\int_0^1 x dx + \frac{\pi}{4}\cos\frac{\pi}{5}"),
    (r"\sin^4x+\cos^4x", r"1-\frac12\sin^2(2x)"),
    (r"\frac{x^2+3x-4}{(x-1)(x+2)^2}", r"\frac{x+4}{x^2+4x+4}"),
    (r"\left(\begin{pmatrix} \frac12 & \sqrt{3} \\ -1 & 2 \end{pmatrix}\right)", r"\begin{bmatrix} x^2 & -x \end{bmatrix}"),
)


def decimal_only(text: str, *_: Any, **__: Any) -> Any:
    """The exact value of a decimal literal, in place of sympy's parser, which evaluates text."""
    if not DECIMAL.fullmatch(text.strip()):
        raise ValueError(f"{len(text)} characters that are no decimal number; only LaTeX is parsed")
    return sympy.Rational(text.strip()) if "." in text else sympy.Integer(int(text))


def disarm() -> None:
    """Replace sympy's text parser and evaluator for the rest of this process."""
    import sympy.physics.units  # noqa: F401  (uses the evaluator while it loads)
    from sympy.parsing import sympy_parser

    sympy_parser.parse_expr = decimal_only
    sympy_parser.eval_expr = decimal_only


def work(pairs: Connection, same: Same) -> NoReturn:
    """Judge pairs until the other end closes; one that reaches its limit ends the process."""
    limit_process()
    for _ in range(PAIRS_PER_WORKER):
        try:
            calls, _, answer, gold = json.loads(pairs.recv_bytes())
        except EOFError:
            break
        allow_cpu_seconds()
        sympy.core.random.seed(0)
        pairs.send_bytes(json.dumps(counted(partial(same, answer, gold), calls)).encode())
    os._exit(0)


class Worker:
    """A forked process that judges one pair at a time."""

    def __init__(self, inherited: Connection, same: Same) -> None:
        self.pairs, theirs = Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            inherited.close()
            self.pairs.close()
            work(theirs, same)
        theirs.close()

    def judge(self, pair: bytes, parent: int) -> bytes | None:
        """The verdict and its calls; None if the worker ended over it, or `parent` did."""
        try:
            self.pairs.send_bytes(pair)
            while not self.pairs.poll(POLL_MILLISECONDS / 1000):
                if os.getppid() != parent:
                    return None
            return self.pairs.recv_bytes()
        except (EOFError, OSError):
            return None

    def end(self) -> bool:
        """Reap the process, or kill it if it still runs; whether it was killed from outside."""
        self.pairs.close()
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        return ended is not None and os.waitstatus_to_exitcode(status) == -signal.SIGKILL


class Server:
    """Judges pairs in a worker that they share, or those of one answer in a worker of their own."""

    def __init__(self, requests: Connection, parent: int, same: Same) -> None:
        self.requests, self.parent, self.same = requests, parent, same
        self.shared = self.new_worker()
        self.private: Worker | None = None
        self.judged = 0

    def new_worker(self) -> Worker:
        """A new worker; each is the same process before its first pair."""
        return Worker(self.requests, self.same)

    def answer(self, request: bytes) -> bytes:
        """The verdict and its calls; wrong, and one call too many, if the worker ended over it."""
        if not request:
            self.end_private()
            return DONE
        calls, private, *_ = json.loads(request)
        for _ in range(ATTEMPTS):
            if private and self.private is None:
                self.private = self.new_worker()
            verdict = (self.private or self.shared).judge(request, self.parent)
            if verdict is not None:
                return verdict
            killed = self.end_private() if private else self.renew_shared()
            if not killed:
                break
        return json.dumps((False, calls + 1)).encode()

    def end_private(self) -> bool:
        """End the worker of one answer, if there is one; whether it was killed from outside."""
        ended, self.private = self.private, None
        return ended is not None and ended.end()

    def renew_shared(self) -> bool:
        """Replace the shared worker; whether it was killed from outside."""
        killed = self.shared.end()
        self.shared = self.new_worker()
        self.judged = 0
        return killed

    def serve(self) -> None:
        """Answer pairs until the parent closes its end."""
        self.requests.send_bytes(READY)
        waiting = select.poll()
        waiting.register(self.requests.fileno(), select.POLLIN)
        while os.getppid() == self.parent:
            if not waiting.poll(POLL_MILLISECONDS):
                continue
            try:
                self.requests.send_bytes(self.answer(self.requests.recv_bytes()))
            except (EOFError, OSError):
                break
            self.judged += 1
            if self.judged == PAIRS_PER_WORKER:
                self.renew_shared()
        self.end_private()
        self.shared.end()


def main() -> None:
    """Load math-verify, then serve standard input for the process named by the first argument."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(ignored, signal.SIG_IGN)  # the parent decides; it closes its end or is gone
    logging.disable(logging.CRITICAL)
    sys.setrecursionlimit(600)  # a deep expression fails before the C stack does
    disarm()
    from efficient_rl.rewards.judge_exact import make_exact, predict_locally, same

    predict_locally()
    make_exact()
    refuse_giants()
    sympy.Dummy._base_dummy_index = 10**6  # random otherwise, and part of hashes
    for answer, gold in SEEN_FIRST:
        same(answer, gold)
    gc.freeze()  # the garbage collector of a worker would copy every page
    Server(Connection(os.dup(sys.stdin.fileno())), int(sys.argv[1]), same).serve()


if __name__ == "__main__":
    main()
