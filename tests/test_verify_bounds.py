"""The verifier costs little on bombs, runs no model text, leaves no process behind, and judges alike everywhere."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from efficient_rl.rewards.judge import JUDGES
from efficient_rl.rewards.judge_bounds import ANSWER_CALLS, CPU_SECONDS, SHARED_CALLS
from efficient_rl.rewards.notation import MAX_FORMULA_CHARACTERS, judgeable
from efficient_rl.rewards.verify import is_correct, math
from tests.conftest import cpu_seconds, environment
from tests.fuzz_formulas import fuzz as fuzz_formulas
from tests.fuzz_verify import fuzz
from tests.hard_answers import MATHEMATICS

SECONDS_TO_END = 10.0
PAIRS_OF_HISTORY = [("\\sin(2x)", "2\\sin x\\cos x"), ("x^3 - 1", "(x-1)(x^2+x+1)"), ("\\frac{x}{2}", "0.5x")]
PAIRS = [
    ("\\sqrt{12}", "2\\sqrt{3}", True),
    ("x^2+2x+1", "(x+1)^2", True),
    ("\\sqrt{2}", "\\sqrt{3}", False),
    ("\\frac{\\frac{" * 9 + "1" + "}{2}}{3}" * 9, "x", False),
    ("x+1", "1+x", True),
]
JUDGE_AND_WAIT = """
import os, signal, sys, time
from efficient_rl.rewards.judge import JUDGES
from efficient_rl.rewards.verify import math
assert math("1+x", {"answer": "x+1"})
print(JUDGES.judge.process.pid, flush=True)
"""
EVERYWHERE = """
import json, multiprocessing, os, sys
from concurrent.futures import ThreadPoolExecutor
from efficient_rl.rewards.judge import JUDGES
from efficient_rl.rewards.verify import math

def verdicts(pairs):
    return [math(answer, {"answer": gold}) for answer, gold, _ in pairs] + [JUDGES.judge.process.pid]

if __name__ == "__main__":
    pairs = json.loads(sys.argv[1])
    found = {"here": verdicts(pairs)}
    with ThreadPoolExecutor(4) as threads:
        found["threads"], *others = threads.map(verdicts, [pairs] * 4)
        assert all(other == found["threads"] for other in others)
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            found[method] = pool.apply(verdicts, (pairs,))
    found["here again"] = verdicts(pairs)
    print(json.dumps(found))
"""


def python(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment(**changes), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def ended(pids: list[int]) -> bool:
    """Whether all these processes end soon."""
    until = time.monotonic() + SECONDS_TO_END
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(EVERYWHERE)
    return path


@pytest.mark.slow
def test_verdicts_are_the_same_in_threads_and_in_forked_and_spawned_processes(script: Path) -> None:
    done = python(str(script), json.dumps(PAIRS))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"here", "threads", "fork", "spawn", "forkserver", "here again"}
    for where, (*verdicts, _) in found.items():
        assert verdicts == [right for _, _, right in PAIRS], where
    judges = {where: judge for where, (*_, judge) in found.items()}
    assert judges["here"] == judges["threads"] == judges["here again"]
    assert len(set(judges.values())) == 4, "a process has a judge of its own"


@pytest.mark.slow
def test_a_judge_outlives_the_thread_that_started_it() -> None:
    JUDGES.close()
    thread = threading.Thread(target=lambda: math("1+x", {"answer": "x+1"}))
    thread.start()
    thread.join()
    assert JUDGES.judge is not None
    started_by_thread = JUDGES.judge.process.pid
    time.sleep(1.0)
    assert math("1+x", {"answer": "x+1"})
    assert JUDGES.judge.process.pid == started_by_thread


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param("", marks=pytest.mark.slow),
        pytest.param("sys.exit(3)", marks=pytest.mark.slow),
        pytest.param("raise ValueError('planned')", marks=pytest.mark.slow),
        pytest.param("os._exit(0)", marks=pytest.mark.slow),
        "os.kill(os.getpid(), signal.SIGKILL)",
    ],
)
def test_no_process_outlives_the_one_that_judged(ending: str) -> None:
    script = f"{JUDGE_AND_WAIT}\nimport psutil\nprint(*[c.pid for c in psutil.Process().children(recursive=True)])\n"
    done = python("-c", f"{script}sys.stdout.flush()\n{ending}")
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(set(pids)) == 2, done.stderr  # the server and its worker
    assert ended(pids)


@pytest.mark.slow
@pytest.mark.parametrize(
    "child",
    [
        "if os.fork() == 0:\n    time.sleep(20)",
        "import subprocess\nsubprocess.Popen(['sleep', '20'], pass_fds=[JUDGES.judge.connection.fileno()])",
    ],
)
def test_a_server_ends_with_its_process_though_a_child_that_inherited_its_connection_lives_on(child: str) -> None:
    script = f"{JUDGE_AND_WAIT}\n{child}\ntime.sleep(2)\nos.kill(os.getpid(), signal.SIGKILL)"
    process = subprocess.Popen([sys.executable, "-c", script], env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    server = psutil.Process(int(process.stdout.readline()))
    workers = [child.pid for child in server.children()]
    group = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    try:
        assert ended([server.pid, *workers])
    finally:
        process.stdout.close()
        process.wait(SECONDS_TO_END)
        for pid in group:
            if psutil.pid_exists(pid):
                os.kill(pid, signal.SIGKILL)


def test_numbers_choices_words_and_plain_lists_start_no_process() -> None:
    script = (
        "import psutil\nfrom efficient_rl.rewards.judge import JUDGES\nfrom efficient_rl.rewards.verify import is_correct\n"
        "assert is_correct('\\\\boxed{1,234}', 'number', {'answer': '1234'})\n"
        "assert is_correct('\\\\boxed{\\\\frac12}', 'math', {'answer': '0.5'})\n"
        "assert not is_correct('\\\\boxed{\\\\sqrt{25}}', 'math', {'answer': '5'})\n"
        "assert is_correct('\\\\boxed{2, 1}', 'math', {'answer': '1, 2'})\n"
        "assert is_correct('\\\\boxed{Even}', 'math', {'answer': '\\\\text{even}'})\n"
        "assert is_correct('\\\\boxed{B}', 'choice', {'answer': 'B'})\n"
        "assert JUDGES.judge is None\nassert not psutil.Process().children()"
    )
    done = python("-c", script)
    assert done.returncode == 0, done.stderr


def test_a_killed_server_or_worker_is_replaced_and_costs_no_right_verdict() -> None:
    assert math("1+x", {"answer": "x+1"})
    assert JUDGES.judge is not None
    before = JUDGES.judge.process.pid
    os.kill(before, signal.SIGKILL)
    assert math("2+x", {"answer": "x+2"})
    assert JUDGES.judge.process.pid != before
    worker = psutil.Process(JUDGES.judge.process.pid).children()[0]
    assert not math("x^{x^{x^{x^{x}}}}", {"answer": "y"})
    assert math("3+x", {"answer": "x+3"})
    assert ended([worker.pid])


@pytest.mark.parametrize(
    "bomb",
    [
        "9^{9^{9^{9}}}",
        "10^{999999999}",
        "999999!",
        "(a+b+c+d)^{300}",
        "\\binom{9999999}{4999999}",
        pytest.param("(" * 900 + "1" + ")" * 900, marks=pytest.mark.slow),
    ],
)
def test_what_no_filter_would_catch_reaches_a_bound_and_not_the_far_one(bomb: str) -> None:
    JUDGES.same("1", "1")
    assert JUDGES.judge is not None
    server = JUDGES.judge.process.pid
    before = cpu_seconds(server)
    assert not JUDGES.same(bomb, "x", SHARED_CALLS)[0]
    assert not alone(bomb, "x")[0]
    assert cpu_seconds(server) - before < 0.75 * CPU_SECONDS
    assert JUDGES.same("1+x", "x+1")[0]


HEAVY = [("x^{x^{x}} + 1", "x"), ("4x^2+9y^2=35", "4x^2+9y^2=36"), ("\\sin^4x+\\cos^4x", "1-\\frac12\\sin^2(2x)")]


def alone(answer: str, gold: str, calls: int = ANSWER_CALLS) -> tuple[bool, int]:
    with JUDGES.alone():
        return JUDGES.same(answer, gold, calls)


@pytest.mark.slow
def test_the_calls_of_a_pair_judged_alone_do_not_depend_on_what_came_before() -> None:
    made = [alone(*pair) for pair in HEAVY]
    for answer, gold in [*PAIRS_OF_HISTORY, *HEAVY]:
        JUDGES.same(answer, gold)
    assert [alone(*pair) for pair in HEAVY] == made
    JUDGES.close()
    for pair, (right, calls) in zip(reversed(HEAVY), reversed(made), strict=True):
        again, others = alone(*pair)
        assert again is right
        assert others == pytest.approx(calls, rel=0.01)  # addresses order a few sets of sympy's


def test_reading_a_new_kind_of_formula_costs_no_calls() -> None:
    value = "\\sin\\frac{\\pi}{3} \\cdot \\frac{1}{2!} + \\frac{1}{2!} \\cdot \\ln(2) \\cdot e^{-1}"
    pair = (f"({value}) + \\pi - \\pi", value)
    JUDGES.close()
    right, calls = alone(*pair)
    assert right
    assert calls < SHARED_CALLS, "the parser makes a million on the way"


@pytest.mark.slow
def test_a_long_formula_that_no_worker_has_read_is_right_at_once_and_beyond_the_bound_never() -> None:
    term = "\\frac{{\\sqrt{{{0}}} x^{{{0}}}}}{{{0} + \\sin({0}y)}} - \\left|\\frac{{x-{0}}}{{\\ln {0}}}\\right|"
    terms = [term.format(number) for number in range(2, 20)]
    for count, right in ((5, True), (7, False)):
        JUDGES.close()
        answer, gold = " + ".join(terms[:count]), " + ".join(reversed(terms[:count]))
        assert (len(answer) > MAX_FORMULA_CHARACTERS) is not right
        assert math(answer, {"answer": gold}) is right


def test_a_pair_over_its_calls_is_wrong_in_every_worker_and_right_with_one_more() -> None:
    answer, gold = HEAVY[-1]
    right, calls = alone(answer, gold)
    assert right
    assert calls < ANSWER_CALLS / 4, "an answer that people write needs no more"
    for _ in range(3):
        assert alone(answer, gold, calls) == (True, calls)
        assert alone(answer, gold, calls - 1) == (False, calls)


def test_an_answer_that_needs_more_than_a_shared_worker_may_gets_its_verdict_alone() -> None:
    answer, gold = "4x^2+9y^2=35", "4x^2+9y^2=36"
    assert SHARED_CALLS < alone(answer, gold)[1] < ANSWER_CALLS
    asked = JUDGES.asked
    assert not math(answer, {"answer": gold})
    assert JUDGES.asked == asked + 2


@pytest.mark.slow
def test_all_pairs_of_a_long_list_are_judged_in_any_order() -> None:
    roots = [f"\\sqrt{{{8 * number}}}" for number in range(3, 13)]
    simplified = [f"2\\sqrt{{{2 * number}}}" for number in range(12, 2, -1)]
    assert math(", ".join(simplified), {"answer": ", ".join(roots)})
    JUDGES.close()
    assert math(", ".join(simplified), {"answer": ", ".join(roots)})


@pytest.mark.parametrize("fresh", [True, False])
def test_hard_pairs_have_one_verdict_in_new_and_in_old_workers(fresh: bool) -> None:
    for answer, gold, right in [*MATHEMATICS["polynomials"], *MATHEMATICS["matrices"]]:
        for _ in range(2):
            if fresh and JUDGES.judge is not None:
                psutil.Process(JUDGES.judge.process.pid).children()[0].kill()
            assert math(answer, {"answer": gold}) is right, (answer, gold)


@pytest.mark.parametrize(
    "bomb",
    ["9^9^9", "9^{9^{9}}", "10^{99999}", "100000!", "3!!", "\\binom{1000000}{2}", "(" * 30 + ")" * 30, "x^" * 30, "9" * 60],
)
def test_known_bombs_never_reach_the_judge(bomb: str) -> None:
    assert not judgeable(bomb, "x")
    assert judgeable("x^2 + 9!", "x")


def test_the_judge_has_bounded_memory_and_cannot_write_files() -> None:
    JUDGES.same("1", "1")
    assert JUDGES.judge is not None
    (worker,) = psutil.Process(JUDGES.judge.process.pid).children()
    limits = {
        line[:26].strip(): line[26:].split()[0] for line in Path(f"/proc/{worker.pid}/limits").read_text().splitlines()[1:]
    }
    assert int(limits["Max address space"]) <= 1 << 30
    assert limits["Max file size"] == "0"


@pytest.mark.parametrize(
    "attack",
    [
        "__import__('os').mkdir('{canary}')",
        "().__class__.__base__.__subclasses__()",
        "\\operatorname{{__import__('os').mkdir('{canary}')}}(1)",
        "\\text{{__import__('os').mkdir('{canary}')}}",
        "x_{{__import__('os').mkdir('{canary}')}}",
        "1 if __import__('os').mkdir('{canary}') else 2",
        "\\write18{{mkdir {canary}}}",
    ],
)
def test_no_text_is_executed_even_behind_all_filters(attack: str, tmp_path: Path) -> None:
    canary = tmp_path / "executed"
    text = attack.format(canary=canary)
    assert JUDGES.same(text, "x")[0] is False
    for check in ("number", "math", "countdown", "choice"):
        gold = {"numbers": [1], "target": 1} if check == "countdown" else {"answer": "y + 1"}
        assert is_correct(f"<answer>{text}</answer>", check, gold) is False
    assert not canary.exists()


def test_the_text_parser_of_sympy_evaluates_nothing_in_the_judge(tmp_path: Path) -> None:
    canary = tmp_path / "executed"
    script = (
        "from efficient_rl.rewards.judge_server import disarm\ndisarm()\nimport sympy\n"
        "from sympy.parsing.sympy_parser import parse_expr\n"
        "assert sympy.Number('1.5') == sympy.Rational(3, 2) and sympy.Number('18') == 18\n"
        f"text = \"__import__('os').mkdir('{canary}')\"\n"
        "for read in (sympy.sympify, sympy.S, parse_expr, sympy.Symbol('x').subs):\n"
        "    try:\n        read(text) if read is not sympy.Symbol('x').subs else read('x', text)\n"
        "    except (ValueError, TypeError, sympy.SympifyError):\n        continue\n"
    )
    done = python("-c", script)
    assert done.returncode == 0, done.stderr
    assert not canary.exists()


def test_without_math_verify_the_error_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "math_verify.py").write_text("raise ImportError('not here')")
    path = (
        os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]]) if environment().get("PYTHONPATH") else str(tmp_path)
    )
    done = python("-c", "from efficient_rl.rewards.verify import math\nmath('1+x', {'answer': 'x+1'})", PYTHONPATH=path)
    assert done.returncode == 1
    assert "RuntimeError" in done.stderr
    assert "import math_verify" in done.stderr


@pytest.mark.parametrize(
    ("check", "place", "valid"), [("maths", "tags", "countdown, number"), ("number", "end", "tags, boxed")]
)
def test_an_unknown_checker_or_place_is_an_error_that_lists_the_names(check: str, place: str, valid: str) -> None:
    with pytest.raises(ValueError, match=valid):
        is_correct("<answer>7</answer>", check, {"answer": "7"}, place)


def test_a_short_fuzz_finds_no_exception_hang_or_unearned_verdict() -> None:
    seen = fuzz(1_500, symbolic_share=0.02)
    assert seen.inputs >= 1_000


def test_a_short_fuzz_of_formulas_finds_no_two_that_are_equal_to_the_judge_only() -> None:
    seen = fuzz_formulas(0, 25)
    assert seen.judged >= 15
    assert seen.right >= 3
    assert seen.false_accepts == []
