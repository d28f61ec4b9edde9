"""Generated problems are distinct, solved, on one side of the split, and written in characters that nano knows."""

import hashlib
import json
import math
import re
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from efficient_rl.config.options import group_options, load_option
from efficient_rl.nano.make import CHARACTERS
from efficient_rl.tasks.arithmetic import Arithmetic
from efficient_rl.tasks.chain import Chain
from efficient_rl.tasks.countdown import Countdown
from efficient_rl.tasks.divisors import GCD, LCM
from efficient_rl.tasks.equations import Equations
from efficient_rl.tasks.fractions import Fractions
from efficient_rl.tasks.gym import GENERATORS, ReasoningGym
from efficient_rl.tasks.problem import Problem, Task, below, shuffled, split_of
from efficient_rl.tasks.tinyzero import Multiplication, TinyZeroCountdown
from tests.conftest import ROOT, environment

OURS: list[Task] = [
    Countdown(),
    Countdown(operands=(3, 4, 6), max_number=100, max_target=1000),
    Arithmetic(digits=(2, 3)),
    Chain(),
    Fractions(),
    Equations(),
    GCD(),
    GCD(sizes=(60,), numbers=4),
    LCM(),
    Multiplication(),
    TinyZeroCountdown(source="generate"),
]
THEIRS: list[Task] = [ReasoningGym(name) for name in GENERATORS]
ALL = [*OURS, *THEIRS]


def value(expression: str) -> Fraction:
    """Worked out by Python's own grammar, from text that only these tests make."""
    assert re.fullmatch(r"[\d+\-*/%(). ]+", expression), expression
    exact = re.sub(r"\d+(?:\.\d+)?", lambda match: f"Fraction('{match[0]}')", expression)
    return Fraction(eval(exact, {"Fraction": Fraction, "__builtins__": {}}))  # noqa: S307


def solution_of(problem: Problem) -> Fraction:
    return Fraction(problem.gold["answer"])


@pytest.mark.parametrize("task", ALL, ids=str)
@given(train_seed=st.integers(0, 2**40), held_out_seed=st.integers(0, 2**40))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_no_training_problem_is_among_the_held_out_ones_for_any_seed(
    task: Task, train_seed: int, held_out_seed: int
) -> None:
    train, held_out = task.problems("train", 150, train_seed), task.problems("held_out", 40, held_out_seed)
    assert len({problem.key for problem in train}) == 150
    assert len({problem.key for problem in held_out}) == 40
    assert not {problem.key for problem in train} & {problem.key for problem in held_out}
    assert {split_of(problem.key) for problem in train} == {"train"}
    assert {split_of(problem.key) for problem in held_out} == {"held_out"}


@pytest.mark.parametrize("task", ALL, ids=str)
def test_every_problem_is_complete(task: Task) -> None:
    for problem in task.problems("train", 300, 3):
        assert problem.question
        assert problem.question.strip() == problem.question
        assert problem.solution == problem.gold.get("answer", problem.solution)
        assert problem.source
        assert problem.difficulty >= 1
        assert not problem.free_text


@pytest.mark.parametrize(
    "task", [Fractions(denominators=(6,)), GCD((20,)), LCM((20,), 3), Countdown((2,)), Arithmetic((1,))]
)
def test_the_same_numbers_in_another_order_are_the_same_problem_where_the_order_does_not_count(task: Task) -> None:
    orders: dict[tuple[object, ...], set[str]] = {}
    for seed in range(3):
        for problem in task.problems("train", 60, seed):
            *numbers, last = re.findall(r"\d+(?:/\d+)?", problem.question)
            if problem.source != "countdown":  # there the last one is the target
                numbers.append(last)
            counts = any(word in problem.question for word in ("minus", "divided"))
            words = re.sub(r"\d", "", problem.question)
            orders.setdefault(
                (words, last if problem.source == "countdown" else "", *(numbers if counts else sorted(numbers))), set()
            ).add(problem.key)
    assert all(len(keys) == 1 for keys in orders.values())
    assert len({problem.key for problem in task.problems("train", 60, 0)}) == 60


@pytest.mark.parametrize("task", ALL, ids=str)
def test_a_smaller_request_is_the_beginning_of_a_larger_one(task: Task) -> None:
    assert task.problems("train", 60, 5)[:20] == task.problems("train", 20, 5)
    assert task.problems("train", 20, 5) != task.problems("train", 20, 6)


@pytest.mark.parametrize("task", ALL, ids=str)
def test_symbols_are_written_in_the_characters_of_the_embedded_model_or_are_the_question(task: Task) -> None:
    problems = task.problems("train", 300, 1)
    known = all(set(problem.symbols + ";".join(problem.steps) + problem.solution) <= set(CHARACTERS) for problem in problems)
    if isinstance(task, ReasoningGym) and task.generator in ("count_primes", "count_bits", "leg_counting"):
        assert all(problem.symbols == problem.question for problem in problems)
    else:
        assert known
        assert all(problem.symbols.endswith(":") for problem in problems)


@pytest.mark.parametrize(
    "task",
    [Chain(operations=(1, 5, 9)), Fractions(), Multiplication(), Arithmetic((3,)), ReasoningGym("basic_arithmetic")],
    ids=str,
)
def test_the_symbols_are_an_expression_whose_value_is_the_answer(task: Task) -> None:
    for problem in task.problems("train", 500, 2):
        assert value(problem.symbols.removesuffix(":")) == solution_of(problem), problem


@pytest.mark.parametrize("task", [Chain(), Fractions(), GCD(), LCM(), Multiplication()], ids=str)
def test_every_step_is_true(task: Task) -> None:
    for problem in task.problems("train", 300, 4):
        for step in problem.steps:
            left, *right = step.split("=")
            if "%" in left:
                a, b = map(int, left.split("%"))
                assert a % b == int(right[0])
            elif right:
                assert value(left) == value(right[0]), problem


def test_words_and_symbols_of_a_chain_mean_the_same() -> None:
    for problem in Chain(operations=(1, 2, 6)).problems("train", 400, 0):
        start, *operations = re.findall(r"(Start with|dd|ubtract|ultiply by) (\d+)", problem.question)
        result = int(start[1])
        for word, number in operations:
            result = {"dd": result + int(number), "ubtract": result - int(number), "ultiply by": result * int(number)}[word]
        assert str(result) == problem.solution
        assert len(operations) == problem.difficulty


def test_fractions_are_answered_in_lowest_terms() -> None:
    for problem in Fractions(denominators=(4, 12)).problems("train", 300, 0):
        assert str(Fraction(problem.solution)) == problem.solution
        a, b = re.findall(r"\d+/\d+", problem.question)
        assert max(Fraction(a).denominator, Fraction(b).denominator) <= problem.difficulty


def test_equations_hold_at_their_solution() -> None:
    for problem in Equations().problems("train", 300, 0):
        left, right = problem.symbols.removesuffix(";x:").split("=")
        assert value(left.replace("x", f"({problem.solution})")) == int(right)
        assert re.sub(r"\W", "", problem.question.split(":")[1]) == re.sub(r"\W", "", f"{left}{right}")
        assert f"= {right}" in problem.question
        assert abs(int(problem.solution)) <= problem.difficulty


@pytest.mark.parametrize(("task", "function"), [(GCD(numbers=3), math.gcd), (LCM(numbers=3), math.lcm)], ids=["gcd", "lcm"])
def test_divisors_and_multiples_agree_with_the_standard_library(task: Task, function: object) -> None:
    assert callable(function)
    for problem in task.problems("train", 300, 0):
        numbers = [int(number) for number in re.findall(r"\d+", problem.question)]
        assert len(set(numbers)) == 3
        assert max(numbers) <= problem.difficulty
        assert str(function(*numbers)) == problem.solution


def test_most_greatest_common_divisors_are_not_one() -> None:
    answers = Counter(problem.solution for problem in GCD().problems("train", 500, 0))
    assert answers["1"] < 100


def test_the_problems_that_nano_was_taught_from_never_change() -> None:
    digests = []
    for task in (Countdown(), Countdown((2, 3, 4, 6)), Arithmetic()):
        problems = task.problems("train", 200, 0)
        text = "\n".join(p.symbols + p.solution + ";".join(p.steps) for p in problems)
        digests.append(hashlib.sha256(text.encode()).hexdigest()[:16])
    assert digests == ["f36e5de4eba872b1", "e7fde382f3e130d5", "77fb3abb745b7c17"]


@given(st.integers(0, 2**32), st.integers(1, 10**6))
def test_below_draws_what_randrange_draws(seed: int, bound: int) -> None:
    ours, theirs = Random(seed), Random(seed)
    assert [below(ours, bound) for _ in range(5)] == [theirs.randrange(bound) for _ in range(5)]


def test_shuffled_serves_all_for_zero_and_refuses_more_than_there_are() -> None:
    assert sorted(shuffled([3, 1, 2], 0, 7, "things")) == [1, 2, 3]
    with pytest.raises(ValueError, match=r"4 problems asked, but there are only 3 things; use at most 3"):
        shuffled([3, 1, 2], 4, 0, "things")


def test_a_generator_has_no_all() -> None:
    with pytest.raises(ValueError, match=r"count=0 must be at least 1"):
        Chain().problems("train", 0, 0)


@pytest.mark.parametrize(
    ("kind", "bad", "says"),
    [
        (Chain, {"operations": (0,)}, r"task\.operations=\[0\] must list numbers from 1 to 20"),
        (Chain, {"operators": ("/",)}, r"task\.operators=\['/'\] must list some of \+, -, \*"),
        (Chain, {"max_factor": 1}, r"task\.max_factor=1 must be at least 2"),
        (Fractions, {"denominators": (1,)}, r"task\.denominators=\[1\]"),
        (Fractions, {"operators": ()}, r"task\.operators=\[\]"),
        (Equations, {"sizes": (1,)}, r"task\.sizes=\[1\]"),
        (GCD, {"sizes": (11,)}, r"task\.sizes=\[11\]"),
        (LCM, {"numbers": 7}, r"task\.numbers=7 must lie in 2 to 6"),
        (Multiplication, {"pairs": 0}, r"task\.pairs=0"),
        (Multiplication, {"held_out_problems": 0}, r"task\.held_out_problems=0"),
        (TinyZeroCountdown, {"source": "hub"}, r"task\.source='hub' is not known; use one of published, generate"),
        (TinyZeroCountdown, {"train_rows": 0}, r"task\.train_rows=0"),
        (ReasoningGym, {"generator": "countdown"}, r"'countdown' is not on the list of generators; use one of basic"),
        (ReasoningGym, {"config": {"operators": ["/"]}}, r"basic_arithmetic has no operators; use min_terms, max_terms"),
    ],
)
def test_impossible_options_are_refused(kind: type, bad: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        kind(**bad)


def test_multiplication_has_the_published_sizes_and_factors() -> None:
    train, held_out = Multiplication().problems("train", 0, 0), Multiplication().problems("held_out", 0, 0)
    assert (len(train), len(held_out)) == (32_768, 4_096)
    factors = [int(number) for problem in train for number in problem.symbols.removesuffix(":").split("*")]
    assert max(factors) < 1000
    below_hundred = sum(number < 100 for number in factors) / len(factors)
    assert 0.30 < below_hundred < 0.40  # 1/3 + 2/3 * 1/10 of the draws, less the repeats, of which small ones have more
    with pytest.raises(ValueError, match=r"exceeds the \d+ that task\.pairs=1000 draws hold"):
        Multiplication(pairs=1000).problems("train", 1, 0)


def published(path: Path, rows: list[tuple[list[int], int]]) -> str:
    table = pa.table({"target": [target for _, target in rows], "nums": [numbers for numbers, _ in rows]})
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    return str(path)


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
def test_tinyzeros_rows_are_split_by_their_order_and_no_order_of_numbers_is_on_both_sides(tmp_path: Path, name: str) -> None:
    rows = [([i, i + 1, i + 2], 3 * i + 3) for i in range(1, 21)]
    rows[3] = ([17, 16, 18], 51)  # row 15, the first that is held out, in another order
    rows[5] = rows[4]
    task = TinyZeroCountdown(path=published(tmp_path / name, rows), train_rows=15, held_out_rows=4)
    train, held_out = task.problems("train", 0, 0), task.problems("held_out", 0, 0)
    assert [p.gold for p in sorted(held_out, key=lambda p: p.key)] == [
        {"numbers": list(numbers), "target": target} for numbers, target in rows[15:19]
    ]
    assert len(train) == 13
    assert not {p.key for p in train} & {p.key for p in held_out}
    assert {p.difficulty for p in train} == {3.0}
    with pytest.raises(ValueError, match=r"has 20 rows, fewer than task\.train_rows=20 \+ task\.held_out_rows=4"):
        TinyZeroCountdown(path=str(tmp_path / name), train_rows=20, held_out_rows=4).problems("train", 1, 0)


def test_rows_without_numbers_or_target_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"nums": [1, 2, 3]}\n')
    with pytest.raises(ValueError, match=r"it must have nums, a list of whole numbers, and target, one"):
        TinyZeroCountdown(path="rows.jsonl", train_rows=1, held_out_rows=1).problems("train", 1, 0)


def test_generated_countdown_follows_tinyzeros_ranges() -> None:
    problems = TinyZeroCountdown(source="generate").problems("train", 400, 0)
    assert {len(p.gold["numbers"]) for p in problems} == {3, 4}
    assert max(max(p.gold["numbers"]) for p in problems) > 90
    assert all(1 <= p.gold["target"] <= 100 and value(p.solution) == p.gold["target"] for p in problems)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("basic_arithmetic", {"max_terms": 8, "max_digits": 4, "allow_negation": True}),
        ("decimal_chain_sum", {"max_terms": 7}),
    ],
)
def test_the_librarys_answers_are_right_in_exact_arithmetic(name: str, config: dict[str, object]) -> None:
    for problem in ReasoningGym(name, config).problems("train", 1000, 9):
        assert value(problem.symbols.removesuffix(":")) == solution_of(problem), problem


def test_neighbouring_seeds_of_the_library_share_no_items() -> None:
    first, second = (ReasoningGym("count_bits", {"max_n": 2**31 - 1}).problems("train", 200, seed) for seed in (0, 1))
    assert not {p.key for p in first} & {p.key for p in second}


def test_a_configuration_that_the_library_refuses_says_so() -> None:
    with pytest.raises(
        ValueError, match=r"reasoning-gym refuses task\.config=\{'max_terms': 1\} of basic_arithmetic: max_t"
    ):
        ReasoningGym("basic_arithmetic", {"max_terms": 1}).problems("train", 1, 0)


def test_without_the_library_the_task_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "reasoning_gym.py").write_text("raise ImportError('not installed')")
    script = (
        "import sys\nsys.path.insert(0, '.')\nfrom efficient_rl.tasks.gym import ReasoningGym\ntask = ReasoningGym()\n"
        "try:\n    task.problems('train', 1, 0)\nexcept ValueError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert "install the extra `generators`" in done.stdout, done.stderr


def test_tasks_import_neither_reasoning_gym_nor_data_libraries() -> None:
    script = (
        "import sys, pkgutil, importlib, efficient_rl.tasks as tasks\n"
        "[importlib.import_module(f'efficient_rl.tasks.{m.name}') for m in pkgutil.iter_modules(tasks.__path__)]\n"
        "print(sorted({'torch', 'datasets', 'pyarrow', 'reasoning_gym', 'transformers', 'sympy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_recorded_speeds_keep_their_bounds() -> None:
    measured = json.loads((ROOT / "benchmarks" / "results" / "generators.json").read_text())
    assert sum(name.startswith(("countdown", "arithmetic")) for name in measured["at_least"]) == 7
    for name, bound in measured["at_least"].items():
        assert measured["problems_a_second"][name]["median"] >= bound == 10_000
    assert {f"reasoning-gym {name}" for name in GENERATORS} <= set(measured["problems_a_second"])


def test_the_page_on_tasks_names_every_option_and_generator_and_its_check() -> None:
    page = (ROOT / "docs" / "tasks.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| .*? \| `?(\w+)`?[^|]* \|", page, re.MULTILINE))
    assert sorted(rows) == group_options()["task"]
    for option, check in rows.items():
        named = load_option("task", option).get("check", check)
        assert check in (named, "yours", "of"), option
    assert all(f"`{name}`" in page for name in GENERATORS)
