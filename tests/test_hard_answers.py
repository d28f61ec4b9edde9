"""Every hard pair gets the verdict of a fair judge; the gold answers of real data sets are right, their neighbours wrong."""

import gzip
import json
import os
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from efficient_rl.rewards.judge import JUDGES
from efficient_rl.rewards.judge_bounds import CPU_SECONDS
from efficient_rl.rewards.verify import is_correct, parse_number
from tests.conftest import ROOT, cpu_seconds
from tests.hard_answers import MATHEMATICS, NUMBERS, PAIRS, Hard

DATA = Path(os.environ.get("EFFICIENT_RL_DATA", ROOT.parent / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no data sets in {DATA}; name their folder in EFFICIENT_RL_DATA")
SLOW_SECONDS = CPU_SECONDS / 2  # of CPU time; the bound is a number of calls


def rows(name: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def verdict(pair: Hard) -> bool:
    return is_correct(pair.completion, pair.check, {"answer": pair.gold}, pair.place)


def test_there_are_enough_hard_pairs_of_either_verdict() -> None:
    checks = Counter(pair.check for pair in PAIRS)
    assert checks["number"] >= 150
    assert checks["math"] >= 150
    assert min(Counter(pair.right for pair in PAIRS).values()) >= 100
    assert len({(pair.completion, pair.gold, pair.check, pair.place) for pair in PAIRS}) == len(PAIRS)


@pytest.mark.parametrize("kind", sorted({pair.kind for pair in PAIRS}))
def test_hard_pairs_get_the_verdict_of_a_fair_judge_in_time(kind: str) -> None:
    JUDGES.same("1", "1")
    for pair in PAIRS:
        if pair.kind == kind:
            spent = judging_seconds()
            assert verdict(pair) is pair.right, f"{pair.completion[:80]!r} for {pair.gold[:80]!r}"
            assert judging_seconds() - spent < SLOW_SECONDS, pair.completion[:80]


def judging_seconds() -> float:
    """What judging has used so far, in this process and in the judge's."""
    judge = JUDGES.judge
    return cpu_seconds(judge.process.pid) if judge is not None and judge.process.poll() is None else cpu_seconds()


def test_mathematics_judges_gold_numbers_as_number_does() -> None:
    for groups in NUMBERS.values():
        for answer, gold, right in groups:
            if parse_number(gold) is not None:
                assert is_correct(f"<answer>{answer}</answer>", "math", {"answer": gold}) is right, (answer, gold)


def test_a_gold_answer_is_right_against_itself_in_every_wrapping() -> None:
    golds = {gold for group in MATHEMATICS.values() for _, gold, _ in group}
    for gold in golds:
        for completion in (f"<answer>{gold}</answer>", f"so \\boxed{{{gold}}}", f"<answer>${gold}$</answer>"):
            assert is_correct(completion, "math", {"answer": gold}), completion


@needs_data
@pytest.mark.parametrize(("name", "count"), [("gsm8k/test.jsonl.gz", 1319), ("gsm8k/train.jsonl.gz", 7473)])
def test_every_gold_answer_of_gsm8k_is_right_and_the_next_number_wrong(name: str, count: int) -> None:
    problems = rows(name)
    assert len(problems) == count
    for problem in problems:
        gold = {"answer": problem["answer"]}
        value = parse_number(problem["answer"])
        assert value is not None
        assert is_correct(problem["solution"], "number", gold, "hash")
        assert is_correct(f"\\boxed{{{problem['answer']}}}", "math", gold)
        assert not is_correct(f"<answer>{value + 1}</answer>", "number", gold)


@needs_data
def test_every_gold_answer_of_svamp_is_right() -> None:
    problems = rows("svamp/all.jsonl.gz")
    assert len(problems) == 1000
    assert all(is_correct(f"<answer>{p['answer']}</answer>", "number", {"answer": p["answer"]}) for p in problems)


@needs_data
@pytest.mark.parametrize("split", ["dev", "test"])
def test_every_option_of_aqua_is_right_and_the_others_wrong(split: str) -> None:
    problems = rows(f"aqua/{split}.jsonl.gz")
    assert len(problems) == 254
    for problem in problems:
        right = [is_correct(f"<answer>({letter})</answer>", "choice", {"answer": problem["answer"]}) for letter in "ABCDE"]
        assert right == [letter == problem["answer"] for letter in "ABCDE"]


@needs_data
def test_gold_answers_of_eleven_languages_are_numbers_and_right() -> None:
    problems = rows("mgsm/test.jsonl.gz")
    assert len(problems) == 2750
    for problem in problems:
        gold = {"answer": str(problem["answer"])}
        assert isinstance(parse_number(gold["answer"]), Fraction)
        assert is_correct(f"\\boxed{{{gold['answer']}}}", "number", gold)


FORMS = (
    "{}", "{} apples", "= {}", "x = {}", "x + y = {}", "\\text{{Area}} = {}", "{} = x", "f(2) = {}", "${}$", "\\$ {}", "{}€",
    "**{}** apples", "**Answer:** {}", "\\left({}\\right)", "\\,{}", "{}\\text{{ cm}}^2", "{} dollars per day", "{}^\\circ",
)  # fmt: skip


@needs_data
@pytest.mark.parametrize("check", ["number", "math"])
def test_usual_forms_of_a_gold_answer_are_right_for_it_and_for_no_other_one(check: str) -> None:
    answers = {row["answer"] for name in ("gsm8k/test.jsonl.gz", "svamp/all.jsonl.gz") for row in rows(name)}
    answers |= {str(row["answer"]) for row in rows("mgsm/test.jsonl.gz")}
    golds = sorted({value for answer in answers if (value := parse_number(answer)) is not None})[::3]
    assert len(golds) > 100
    for gold, other in zip(golds, [*golds[1:], golds[0]], strict=True):
        for form in FORMS:
            completion = f"<answer>{form.format(gold)}</answer>"
            assert is_correct(completion, check, {"answer": str(gold)}), completion
            assert not is_correct(completion, check, {"answer": str(other)}), (completion, other)
