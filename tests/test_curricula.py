"""Every shipped curriculum keeps the contract of the interface, resumes exactly, and the adaptive ones do adapt."""

import functools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficient_rl.config.compose import expand
from efficient_rl.config.options import group_options
from efficient_rl.config.run_config import parse_run
from efficient_rl.config.schema import Component
from efficient_rl.curricula.bandits import DUMP, SEC
from efficient_rl.curricula.easy_to_hard import Classic, Gaussian
from efficient_rl.curricula.learnability import Learnability
from efficient_rl.curricula.pools import DifficultyPools
from efficient_rl.curricula.protocol import Curriculum
from efficient_rl.curricula.rebatched import ADCL
from efficient_rl.curricula.scheduled import Competence, DynamicSampling, Staged
from efficient_rl.curricula.target import AdaRFT

OPTIONS = sorted(group_options()["curriculum"])
SCHEDULES = ("uniform", "dapo", "staged", "competence", "competence_linear", "classic", "balanced", "cosine", "gaussian")
MIXTURES = ("classic", "balanced", "cosine", "gaussian", "sec", "dump")
difficulties = st.lists(st.integers(0, 4).map(float) | st.floats(-10, 10, width=16), min_size=1, max_size=40)
Rewards = list[list[float]]


@functools.cache
def component(option: str) -> Component:
    return parse_run(expand([f"curriculum={option}"])[0]).curriculum


def build(option: str, pool: Sequence[float], seed: int = 0, steps: int = 10) -> Curriculum:
    curriculum: Curriculum = component(option).build()
    curriculum.begin(pool, seed, steps)
    return curriculum


def rewards_of(indices: Sequence[int], step: int) -> Rewards:
    """Some rewards, of which a few could not be scored."""
    random = Random(f"{indices} {step}")
    return [[random.choice((0.0, 0.1, 1.0, 1.0, math.nan)) for _ in range(4)] for _ in indices]


def go(curriculum: Curriculum, count: int, steps: range) -> list[tuple[list[int], dict[str, float]]]:
    """Some steps of training, each with a refill: what was drawn and believed."""
    seen = []
    for step in steps:
        for part in (count, max(1, count // 2)):
            indices = curriculum.draw(part, step)
            curriculum.observe(indices, rewards_of(indices, step), step)
            seen.append((indices, curriculum.beliefs()))
    return seen


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(json.dumps(state, allow_nan=False))
    return loaded


@pytest.mark.parametrize("option", OPTIONS)
@given(pool=difficulties, count=st.integers(1, 50), steps=st.integers(1, 12), seed=st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_a_draw_is_count_valid_indices_and_beliefs_are_finite(
    option: str, pool: list[float], count: int, steps: int, seed: int
) -> None:
    curriculum = build(option, pool, seed, steps)
    for number, (indices, beliefs) in enumerate(go(curriculum, count, range(steps + 2))):
        assert len(indices) == (max(1, count // 2) if number % 2 else count)
        assert all(type(index) is int and 0 <= index < len(pool) for index in indices)
        assert all(type(value) is float and math.isfinite(value) for value in beliefs.values()), beliefs
        assert all(re.fullmatch(r"[\w.-]+", name) for name in beliefs), beliefs  # what MLflow takes
        chances = [value for name, value in beliefs.items() if name.startswith("probability_")]
        assert bool(chances) == (option in MIXTURES)
        assert not chances or sum(chances) == pytest.approx(1)
        assert all(chance >= 0 for chance in chances)


@pytest.mark.parametrize("option", OPTIONS)
@given(pool=difficulties, count=st.integers(1, 20), cut=st.integers(0, 9), seed=st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_a_state_through_json_goes_on_identically(option: str, pool: list[float], count: int, cut: int, seed: int) -> None:
    whole, resumed = build(option, pool, seed), build(option, pool, seed)
    go(whole, count, range(cut))
    resumed.load_state_dict(through_json(whole.state_dict()))
    assert resumed.beliefs() == whole.beliefs()
    assert go(resumed, count, range(cut, 10)) == go(whole, count, range(cut, 10))
    assert through_json(resumed.state_dict()) == through_json(whole.state_dict())


@pytest.mark.parametrize("option", OPTIONS)
def test_a_resume_at_every_step_of_a_longer_training_goes_on_identically(option: str) -> None:
    pool = [float(index % 7) for index in range(200)]
    whole = build(option, pool)
    states, steps = [], []
    for step in range(10):
        states.append(through_json(whole.state_dict()))
        steps.append(go(whole, 12, range(step, step + 1)))
    for cut, state in enumerate(states):
        resumed = build(option, pool)
        resumed.load_state_dict(state)
        assert [go(resumed, 12, range(step, step + 1)) for step in range(cut, 10)] == steps[cut:]


@pytest.mark.parametrize("option", OPTIONS)
def test_a_saved_state_does_not_change_while_training_goes_on(option: str) -> None:
    curriculum = build(option, [1.0, 2.0, 3.0] * 10)
    go(curriculum, 8, range(4))
    state = curriculum.state_dict()
    text = repr(state)
    go(curriculum, 8, range(4, 9))
    assert repr(state) == text != repr(curriculum.state_dict())


@pytest.mark.parametrize("option", OPTIONS)
def test_the_same_seed_draws_the_same_and_another_seed_does_not(option: str) -> None:
    pool = [1.0, 2.0, 3.0] * 40
    first, again, other = (go(build(option, pool, seed), 8, range(10)) for seed in (5, 5, 6))
    assert first == again
    assert [indices for indices, _ in first] != [indices for indices, _ in other]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_problem_is_drawn_once_training_is_long_enough(option: str) -> None:
    pool = [1.0, 2.0, 3.0] * 8
    curriculum = build(option, pool, steps=200)
    drawn = Counter(index for indices, _ in go(curriculum, 8, range(200)) for index in indices)
    assert set(drawn) == set(range(len(pool)))


@pytest.mark.parametrize("option", OPTIONS)
def test_a_state_keeps_nothing_of_problems_that_were_never_drawn(option: str) -> None:
    curriculum = build(option, [float(index % 5) for index in range(20_000)], steps=100)
    go(curriculum, 16, range(25))
    assert len(json.dumps(curriculum.state_dict())) < 40_000


@pytest.mark.parametrize("option", MIXTURES)
def test_a_level_is_gone_through_before_any_of_it_comes_again(option: str) -> None:
    pool = [1.0, 2.0, 3.0] * 20
    drawn: dict[float, list[int]] = {level: [] for level in set(pool)}
    for indices, _ in go(build(option, pool, steps=30), 8, range(30)):
        for index in indices:
            drawn[pool[index]].append(index)
    for indices in drawn.values():
        assert indices
        assert len(set(indices[:20])) == len(indices[:20])


@pytest.mark.parametrize(
    "pool", [[], [1.0, math.nan], [math.inf]], ids=["without problems", "without a number", "without an end"]
)
@pytest.mark.parametrize("option", OPTIONS)
def test_a_pool_that_cannot_be_ordered_is_refused(option: str, pool: list[float]) -> None:
    with pytest.raises(ValueError, match=r"0 problems.*raise grpo|problem [01] has difficulty (nan|inf).*give every"):
        build(option, pool)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Classic(levels=0), r"curriculum.levels=0 must be a whole number of at least 1; use 1 or more"),
        (lambda: Classic(levels=2.5), r"curriculum.levels=2.5 must be a whole number"),  # type: ignore[arg-type]
        (lambda: DynamicSampling(refills=0), r"curriculum.refills=0 .* at least 1"),
        (lambda: Staged(stages=True), r"curriculum.stages=True must be a whole number"),
        (lambda: Staged(keep_easier="no"), r"curriculum.keep_easier='no' must be true or false"),  # type: ignore[arg-type]
        (lambda: Competence(shape="cubic"), r"curriculum.shape='cubic' is not known; use one of root, linear"),
        (lambda: Competence(c0=0), r"curriculum.c0=0 must be a number above 0 and at most 1; use one in that range"),
        (lambda: Competence(duration=1.1), r"curriculum.duration=1.1 .* at most 1"),
        (lambda: Gaussian(sigma=0), r"curriculum.sigma=0 must be a number above 0"),
        (lambda: Gaussian(mu_exponent=-1), r"curriculum.mu_exponent=-1 must be a number above 0"),
        (lambda: Gaussian(p_min=-0.1), r"curriculum.p_min=-0.1 must be a number of at least 0 and at most 1"),
        (lambda: SEC(rate=2), r"curriculum.rate=2 .* at most 1"),
        (lambda: SEC(temperature=0), r"curriculum.temperature=0 must be a number above 0"),
        (lambda: DUMP(window=0), r"curriculum.window=0 .* at least 1"),
        (lambda: AdaRFT(start=101), r"curriculum.start=101 .* at most 100"),
        (lambda: AdaRFT(band=0), r"curriculum.band=0 must be a number above 0"),
        (lambda: AdaRFT(eta=math.nan), r"curriculum.eta=nan must be a number"),
        (lambda: AdaRFT(success_at="right"), r"curriculum.success_at='right' must be a number"),  # type: ignore[arg-type]
        (lambda: ADCL(lookahead=1), r"curriculum.lookahead=1 .* at most 0.9"),
        (lambda: Learnability(score="entropy"), r"curriculum.score='entropy' is not known; use one of variance, deviation"),
        (lambda: Learnability(top=0), r"curriculum.top=0 must be a number above 0"),
        (lambda: DifficultyPools(hard_until=0.8), r"curriculum.normal_until=0.75 must be a number of at least 0.8"),
        (lambda: DifficultyPools(easy_weight=-1), r"curriculum.easy_weight=-1 must be a number of at least 0"),
    ],
)
def test_bad_arguments_are_refused_with_value_bound_and_remedy(make: Callable[[], Curriculum], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


class Learner:
    """Solves a level the more often, the more groups of it and of the level below gave it a signal."""

    def __init__(self, levels: int) -> None:
        self.practice = [0.0] * levels
        self.random = Random(7)

    def chance(self, level: int) -> float:
        """Of a solution at the level: 0.62, 0.08, 0.004 to begin with; 180 groups of practice move it by one level."""
        return 1 / (1 + math.exp(3 * level - 0.5 - self.practice[level] / 60))

    def group(self, level: int) -> list[float]:
        """Eight rewards with TinyZero's values; a mixed group is practice."""
        rewards = [1.0 if self.random.random() < self.chance(level) else 0.1 for _ in range(8)]
        if len(set(rewards)) > 1:
            self.practice[level] += 1
            if level + 1 < len(self.practice):
                self.practice[level + 1] += 0.5
        return rewards


@functools.cache
def taught(option: str) -> tuple[Learner, list[float]]:
    """A learner after 120 steps of 16 groups, and the mean level of every 20 of them."""
    pool = [float(index % 4) for index in range(200)]
    learner, curriculum = Learner(4), build(option, pool, steps=120)
    served: list[float] = []
    for step in range(120):
        indices = curriculum.draw(16, step)
        curriculum.observe(indices, [learner.group(int(pool[index])) for index in indices], step)
        served += [pool[index] for index in indices]
    return learner, [sum(served[start : start + 320]) / 320 for start in range(0, len(served), 320)]


@pytest.mark.parametrize("option", sorted(set(OPTIONS) - set(SCHEDULES)))
def test_adaptive_curricula_move_to_harder_levels_and_get_further_there(option: str) -> None:
    learner, served = taught(option)
    assert max(served[1:]) > served[0] + 0.2, served
    assert learner.chance(2) > taught("uniform")[0].chance(2) + 0.3


def test_the_control_does_not_move_to_harder_levels() -> None:
    learner, served = taught("uniform")
    assert max(served) < min(served) + 0.1
    assert 0.2 < learner.chance(2) < 0.6  # so that there is something to gain
