"""A mixture serves exact shares of its sources, on one scale of difficulty, and works from YAML."""

import json
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficient_rl.config.compose import expand
from efficient_rl.config.run_config import from_dict, parse_run, to_dict
from efficient_rl.errors import ConfigError
from efficient_rl.tasks.arithmetic import Arithmetic
from efficient_rl.tasks.chain import Chain
from efficient_rl.tasks.countdown import Countdown
from efficient_rl.tasks.mixture import Mixture, shares
from efficient_rl.tasks.problem import split_of


def mixture(**sources: dict[str, object]) -> Mixture:
    return Mixture(sources)


def test_shares_are_rounded_by_largest_remainder() -> None:
    assert shares({"a": 1, "b": 1, "c": 1}, 10) == {"a": 4, "b": 3, "c": 3}
    assert shares({"a": 0.7, "b": 0.2, "c": 0.1}, 5) == {"a": 4, "b": 1, "c": 0}  # 3.5, 1.0, 0.5: a is first by name
    assert shares({"a": 47, "b": 16, "c": 15.8, "d": 12, "e": 6.1, "f": 3.1}, 10) == {
        "a": 5, "b": 2, "c": 1, "d": 1, "e": 1, "f": 0
    }  # fmt: skip


@given(st.dictionaries(st.text("abc", min_size=1), st.floats(0.01, 100), min_size=1, max_size=6), st.integers(1, 10_000))
@settings(deadline=None)
def test_shares_add_up_and_are_within_one_of_exact(weights: dict[str, float], count: int) -> None:
    parts = shares(weights, count)
    assert sum(parts.values()) == count
    for name, weight in weights.items():
        assert abs(parts[name] - count * weight / sum(weights.values())) < 1


def test_every_source_gives_its_share_and_keeps_its_name() -> None:
    mixed = mixture(a={"task": Countdown(), "weight": 3}, b={"task": Arithmetic(), "weight": 1}).problems("train", 100, 0)
    assert Counter(problem.source for problem in mixed) == {"countdown": 75, "arithmetic": 25}
    changes = sum(a.source != b.source for a, b in pairwise(mixed))
    assert changes > 10, "the sources come in turns, not one after the other"


def test_the_split_and_the_seed_are_kept() -> None:
    task = mixture(a={"task": Countdown()}, b={"task": Chain(), "weight": 2})
    assert {split_of(p.key) for p in task.problems("held_out", 60, 1)} == {"held_out"}
    assert not {p.key for p in task.problems("train", 300, 0)} & {p.key for p in task.problems("held_out", 100, 1)}
    assert task.problems("train", 30, 1) == task.problems("train", 30, 1) != task.problems("train", 30, 2)


def test_difficulties_are_mapped_linearly_or_one_by_one() -> None:
    linear = mixture(a={"task": Chain((1, 2)), "difficulty": {"scale": 10, "shift": -5}})
    assert {p.difficulty for p in linear.problems("train", 50, 0)} == {5.0, 15.0}
    mapped = mixture(a={"task": Chain((1, 2)), "difficulty": {"1": 0.25, 2: 7}})
    assert {(p.difficulty, len(p.steps)) for p in mapped.problems("train", 50, 0)} == {(0.25, 1), (7.0, 2)}
    assert {p.difficulty for p in mixture(a={"task": Chain((1, 2))}).problems("train", 50, 0)} == {1.0, 2.0}


def test_a_difficulty_without_a_value_is_an_error() -> None:
    task = mixture(a={"task": Chain((1, 2)), "difficulty": {1: 1, 3: 3}})
    with pytest.raises(ValueError, match=r"task\.sources\.a\.difficulty has no value for 2; it maps 1, 3"):
        task.problems("train", 50, 0)


def test_two_sources_of_the_same_content_never_give_a_problem_twice() -> None:
    mixed = mixture(a={"task": Arithmetic((1,), ("+",))}, b={"task": Arithmetic((1,))}).problems("train", 60, 0)
    assert len({problem.key for problem in mixed}) == len(mixed) == 60
    with pytest.raises(ValueError, match=r"only \d+ of \d+ distinct train problems found"):
        mixture(a={"task": Arithmetic((1,), ("+",))}, b={"task": Arithmetic((1,), ("+",))}).problems("train", 60, 0)


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        ({}, r"task\.sources is empty"),
        ({"a": {"weight": 1}}, r"task\.sources\.a=.* must be a mapping with task"),
        ({"a": {"task": Chain(), "share": 1}}, r"task\.sources\.a=.* must be a mapping with task"),
        ({"a": {"task": "chain"}}, r"task\.sources\.a\.task='chain' is no task; name its class with _target_"),
        ({"a": {"task": Chain(), "weight": 0}}, r"task\.sources\.a\.weight=0 must be a number above 0"),
        ({"a": {"task": Chain(), "weight": float("nan")}}, r"weight=nan must be a number above 0"),
        (
            {"a": {"task": Chain(), "difficulty": {"low": 1}}},
            r"difficulty=\{'low': 1\} must be \{scale: a, shift: b\} or map",
        ),
        ({"a": {"task": Chain(), "difficulty": 3}}, r"difficulty=3 must be"),
    ],
)
def test_what_is_no_mixture_is_refused(sources: dict[str, dict[str, object]], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Mixture(sources)


def test_zero_problems_are_refused() -> None:
    with pytest.raises(ValueError, match=r"count=0 must be at least 1 for a mixture"):
        mixture(a={"task": Chain()}).problems("train", 0, 0)


def test_the_shipped_mixture_builds_from_yaml_again_and_again() -> None:
    run = parse_run(expand(["task=mixture", "task.sources.countdown.weight=3", "task.sources.arithmetic.weight=1"])[0])
    problems = run.task.build().problems("train", 40, 0)
    assert Counter(problem.source for problem in problems) == {"countdown": 30, "arithmetic": 10}
    assert {problem.difficulty for problem in problems} == {0.0, 1.0, 2.0, 3.0}
    again = from_dict(json.loads(json.dumps(to_dict(run))))
    assert again.config_hash == run.config_hash
    assert again.task.build().problems("train", 40, 0) == problems


def test_a_wrong_source_is_named_when_the_sweep_is_planned() -> None:
    with pytest.raises(ConfigError, match=r"task\.sources\.countdown\.weight=-1 must be a number above 0"):
        parse_run(expand(["task=mixture", "task.sources.countdown.weight=-1"])[0])
    with pytest.raises(ConfigError, match=r"task\.operands=\[9\] must list numbers from 2 to 6"):
        parse_run(expand(["task=mixture", "task.sources.countdown.task.operands=[9]"])[0])


def test_inner_options_count_as_content() -> None:
    hashes = {
        parse_run(expand(["task=mixture", override])[0]).config_hash
        for override in ("task.sources.countdown.weight=0.5", "task.sources.countdown.weight=0.6")
    }
    assert len(hashes) == 2
