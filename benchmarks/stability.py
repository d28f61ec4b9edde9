"""Whether verdicts depend on load or history: every hard pair in new and old workers, beside busy processes.

python -m benchmarks.stability
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from benchmarks.machine import write_result
from efficient_rl.rewards.judge import JUDGES
from efficient_rl.rewards.verify import is_correct
from tests.hard_answers import PAIRS

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


def repetition(number: int) -> dict[str, Any]:
    """Every pair once, in an order of its own; every second repetition gives each pair a new worker."""
    order = list(range(len(PAIRS)))
    random.Random(number).shuffle(order)
    verdicts, seconds = [False] * len(PAIRS), {}
    for index in order:
        pair, asked = PAIRS[index], JUDGES.asked
        if number % 2:
            new_worker()
        before = judge_seconds()
        verdicts[index] = is_correct(pair.completion, pair.check, {"answer": pair.gold}, pair.place)
        if JUDGES.asked > asked:
            seconds[index] = judge_seconds() - before
    return {"verdicts": verdicts, "seconds": seconds, "load_average": os.getloadavg()[0]}


def repeat(repetitions: int, busy: int, nice: int, seconds: float, log: Path) -> list[dict[str, Any]]:
    """The repetitions of the log, and more until there are so many or the time is over."""
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    started = time.monotonic()
    JUDGES.same("1", "1")  # its start is no pair's time
    with busy_processes(busy, nice):
        while len(done) < repetitions and time.monotonic() - started < seconds:
            with log.open("a") as lines:
                lines.write(json.dumps(repetition(len(done))) + "\n")
            done.append(json.loads(log.read_text().splitlines()[-1]))
    return done


def summary(done: list[dict[str, Any]]) -> dict[str, Any]:
    """Pairs with two verdicts, and the slowest of all."""
    found = list(zip(*(row["verdicts"] for row in done), strict=True))
    slowest: dict[str, float] = {}
    for row in done:
        for index, seconds in row["seconds"].items():
            slowest[index] = max(slowest.get(index, 0.0), seconds)
    worst = max(slowest, key=lambda index: slowest[index])
    return {
        "load_averages": [row["load_average"] for row in done],
        "pairs": len(PAIRS),
        "pairs_that_reach_sympy": len(slowest),
        "repetitions": len(done),
        "two_verdicts": [PAIRS[index].completion[:80] for index, verdicts in enumerate(found) if len(set(verdicts)) > 1],
        "wrong_verdicts": sum(pair.right != verdicts[0] for pair, verdicts in zip(PAIRS, found, strict=True)),
        "slowest_cpu_seconds": slowest[worst],
        "slowest": [PAIRS[int(worst)].completion[:80], PAIRS[int(worst)].gold[:80]],
        "median_of_slowest_cpu_seconds": statistics.median(slowest.values()),
    }


def main() -> None:
    """Measure, write the JSON, print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--busy", type=int, default=4)
    parser.add_argument("--nice", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after that time; the same command goes on")
    parser.add_argument("--log", type=Path, default=Path("stability.jsonl"), help="a line for each repetition")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "stability.json")
    arguments = parser.parse_args()
    done = repeat(arguments.repetitions, arguments.busy, arguments.nice, arguments.seconds, arguments.log)
    measured = {"busy_processes": arguments.busy, "nice_of_busy_processes": arguments.nice, **summary(done)}
    write_result(arguments.output, str(__doc__), measured)
    Console().print(measured, highlight=False)


if __name__ == "__main__":
    main()
