"""Every rule of a curriculum gives the numbers that its formula gives by hand."""

import math
from collections.abc import Sequence
from random import Random
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from efficient_rl.curricula.bandits import DUMP, SEC, softmax
from efficient_rl.curricula.easy_to_hard import Balanced, Classic, Cosine, Gaussian
from efficient_rl.curricula.learnability import Learnability
from efficient_rl.curricula.levels import LevelMixture, Levels
from efficient_rl.curricula.order import easy_first, nearest, pick
from efficient_rl.curricula.pools import DifficultyPools
from efficient_rl.curricula.protocol import Curriculum
from efficient_rl.curricula.rebatched import ADCL, resorted
from efficient_rl.curricula.scheduled import Competence, DynamicSampling, Staged, Uniform
from efficient_rl.curricula.signals import Success, absolute_advantages
from efficient_rl.curricula.target import AdaRFT

THREE_LEVELS = [2.0, 3.0, 4.0] * 4
ONE_OF_FOUR = [1.0, 0.0, 0.0, 0.0]
Begun = TypeVar("Begun", bound=Curriculum)


def begun(curriculum: Begun, difficulties: Sequence[float] = THREE_LEVELS, steps: int = 10) -> Begun:
    curriculum.begin(difficulties, seed=0, steps=steps)
    return curriculum


def probabilities(curriculum: LevelMixture, step: int, steps: int) -> list[float]:
    return begun(curriculum, steps=steps).probabilities(step)


# What rewards say


def test_advantages_are_those_of_trl() -> None:
    # mean 1/4, sample variance (0.5625 + 3 x 0.0625) / 3 = 1/4: 0.75 / 0.5001 and 0.25 / 0.5001
    assert absolute_advantages(ONE_OF_FOUR) == pytest.approx([1.499700, 0.499900, 0.499900, 0.499900], abs=1e-6)
    assert absolute_advantages([1.0, 1.0, 1.0]) == [0, 0, 0]
    assert absolute_advantages([1.0, math.nan, 0.0, None]) == absolute_advantages([1.0, 0.0])
    assert absolute_advantages([1.0]) == [0]


def test_success_is_the_place_in_a_range_that_only_widens() -> None:
    success = Success(None)
    success.see([[0.0, 0.1]])
    assert success.rate([0.0, 0.1]) == pytest.approx(0.05)  # the best of the wrong ones is no success
    success.see([[-1.0, 2.0]])
    assert success.rate([-1.0, 0.5, 2.0]) == pytest.approx(0.5)  # (0 + 1/2 + 1) / 3
    success.see([[0.0]])
    assert success.rate([2.0]) == 1
    assert success.rate([math.nan, None]) is None


def test_success_at_is_a_threshold_that_forgives_rounding() -> None:
    success = Success(0.9)
    success.see([[5.0]])
    assert success.scaled([0.9 - 1e-8, 0.89, 1.0, math.nan]) == [1, 0, 1]
    assert Success(1.0).deviation(ONE_OF_FOUR) == pytest.approx(math.sqrt(3) / 4)  # sqrt(1/4 x 3/4)


# Levels and orders


def test_few_difficulties_are_levels_and_many_are_quantile_bins() -> None:
    few = Levels([3.0, 1.0, 2.0, 1.0], most=3)
    assert (few.of, few.members, few.names) == ([2, 0, 1, 0], [[1, 3], [2], [0]], ["level_1", "level_2", "level_3"])
    many = Levels([float(value) for value in range(9, -1, -1)], most=2)
    assert many.of == [1] * 5 + [0] * 5
    assert many.names == ["level_0_to_4", "level_5_to_9"]


def test_equal_difficulties_share_a_bin() -> None:
    # ranks 0-3, 4, 5 have their middles at 2, 4.5, 5.5 of 6: bins 0, 1, 1 of 2
    assert Levels([1.0, 1.0, 1.0, 1.0, 2.0, 3.0], most=2).of == [0, 0, 0, 0, 1, 1]
    # ranks 0, 1-4, 5: 0.5, 3, 5.5 of 6
    assert Levels([1.0, 2.0, 2.0, 2.0, 2.0, 3.0], most=2).of == [0, 1, 1, 1, 1, 1]


def test_names_of_levels_have_no_sign_that_metrics_may_not_have() -> None:
    assert Levels([1e7, -1e-7], most=2).names == ["level_-1e-07", "level_1e07"]


@given(st.lists(st.floats(-1e6, 1e6) | st.integers(0, 3).map(float), min_size=1, max_size=60), st.integers(1, 9))
def test_levels_share_out_the_pool_from_easy_to_hard(difficulties: list[float], most: int) -> None:
    levels = Levels(difficulties, most)
    assert 1 <= len(levels) <= most
    assert sorted(index for members in levels.members for index in members) == list(range(len(difficulties)))
    hardest = -math.inf
    for level, members in enumerate(levels.members):
        assert {levels.of[index] for index in members} == {level}
        assert min(difficulties[index] for index in members) > hardest
        hardest = max(difficulties[index] for index in members)


@given(st.lists(st.integers(-20, 20).map(float), min_size=1, max_size=40), st.floats(-25, 25), st.data())
def test_the_nearest_stretch_is_what_a_search_through_all_finds(
    values: list[float], target: float, data: st.DataObject
) -> None:
    values.sort()
    count = data.draw(st.integers(1, len(values)))
    radius = sorted(abs(value - target) for value in values)[count - 1]
    start, stop = nearest(values, target, count)
    assert stop - start >= count
    assert values[start:stop] == [value for value in values if abs(value - target) <= radius + 1e-9]


@given(st.integers(1, 20), st.integers(0, 60), st.integers(0, 5))
def test_nothing_is_picked_again_before_all_were(size: int, count: int, seed: int) -> None:
    picked = pick(range(size), count, Random(seed))
    assert len(picked) == count
    times = [picked.count(index) for index in range(size)]
    assert max(times) - min(times) <= 1


def test_easy_comes_first_and_ties_are_shuffled_by_the_seed() -> None:
    difficulties = [2.0, 1.0] * 20
    orders = [easy_first(difficulties, seed) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert {index % 2 for index in orders[0][:20]} == {1}


# Schedules


def test_uniform_goes_through_the_pool_and_then_again_in_another_order() -> None:
    curriculum = begun(Uniform())
    epochs = [curriculum.draw(12, step) for step in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert epochs[0] != epochs[1]
    assert epochs[0] == Random("0 0").sample(range(12), 12)


def test_dynamic_sampling_is_uniform_with_refills() -> None:
    assert begun(DynamicSampling(2)).draw(7, 0) == begun(Uniform()).draw(7, 0)
    assert (DynamicSampling(2).refills, Uniform().refills) == (2, 0)


def test_stages_take_equal_parts_of_pool_and_steps() -> None:
    ascending = [float(index) for index in range(9)]
    growing, moving = begun(Staged(3), ascending, 6), begun(Staged(3, keep_easier=False), ascending, 6)
    assert [growing.window(2, step) for step in range(6)] == [(0, 3), (0, 3), (0, 6), (0, 6), (0, 9), (0, 9)]
    assert [moving.window(2, step) for step in (0, 1, 2, 5)] == [(0, 3), (0, 3), (3, 6), (6, 9)]
    assert {index for _ in range(20) for index in moving.draw(2, 3)} == {3, 4, 5}


def test_competence_grows_as_published() -> None:
    # T = 0.5 x 200 = 100. root: sqrt(36 (1 - 0.36) / 100 + 0.36) = sqrt(0.5904); linear: 25 x 0.4 / 100 + 0.6
    root, linear = begun(Competence("root", 0.6), steps=200), begun(Competence("linear", 0.6), steps=200)
    assert root.competence(0) == linear.competence(0) == pytest.approx(0.6)
    assert root.competence(36) == pytest.approx(0.768375, abs=1e-6)
    assert linear.competence(25) == pytest.approx(0.7)
    assert root.competence(100) == linear.competence(100) == root.competence(199) == 1


def test_competence_draws_from_the_easiest_share_but_never_from_less_than_a_batch() -> None:
    curriculum = begun(Competence("linear", 0.1, duration=1), [float(index) for index in range(100)], 90)
    assert curriculum.window(4, 0) == (0, 10)
    assert curriculum.window(4, 20) == (0, 30)  # 20 x 0.9 / 90 + 0.1 = 0.3
    assert curriculum.window(16, 0) == (0, 16)
    assert max(curriculum.draw(10, 0)) == 9


def test_classic_takes_one_level_after_the_other() -> None:
    levels = [probabilities(Classic(), step, 10).index(1.0) for step in range(12)]
    assert levels == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2]  # floor(3 t / 10), at most 2


def test_balanced_takes_every_level_as_often() -> None:
    assert probabilities(Balanced(), 5, 10) == pytest.approx([1 / 3] * 3)


def test_levels_are_drawn_anew_in_every_step() -> None:
    curriculum = begun(Balanced())
    batches = [tuple(THREE_LEVELS[index] for index in curriculum.draw(8, 0)) for _ in range(10)]
    assert len(set(batches)) > 5


def test_cosine_turns_from_easy_to_hard() -> None:
    # S = 6; a = 1, 1/2, 0
    assert probabilities(Cosine(), 0, 10) == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    assert probabilities(Cosine(), 5, 10) == pytest.approx([1 / 3] * 3)
    assert probabilities(Cosine(), 10, 10) == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    # t / T = 1/4: a = (1 + 0.707107) / 2 = 0.853553; p_0 = (0.853553 x 3 + 0.146447) / 6
    assert probabilities(Cosine(), 3, 12)[0] == pytest.approx(0.451184, abs=1e-6)


def test_the_gaussian_moves_with_the_root_of_the_steps_over_a_floor() -> None:
    # t / T = 1/4: mu = 1/2 x 2 = 1; q = (e^-2, 1, e^-2) / 1.270671 = 0.106507, 0.786986, 0.106507
    assert probabilities(Gaussian(p_min=0.1), 25, 100) == pytest.approx([0.174555, 0.650890, 0.174555], abs=1e-6)
    # published floor 2 / 12 = 1/6: 1/6 + q / 2
    assert probabilities(Gaussian(), 25, 100) == pytest.approx([0.219920, 0.560160, 0.219920], abs=1e-6)
    assert probabilities(Gaussian(sigma=0.01, p_min=0), 30, 100) == pytest.approx([0, 1, 0])
    with pytest.raises(ValueError, match=r"p_min=0\.5 exceeds 1/3 of 3 levels; use at most 0\.333"):
        begun(Gaussian(p_min=0.5))


# Rewards


def test_sec_moves_towards_the_mean_absolute_advantage() -> None:
    curriculum = begun(SEC(), [1.0, 2.0])
    # mean |A| of one in four is 3 x 0.4999 / 4 + 1.4997 / 4 = 0.749850; Q = 0.5 x that, then halved by a batch without
    curriculum.observe([0], [ONE_OF_FOUR], 0)
    assert curriculum.quality == pytest.approx([0.374925, 0], abs=1e-6)
    # e^0.374925 = 1.454883, over 2.454883
    assert curriculum.probabilities(1) == pytest.approx([0.592649, 0.407351], abs=1e-6)
    curriculum.observe([0, 0], [[1.0] * 4, [0.0] * 4], 1)
    assert curriculum.quality == pytest.approx([0.187463, 0], abs=1e-6)


def test_dump_is_an_upper_confidence_bound() -> None:
    curriculum = begun(DUMP(), [1.0, 2.0])
    assert curriculum.values() == [0, 0]
    curriculum.observe([0], [ONE_OF_FOUR], 0)
    # 2 ln 5 = 3.218876: 0.749850 + sqrt(3.218876 / 5) and 0 + sqrt(3.218876)
    assert curriculum.values() == pytest.approx([1.552206, 1.794123], abs=1e-6)
    # e^(-0.241917 / 0.1) = 0.088996, over 1.088996
    assert curriculum.probabilities(1) == pytest.approx([0.081723, 0.918277], abs=1e-6)


def test_dump_forgets_what_left_its_window_but_counts_it() -> None:
    curriculum = begun(DUMP(window=4), [1.0, 2.0])
    for group in (ONE_OF_FOUR, [1.0] * 4):
        curriculum.observe([0], [group], 0)
    assert list(curriculum.recent[0]) == [0, 0, 0, 0]
    assert curriculum.values()[0] == pytest.approx(math.sqrt(2 * math.log(9) / 9))


def test_a_softmax_survives_large_values() -> None:
    assert softmax([1e6, 0, 1e6], 0.1) == pytest.approx([0.5, 0, 0.5])


def test_adarft_moves_its_target_by_a_hyperbolic_tangent_and_stays_in_the_pool() -> None:
    curriculum = begun(AdaRFT())  # difficulties 2 to 4: one of the paper's points is 0.02
    curriculum.observe([0], [[1.0] * 9 + [0.0]], 0)
    assert curriculum.target == pytest.approx(2.664037, abs=1e-6)  # 2 + 0.02 x 50 tanh(2 x 0.4) = 2 + 0.664037
    curriculum.observe([0], [[1.0, 0.0]], 1)
    assert curriculum.target == pytest.approx(2.664037, abs=1e-6)  # tanh 0
    curriculum.observe([0], [[0.0] * 10], 2)
    assert curriculum.target == 2  # 2.664037 - 0.761594 lies below the easiest
    curriculum.observe([0], [[math.nan]], 3)
    assert curriculum.target == 2
    for step in range(4, 8):
        curriculum.observe([0], [[1.0]], step)
    assert curriculum.target == 4


def test_adarft_draws_from_a_band_around_its_target() -> None:
    curriculum = begun(AdaRFT(start=50, band=0.1), [float(index) for index in range(101)])
    drawn = [curriculum.draw(4, 0) for _ in range(50)]
    assert {index for batch in drawn for index in batch} == set(range(45, 56))  # 11 of 101, around 50
    assert all(len(set(batch)) == 4 for batch in drawn)
    assert len(set(begun(AdaRFT()).draw(4, 0))) == 4  # all 4 of the easiest level


def test_learnability_follows_what_groups_showed() -> None:
    curriculum = begun(Learnability(), [1.0, 1.0, 2.0])
    assert [curriculum.estimate(index) for index in range(3)] == [0.5] * 3
    curriculum.observe([0], [[1.0, 1.0, 1.0, 0.0]], 0)
    # 1/2 + 1/2 (3/4 - 1/2) = 0.625 for the problem and its level; p (1 - p) = 0.234375
    assert [curriculum.estimate(index) for index in range(3)] == [0.625, 0.625, 0.5]
    assert curriculum.score(1) == pytest.approx(0.234375)
    curriculum.observe([1, 0], [[0.0] * 4, [1.0] * 4], 1)
    # from 0.625 half way to 0 and to 1; the level half way to their mean 1/2
    assert [curriculum.estimate(0), curriculum.estimate(1)] == [0.8125, 0.3125]
    assert curriculum.level_estimates == [0.5625, 0.5]


def test_ragens_score_is_the_deviation_within_a_group() -> None:
    curriculum = begun(Learnability(score="deviation"), [1.0, 2.0])
    curriculum.observe([0], [[1.0, 1.0, 1.0, 0.0]], 0)
    # sqrt(3/16) = 0.433013; half way from 0.5
    assert curriculum.score(0) == pytest.approx(0.466506, abs=1e-6)


def test_learnability_takes_the_best_quarter_of_its_candidates() -> None:
    curriculum = begun(Learnability(explore=0, rate=1), [1.0] * 8)
    shown = [0.0, 0.25, 0.5, 0.75, 1.0, 0.0, 0.0, 0.0]
    curriculum.observe(range(8), [[rate] for rate in shown], 0)
    assert curriculum.draw(1, 1)[0] in (1, 2, 3)  # of 4 candidates, at least one of which is none of the five at 0
    assert set(curriculum.draw(2, 1)) <= {1, 2, 3}  # of all 8: two of the three that have a variance
    assert curriculum.draw(2, 1)[0] == 2  # the best first


def test_learnability_explores_without_regard_to_the_score() -> None:
    curriculum = begun(Learnability(explore=0.5, rate=1), [float(index % 2) for index in range(64)])
    curriculum.observe([0], [[0.0] * 4], 0)
    drawn = [index for step in range(32) for index in curriculum.draw(4, step)]
    hopeless = sum(index % 2 == 0 for index in drawn) / len(drawn)
    assert 0.15 < hopeless < 0.35  # half of the explored half; none of the others


def test_pools_are_drawn_by_weight_times_size() -> None:
    curriculum = begun(DifficultyPools(), [1.0] * 40)
    curriculum.draw(300, 0)
    assert curriculum.sizes()["unseen"] == 0
    rates = [0.25] * 10 + [0.75] * 10 + [0.76] * 20
    curriculum.observe(range(40), [[rate] for rate in rates], 0)
    assert curriculum.sizes() == {"hard": 10, "normal": 10, "easy": 20, "unseen": 0}
    # 10 x 0.2, 10 x 1, 20 x 0.2: of 16 parts 2, 10, 4
    drawn = curriculum.draw(8000, 1)
    assert sum(index < 10 for index in drawn) / 8000 == pytest.approx(2 / 16, abs=0.012)
    assert sum(10 <= index < 20 for index in drawn) / 8000 == pytest.approx(10 / 16, abs=0.016)
    curriculum.observe([0], [[0.5]], 1)
    assert curriculum.sizes() == {"hard": 9, "normal": 11, "easy": 20, "unseen": 0}


def test_unseen_problems_weigh_as_much_as_normal_ones() -> None:
    hits = 0
    for seed in range(400):
        curriculum = DifficultyPools(hard_weight=0)
        curriculum.begin([1.0] * 4, seed, 10)
        first = curriculum.draw(1, 0)
        curriculum.observe(first, [[0.5]], 0)
        hits += curriculum.draw(1, 1) == first
    assert hits / 400 == pytest.approx(1 / 4, abs=0.07)


def test_pools_that_all_weigh_nothing_are_drawn_alike() -> None:
    curriculum = begun(DifficultyPools(easy_weight=0), [1.0] * 3)
    curriculum.draw(60, 0)
    curriculum.observe(range(3), [[1.0]] * 3, 0)
    assert set(curriculum.draw(60, 1)) == {0, 1, 2}


def test_adcl_sorts_by_success_and_unseen_problems_as_their_level() -> None:
    # level 1: 0 seen at 0, so 0 too; level 2: mean 0.75; level 3: unseen, as the nearest, 2
    difficulties = [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
    assert resorted(range(6), difficulties, {1: 0.0, 2: 1.0, 3: 0.5}, 8) == [2, 4, 5, 3, 0, 1]
    assert resorted(range(6), difficulties, {}, 8) == list(range(6))


def test_adcl_goes_through_each_batch_and_sorts_the_next_one_anew() -> None:
    curriculum = ADCL(batches=2, lookahead=0.5, levels=4)
    curriculum.begin([float(index) for index in range(8)], 0, 4)
    assert [set(curriculum.draw(4, step)[:2]) for step in range(2)] == [{0, 1}, {2, 3}]
    curriculum.observe([0, 4, 5, 6, 7], [[1.0], [0.0], [0.25], [0.5], [1.0]], 1)
    assert curriculum.beliefs() == {"batch": 0, "probed": 4, "next_batch_success": pytest.approx(0.4375)}
    assert [set(curriculum.draw(2, step)) for step in (2, 3)] == [{7, 6}, {5, 4}]


def test_adcl_sorts_nothing_by_a_batch_it_skipped() -> None:
    curriculum = ADCL(batches=3, lookahead=0.5)
    curriculum.begin([float(index) for index in range(9)], 0, 3)
    curriculum.draw(2, 0)
    curriculum.observe([3, 4, 5], [[0.0], [0.5], [1.0]], 0)
    assert set(curriculum.draw(3, 2)) == {6, 7, 8}
    assert curriculum.order == curriculum.batches[2]
