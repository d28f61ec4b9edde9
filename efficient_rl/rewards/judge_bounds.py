"""What bounds the judging of an answer: calls and sizes; far behind them CPU time and memory."""

import cProfile
import ctypes
import math
import operator
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import Any

ANSWER_CALLS = 1_000_000  # of Python functions, for all pairs of an answer, in a process of its own
SHARED_CALLS = ANSWER_CALLS // 4  # in a process that judged others before, which saves calls
LEARNING = 8  # times as many calls may be made where the parser meets a new kind of formula
OVER = 75  # the exit status of a worker that reached its limit of calls
CPU_SECONDS = 20  # for what no count sees; nothing that was measured comes near it
MEMORY_BYTES = 1 << 30  # of address space
MAX_BITS = 1 << 15  # of a power of integers
MAX_EXPONENT = 1 << 17  # of 2, for the value of any part of an expression
MAX_ARGUMENT = 1000  # of factorials and their kin
MAX_TERMS = 5000  # of an expanded power of a sum
READY, DONE = b"ready", b"done"  # what a server says first, and when an answer is judged
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
_counting: list[tuple[cProfile.Profile, cProfile.Profile]] = []  # of the pair that is judged: calls, learning


def counted(judge: Callable[[], bool], calls: int) -> tuple[bool, int]:
    """What `judge` returns, and how many Python calls it made; the process ends at the limit.

    The count is the same on every machine, however busy, to a thousandth. It is made in C: the
    profiler asks its timer at each call and return, and the timer is an iterator that ends the
    process. What is `learning` has a count of its own, LEARNING times as long.
    """
    left, profile = _counter(calls)
    learnt = _counter(LEARNING * calls)[1]
    _counting.append((profile, learnt))
    profile.enable()
    try:
        verdict = judge()
    finally:
        profile.disable()
        _counting.pop()
    return verdict, calls - operator.length_hint(left) // 2


def _counter(calls: int) -> tuple[Any, cProfile.Profile]:
    left = repeat(0, 2 * calls)
    return left, cProfile.Profile(chain(left, _over()).__next__, 1.0, subcalls=False, builtins=False)


def _over() -> Iterator[int]:
    os._exit(OVER)
    yield 0


def learning(work: Callable[..., Any]) -> Callable[..., Any]:
    """`work`, which a process does once for many pairs: `counted` leaves its calls out."""

    def learn(*arguments: Any) -> Any:
        if not _counting:
            return work(*arguments)
        profile, learnt = _counting[-1]
        profile.disable()
        learnt.enable()
        try:
            return work(*arguments)
        finally:
            learnt.disable()
            profile.enable()

    return learn


def limit_process() -> None:
    """End with the parent, write no files, use no more memory than MEMORY_BYTES."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for what, bound in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        hard = resource.getrlimit(what)[1]
        allowed = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(what, (allowed, allowed))


def allow_cpu_seconds() -> None:
    """Let this process use CPU_SECONDS from now on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = int(used.ru_utime + used.ru_stime) + 1 + CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def refuse_giants() -> None:
    """Make sympy raise ValueError before work without Python calls: in C, or in long loops."""
    import sympy
    from sympy.core import evalf
    from sympy.functions.combinatorial import factorials

    for number in (sympy.Integer, sympy.Rational):
        number._eval_power = _bounded_power(number._eval_power)
    sympy.Pow._eval_expand_multinomial = _bounded_expansion(sympy.Pow._eval_expand_multinomial)
    kin = (
        sympy.gamma,
        factorials.factorial,
        factorials.factorial2,
        factorials.subfactorial,
        factorials.binomial,
        factorials.RisingFactorial,
        factorials.FallingFactorial,
    )
    for function in kin:
        function.eval = classmethod(_bounded_arguments(function.eval.__func__))
    evalf.evalf = _bounded_value(evalf.evalf)


def _bounded_power(power: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(base: Any, exponent: Any) -> Any:
        bits = max(abs(base.p) - 1, base.q - 1).bit_length()
        if exponent.is_Rational and bits * abs(exponent.p) > MAX_BITS * exponent.q:
            raise ValueError(f"a power of more than {MAX_BITS} bits")
        return power(base, exponent)

    return bounded


def _bounded_expansion(expand: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(power: Any, **hints: Any) -> Any:
        base, exponent = power.args
        if base.is_Add and exponent.is_Rational:
            times = abs(int(exponent))
            if math.comb(times + len(base.args) - 1, len(base.args) - 1) > MAX_TERMS:
                raise ValueError(f"a power of a sum with more than {MAX_TERMS} terms")
        return expand(power, **hints)

    return bounded


def _bounded_arguments(evaluate: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(function: Any, *arguments: Any) -> Any:
        for argument in arguments:
            if argument.is_Rational and abs(argument) > MAX_ARGUMENT:
                raise ValueError(f"a factorial of more than {MAX_ARGUMENT}")
        return evaluate(function, *arguments)

    return bounded


def _bounded_value(evaluate: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(*arguments: Any) -> Any:
        found = evaluate(*arguments)
        for part in found[:2] if isinstance(found, tuple) else ():
            if part and abs(part[2] + part[3]) > MAX_EXPONENT:  # of the number's last and its first bit
                raise ValueError(f"a value beyond 2^{MAX_EXPONENT}")
        return found

    return bounded
