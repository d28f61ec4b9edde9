"""Whether verdicts depend on load or history: every hard pair in new and old workers, beside busy processes.

python -m benchmarks.stability
"""

import argparse
import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from benchmarks.machine import write_result
from efficient_rl.rewards.judge import JUDGES
from efficient_rl.rewards.verify import is_correct
from tests.hard_answers import PAIRS, Hard

BUSY = "import os\nos.nice({nice})\nwhile True: pass"


@contextmanager
def busy_processes(count: int, nice: int) -> Iterator[None]:
    """That many processes that do nothing else than use the processor."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY.format(nice=nice)]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def judge_seconds() -> float:
    """CPU seconds of the judge's server and its workers so far, to a hundredth."""
    if JUDGES.judge is None:
        return 0.0
    server = psutil.Process(JUDGES.judge.process.pid)
    times = [server.cpu_times(), *(worker.cpu_times() for worker in server.children())]
    reaped = times[0].children_user + times[0].children_system
    return reaped + sum(each.user + each.system for each in times)


def new_worker() -> None:
    """End the worker that judged the pairs before; the server forks another one."""
    if JUDGES.judge is not None:
        for worker in psutil.Process(JUDGES.judge.process.pid).children():
            worker.kill()


def repetition(number: int, verdicts: dict[Hard, set[bool]], seconds: dict[Hard, float]) -> None:
    """Every pair once, in an order of its own; every second repetition gives each pair a new worker."""
    pairs = list(PAIRS)
    random.Random(number).shuffle(pairs)
    for pair in pairs:
        asked = JUDGES.asked
        if number % 2:
            new_worker()
        before = judge_seconds()
        verdicts[pair].add(is_correct(pair.completion, pair.check, {"answer": pair.gold}, pair.place))
        if JUDGES.asked > asked:
            seconds[pair] = max(seconds[pair], judge_seconds() - before)


def measure(repetitions: int, busy: int, nice: int) -> dict[str, Any]:
    """Everything that this file measures."""
    verdicts: dict[Hard, set[bool]] = defaultdict(set)
    seconds: dict[Hard, float] = defaultdict(float)
    JUDGES.same("1", "1")  # its start is no pair's time
    with busy_processes(busy, nice):
        started = time.monotonic()
        for number in range(repetitions):
            if number == repetitions // 2:
                JUDGES.close()
                JUDGES.same("1", "1")
            repetition(number, verdicts, seconds)
    slowest = max(seconds, key=lambda pair: seconds[pair])
    return {
        "load_average_after": os.getloadavg()[0],
        "busy_processes": busy,
        "nice": nice,
        "pairs": len(PAIRS),
        "pairs_that_reach_sympy": len(seconds),
        "repetitions": repetitions,
        "two_verdicts": [[pair.completion[:80], pair.gold[:80]] for pair, found in verdicts.items() if len(found) > 1],
        "wrong_verdicts": sum(found != {pair.right} for pair, found in verdicts.items()),
        "slowest_cpu_seconds": seconds[slowest],
        "slowest": [slowest.completion[:80], slowest.gold[:80]],
        "wall_seconds": time.monotonic() - started,
    }


def main() -> None:
    """Measure, write the JSON, print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--busy", type=int, default=4)
    parser.add_argument("--nice", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "stability.json")
    arguments = parser.parse_args()
    measured = measure(arguments.repetitions, arguments.busy, arguments.nice)
    write_result(arguments.output, str(__doc__), measured)
    Console().print(measured, highlight=False)


if __name__ == "__main__":
    main()
