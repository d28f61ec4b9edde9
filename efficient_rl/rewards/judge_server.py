"""The math-verify server: relays pairs to a bounded worker, and replaces workers that hang.

Started by file, alone, by `efficient_rl.rewards.judge`; it imports no more than math-verify, and
its worker is forked from it, so that a new one costs milliseconds. Model text reaches sympy only as
parsed LaTeX: sympy's own text parser, which evaluates Python, is replaced before the first pair by
one that knows decimal numbers only.
"""

import ctypes
import json
import logging
import os
import re
import resource
import select
import signal
import sys
import time
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NoReturn

PAIR_SECONDS = 0.18  # of CPU, for parsing and comparing both expressions of a pair
WALL_FACTOR = 50.0  # how many times longer it may take by the clock: verdicts must not depend on what else runs
PARENT_POLL_MILLISECONDS = 500
MEMORY_BYTES = 1 << 30  # of address space
PAIRS_PER_WORKER = 20_000
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
DECIMAL = re.compile(r"\d{1,400}(?:\.\d{0,400})?|\.\d{1,400}", re.ASCII)
READY, WRONG, RIGHT = b"ready", b"0", b"1"
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
)


def decimal_only(text: str, *_: Any, **__: Any) -> Any:
    """The exact value of a decimal literal, in place of sympy's parser, which evaluates text."""
    import sympy

    if not DECIMAL.fullmatch(text.strip()):
        raise ValueError(f"{len(text)} characters that are no decimal number; only LaTeX is parsed")
    return sympy.Rational(text.strip()) if "." in text else sympy.Integer(int(text))


def disarm() -> None:
    """Replace sympy's text parser and evaluator for the rest of this process."""
    import sympy.physics.units  # noqa: F401  (uses the evaluator while it loads)
    from sympy.parsing import sympy_parser

    sympy_parser.parse_expr = decimal_only
    sympy_parser.eval_expr = decimal_only


def same(answer: str, gold: str) -> bool:
    """Whether math-verify finds two LaTeX expressions equal; decimals are exact, never roots.

    Its own removal of units is off: it takes `2t` for 2.
    """
    from math_verify import LatexExtractionConfig, parse, verify

    form = replace(LatexExtractionConfig().normalization_config, units=False)
    read = [LatexExtractionConfig(boxed_match_priority=0, normalization_config=form)]
    parsed = [
        parse(rf"\boxed{{{text}}}", read, fallback_mode="no_fallback", parsing_timeout=None) for text in (gold, answer)
    ]
    if not all(parsed):
        return False
    wanted, given = parsed[0][0], parsed[1][0]
    if proportional(wanted, given):
        return True
    return bool(verify(wanted, given, float_rounding=10, timeout_seconds=None))


def proportional(gold: Any, answer: Any) -> bool:
    """Whether two equations are the same but for a factor, far sooner than by solving them."""
    import sympy

    if not (isinstance(gold, sympy.Eq) and isinstance(answer, sympy.Eq)):
        return False
    difference = sympy.expand(gold.lhs - gold.rhs)
    if difference == 0:
        return False
    factor = sympy.cancel(sympy.expand(answer.lhs - answer.rhs) / difference)
    return bool(factor.is_number) and factor != 0


def limit() -> None:
    """End with the parent, write no files, use no more memory than MEMORY_BYTES."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for what, bound in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        hard = resource.getrlimit(what)[1]
        allowed = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(what, (allowed, allowed))


def work(pairs: Connection) -> NoReturn:
    """Judge pairs until the other end closes; a second of CPU on one pair ends the process."""
    limit()
    for _ in range(PAIRS_PER_WORKER):
        try:
            _, answer, gold = json.loads(pairs.recv_bytes())
        except EOFError:
            break
        used = resource.getrusage(resource.RUSAGE_SELF)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 2, hard))
        pairs.send_bytes(RIGHT if same(answer, gold) else WRONG)
    os._exit(0)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process from its own clock (Linux); elsewhere the time of day."""
    return time.clock_gettime((~pid << 3) | 2) if sys.platform == "linux" else time.monotonic()


class Worker:
    """A forked process that judges one pair at a time."""

    def __init__(self, inherited: Connection) -> None:
        self.pairs, theirs = Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            inherited.close()
            self.pairs.close()
            work(theirs)
        theirs.close()

    def judge(self, pair: bytes, seconds: float) -> tuple[bytes | None, float]:
        """The verdict and its CPU seconds; None if the worker must be replaced."""
        began, until = cpu_seconds(self.pid), time.monotonic() + WALL_FACTOR * seconds
        spent = 0.0
        try:
            self.pairs.send_bytes(pair)
            while not self.pairs.poll(max(0.001, seconds - spent)):
                spent = cpu_seconds(self.pid) - began
                if spent >= seconds or time.monotonic() >= until:
                    return None, spent
            return self.pairs.recv_bytes(), cpu_seconds(self.pid) - began
        except (EOFError, OSError):
            return None, seconds

    def end(self) -> None:
        """Kill the process, if it still runs, and reap it."""
        self.pairs.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def serve(requests: Connection, parent: int) -> None:
    """Answer pairs until the parent closes its end; a pair without an answer in time is wrong."""
    worker = Worker(requests)
    requests.send_bytes(READY)
    waiting = select.poll()
    waiting.register(requests.fileno(), select.POLLIN)
    judged = 0
    while os.getppid() == parent:
        if not waiting.poll(PARENT_POLL_MILLISECONDS):
            continue
        try:
            pair = requests.recv_bytes()
            verdict, spent = worker.judge(pair, json.loads(pair)[0])
            requests.send_bytes(json.dumps((verdict == RIGHT, spent)).encode())
        except (EOFError, OSError):
            break
        judged += 1
        if verdict is None or judged % PAIRS_PER_WORKER == 0:
            worker.end()
            worker = Worker(requests)
    worker.end()


def main() -> None:
    """Load math-verify, then serve standard input for the process named by the first argument."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(ignored, signal.SIG_IGN)  # the parent decides; it closes its end or is gone
    logging.disable(logging.CRITICAL)
    sys.setrecursionlimit(600)  # a deep expression fails before the C stack does
    disarm()
    for answer, gold in SEEN_FIRST:
        same(answer, gold)
    serve(Connection(os.dup(sys.stdin.fileno())), int(sys.argv[1]))


if __name__ == "__main__":
    main()
