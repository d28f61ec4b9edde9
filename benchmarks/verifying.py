"""Verdicts a second on boxed numbers, on texts of GSM8K and through math-verify; what bombs and the hardest pairs cost.

python -m benchmarks.verifying --data ../shared/data
"""

import argparse
import gzip
import json
import os
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.machine import spread, spread_text, write_result
from efficient_rl.rewards.judge import JUDGES
from efficient_rl.rewards.verify import is_correct
from tests.hard_answers import MATHEMATICS, PAIRS

NUMBERS = 20_000
JUDGED = 1_000
BOXED = "We add {a} and {b}, which gives {c}, and nothing is left over. So the answer is \\boxed{{{c}}}."


def core_seconds() -> float:
    """CPU time of this process and of the judge's, so far."""
    known = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return time.process_time() + sum(times.user + times.system for times in known)


def rate(task: Callable[[], int], repeats: int) -> dict[str, dict[str, float]]:
    """Verdicts of `task`, which returns how many it gave, by second of the clock and by second of a core."""
    by_clock, by_core = [], []
    for _ in range(repeats):
        started, used = time.perf_counter(), core_seconds()
        verdicts = task()
        by_clock.append(verdicts / (time.perf_counter() - started))
        by_core.append(verdicts / (core_seconds() - used))
    return {"a_second": spread(by_clock), "a_core_second": spread(by_core)}


def boxed_numbers(offset: int) -> int:
    """Texts that differ, each with a number in a box, half of them right."""
    for index in range(offset, offset + NUMBERS):
        completion = BOXED.format(a=index, b=7 * index, c=f"{8 * index:,}")
        if is_correct(completion, "number", {"answer": str(8 * index + index % 2)}) == bool(index % 2):
            raise RuntimeError(f"a wrong verdict on {completion}")
    return NUMBERS


def through_judge(problems: Sequence[dict[str, Any]]) -> int:
    """The gold answers of GSM8K against themselves and their neighbours in math-verify itself, past all our shortcuts."""
    for index, problem in enumerate(problems[:JUDGED]):
        wanted = str(int(problem["answer"].replace(",", "")) + index % 2)
        if JUDGES.same(problem["answer"], wanted)[0] == bool(index % 2):
            raise RuntimeError(f"a wrong verdict on {problem['id']}")
    return min(JUDGED, len(problems))


def gold_answers(problems: Sequence[dict[str, Any]], check: str) -> int:
    """How many gold answers are right against themselves, written as a completion."""
    return sum(
        is_correct(
            f"{problem.get('solution', '')}\nSo \\boxed{{{problem['answer']}}}.", check, {"answer": problem["answer"]}
        )
        for problem in problems
    )


def cost_of_pairs() -> dict[str, Any]:
    """Wall seconds of every hard pair, each kind's slowest first."""
    seconds: dict[str, float] = {}
    wrong = []
    for pair in PAIRS:
        started = time.perf_counter()
        verdict = is_correct(pair.completion, pair.check, {"answer": pair.gold}, pair.place)
        seconds[pair.kind] = max(seconds.get(pair.kind, 0.0), time.perf_counter() - started)
        if verdict is not pair.right:
            wrong.append([pair.completion[:80], pair.gold[:80]])
    slowest = dict(sorted(seconds.items(), key=lambda found: -found[1]))
    return {"pairs": len(PAIRS), "wrong": wrong, "slowest_seconds_by_kind": slowest}


def cost_of_bombs(repeats: int) -> dict[str, Any]:
    """Wall seconds of each bomb and of the verdict that follows it; Python calls past all filters."""
    bombs, after, calls = [], [], []
    for _ in range(repeats):
        for answer, gold, _ in MATHEMATICS["bombs"]:
            started = time.perf_counter()
            is_correct(f"<answer>{answer}</answer>", "math", {"answer": gold})
            ended = time.perf_counter()
            JUDGES.same("1+x", "x+1")
            bombs.append(ended - started)
            after.append(time.perf_counter() - ended)
            calls.append(float(JUDGES.same(answer, gold)[1]))
    return {
        "bomb_seconds": spread(bombs),
        "bomb_calls_without_filters": spread(calls),
        "next_verdict_seconds": spread(after),
    }


def rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def measure(data: Path, repeats: int) -> dict[str, Any]:
    """Everything that this file measures."""
    gsm8k, svamp = rows(data / "gsm8k" / "test.jsonl.gz"), rows(data / "svamp" / "all.jsonl.gz")
    offsets = iter(range(0, NUMBERS * repeats, NUMBERS))
    numbers = rate(lambda: boxed_numbers(next(offsets)), repeats)
    started = time.perf_counter()
    JUDGES.same("1", "1")
    start_seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "repeats": repeats,
        "load_average_before": os.getloadavg()[0],
        "boxed_numbers": numbers,
        "judge_start_seconds": start_seconds,
        "judge_memory_bytes": sum(process.memory_info().rss for process in psutil.Process().children(recursive=True)),
        "gsm8k_through_math_verify": rate(lambda: through_judge(gsm8k), repeats),
        "gsm8k_texts": rate(lambda: gold_answers(gsm8k, "math"), repeats),
        "gsm8k_right": [gold_answers(gsm8k, "number"), gold_answers(gsm8k, "math"), len(gsm8k)],
        "svamp_right": [gold_answers(svamp, "number"), len(svamp)],
        "hard_pairs": cost_of_pairs(),
        **cost_of_bombs(repeats),
        "own_memory_bytes": used.ru_maxrss * 1024,
    }


def table(measured: dict[str, Any]) -> Table:
    shown = Table(title="the verifier, one core", title_justify="left")
    for column in ("what", "median (min..max)"):
        shown.add_column(column, justify="left" if column == "what" else "right")
    for name in ("boxed_numbers", "gsm8k_texts", "gsm8k_through_math_verify"):
        for unit, found in measured[name].items():
            shown.add_row(f"{name} {unit}".replace("_", " "), spread_text(found, 0))
    for name in ("bomb_seconds", "bomb_calls_without_filters", "next_verdict_seconds"):
        shown.add_row(name.replace("_", " "), spread_text(measured[name], 3))
    slowest = next(iter(measured["hard_pairs"]["slowest_seconds_by_kind"].items()))
    shown.add_row(f"slowest hard pair ({slowest[0]}), seconds", f"{slowest[1]:.3f}")
    return shown


def main() -> None:
    """Measure, write the JSON, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EFFICIENT_RL_DATA", "../shared/data")))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "verifying.json")
    arguments = parser.parse_args()
    measured = measure(arguments.data, arguments.repeats)
    write_result(arguments.output, str(__doc__), measured)
    Console().print(table(measured))


if __name__ == "__main__":
    main()
