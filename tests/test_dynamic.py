"""Dynamic strategies follow their papers' rules, and go on after a resume as if nothing had happened."""

import math
import re
from collections.abc import Callable, Mapping

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from efficient_rl.strategies.autofreeze import AutoFreeze, AutoFreezeSchedule
from efficient_rl.strategies.block_sampling import BAdam, Lisa
from efficient_rl.strategies.blocks import find_blocks, names_by_block
from efficient_rl.strategies.gradient_noise import AutoSNR, SNRSchedule
from efficient_rl.strategies.gradient_ratio import AutoRGN
from efficient_rl.strategies.modules import is_bias
from efficient_rl.strategies.protocol import Strategy
from efficient_rl.strategies.slimfit import SlimFit, SlimFitSchedule, relative_distances
from tests.small_models import BLOCKS, MODELS, Loop, backward, trainable

STRATEGIES: Mapping[str, Strategy] = {
    "autofreeze": AutoFreeze(intervals=5),
    "slimfit": SlimFit(0.6),
    "lisa": Lisa(interval=2),
    "badam": BAdam(interval=2),
    "auto_rgn": AutoRGN(interval=5, batches=3),
    "auto_snr": AutoSNR(interval=5, batches=3, threshold=0.5),
    "auto_snr_rows": AutoSNR(interval=5, batches=3, threshold=1.1, variance="rows"),
}
STEPS = 12


def outside_blocks(model: PreTrainedModel) -> set[str]:
    """The names of embeddings, final norm and head."""
    return {n for n, _ in model.named_parameters()} - {n for names in names_by_block(model) for n in names}


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_only_active_parameters_change_and_each_has_a_gradient(name: str, architecture: str) -> None:
    loop = Loop(MODELS[architecture](), STRATEGIES[name], STEPS)
    for active in loop.rest(4):  # the loop itself checks what changed
        assert active
        assert active <= set(loop.parameters)
        assert active <= trainable(loop.model)
        assert {name for name, p in loop.parameters.items() if p in loop.optimizer.state} == active


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_resume_at_every_step_goes_on_bit_for_bit(name: str) -> None:
    whole = Loop(MODELS["qwen2-tied"](), STRATEGIES[name], STEPS, seed=3)
    checkpoints, chosen = [], []
    for active in whole.rest(STEPS):
        chosen.append((active, dict(whole.schedule.learning_rate_factors())))
        checkpoints.append(whole.checkpoint())
    assert len({frozenset(active) for active, _ in chosen}) > 1 or name == "auto_rgn"
    for cut, checkpoint in enumerate(checkpoints[:-1]):
        resumed = Loop(MODELS["qwen2-tied"](), STRATEGIES[name], STEPS, seed=3)
        resumed.resume(checkpoint)
        assert set(resumed.schedule.active) == chosen[cut][0]
        assert trainable(resumed.model) == chosen[cut][0]
        again = [(active, dict(resumed.schedule.learning_rate_factors())) for active in resumed.rest(STEPS)]
        assert again == chosen[cut + 1 :]
        for path, tensor in whole.model.state_dict().items():
            assert torch.equal(tensor, resumed.model.state_dict()[path]), (cut, path)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_saved_state_does_not_change_while_training_goes_on(name: str) -> None:
    loop = Loop(MODELS["qwen2-tied"](), STRATEGIES[name], STEPS)
    list(loop.rest(3))
    state = loop.schedule.state_dict()
    text = repr(state)
    list(loop.rest(4))
    assert repr(state) == text


@pytest.mark.parametrize("name", ["slimfit", "lisa", "badam"])
def test_random_choices_follow_from_the_seed(name: str) -> None:
    choices = [
        [frozenset(active) for active in Loop(MODELS["gpt2-tied"](), STRATEGIES[name], 8, seed).rest(8)]
        for seed in (1, 1, 2)
    ]
    assert choices[0] == choices[1] != choices[2]


@pytest.mark.parametrize("name", STRATEGIES)
def test_steps_without_any_gradient_do_no_harm(name: str) -> None:
    model = STRATEGIES[name].apply(MODELS["llama-tied"]())
    schedule = STRATEGIES[name].schedule(model, 0, STEPS)
    assert schedule is not None
    for step in range(STEPS):
        schedule.begin_step(step)
        schedule.see_gradients()
        schedule.see_update()
        assert schedule.active
        assert all(math.isfinite(factor) for factor in schedule.learning_rate_factors().values())


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_a_model_with_adapters_is_refused(strategy: Strategy) -> None:
    model = get_peft_model(MODELS["llama-tied"](), LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    with pytest.raises(ValueError, match=r"works on a model's own weights, not on PeftModelForCausalLM with its adapters"):
        strategy.apply(model)


def test_a_checkpoint_of_another_model_is_refused() -> None:
    strategy = Lisa()
    other = strategy.apply(MODELS["gpt2-tied"]())
    schedule = strategy.schedule(strategy.apply(MODELS["llama-tied"]()), 0, STEPS)
    with pytest.raises(ValueError, match=r"the saved schedule names \d+ parameters that cannot train here, such as transf"):
        schedule.load_state_dict(strategy.schedule(other, 0, STEPS).state_dict())


def set_gradients(model: PreTrainedModel, sums: list[float | None]) -> None:
    """Give each block gradients whose numbers have that sum, in one number each; None for no gradients at all."""
    for block, total in zip(find_blocks(model), sums, strict=True):
        for i, parameter in enumerate(block.parameters()):
            parameter.grad = None if total is None else torch.zeros_like(parameter)
            if i == 0 and total is not None:
                assert parameter.grad is not None
                parameter.grad.view(-1)[0] = total


def autofreeze(
    name: str = "llama-untied", interval: int = 1, **settings: bool
) -> tuple[PreTrainedModel, AutoFreezeSchedule]:
    model = AutoFreeze(intervals=10, **settings).apply(MODELS[name]())
    return model, AutoFreeze(intervals=10, **settings).schedule(model, 0, 10 * interval + 3)


def test_autofreeze_starts_at_the_first_block_whose_change_reaches_the_percentile() -> None:
    model, schedule = autofreeze()
    gradients: list[list[float | None]] = [
        [10, 10, 10, 10],
        [4, 18, 17, 16.5],  # changes .6 .8 .7 .65, median .675: from block 1
        [None, 17.1, 15.3, 13.2],  # changes .05 .1 .2, median .1: from block 2, which just reaches it
        [None, None, 7.65, 10.56],  # changes .5 .2, median .35: still from block 2
        [None, None, 6.12, 5.28],  # changes .2 .5: from block 3
        [None, None, None, 1],  # one block is left, which always reaches its own change
    ]
    starts = []
    for step, sums in enumerate([*gradients, gradients[-1]]):
        schedule.begin_step(step)
        starts.append(schedule.start)
        set_gradients(model, sums)
        schedule.see_gradients()
    assert starts == [0, 0, 1, 2, 2, 3, 3]
    frozen = {n for n, _ in model.named_parameters()} - trainable(model)
    assert frozen == {n for names in names_by_block(model)[:3] for n in names} | {"model.embed_tokens.weight"}


def test_autofreeze_sums_unclipped_gradients_with_their_signs_over_the_interval() -> None:
    model, schedule = autofreeze(interval=2)
    for step, value in enumerate([3.0, -1.0]):
        schedule.begin_step(step)
        set_gradients(model, [value, -value, 1, 1])
        schedule.see_gradients()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    schedule.begin_step(2)
    assert schedule.norms == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("name", "freeze_tied", "frozen"),
    [
        ("llama-untied", False, {"model.embed_tokens.weight"}),
        ("llama-tied", False, set()),
        ("llama-tied", True, {"model.embed_tokens.weight"}),
        ("gpt2-untied", False, {"transformer.wte.weight", "transformer.wpe.weight"}),
        ("gpt2-tied", False, set()),
        ("gpt2-tied", True, {"transformer.wte.weight", "transformer.wpe.weight"}),
    ],
)
def test_autofreeze_freezes_embeddings_with_the_first_block_unless_they_are_the_head(
    name: str, freeze_tied: bool, frozen: set[str]
) -> None:
    model, schedule = autofreeze(name, freeze_tied=freeze_tied)
    schedule.start = 1
    schedule.begin_step(0)
    assert outside_blocks(model) - set(schedule.active) == frozen
    schedule.start = 0
    schedule.begin_step(0)
    assert set(schedule.active) == {n for n, _ in model.named_parameters()}


@pytest.mark.parametrize(("steps", "interval"), [(80, 8), (1000, 100), (7, 1)])
def test_autofreeze_divides_the_run_into_its_intervals(steps: int, interval: int) -> None:
    model = AutoFreeze(intervals=10).apply(MODELS["llama-tied"]())
    assert AutoFreeze(intervals=10).schedule(model, 0, steps).interval == interval


def test_autofreeze_never_takes_a_block_back() -> None:
    loop = Loop(MODELS["nano"](), AutoFreeze(intervals=10), 10)
    sizes = [len(active) for active in loop.rest(10)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]


def test_slimfit_distance_is_the_mean_relative_change_of_weights_that_were_not_zero() -> None:
    before = [torch.tensor([[1.0, 2.0], [4.0, -5.0]]), torch.tensor([0.0, 2.0]), torch.zeros(3)]
    now = [torch.tensor([[1.1, 1.8], [4.0, -5.5]]), torch.tensor([7.0, 1.0]), torch.ones(3)]
    distances = relative_distances(before, now)
    assert distances[:2] == pytest.approx([(0.1 + 0.1 + 0 + 0.1) / 4, 0.5], rel=1e-5)
    assert distances[2] == math.inf


def slimfit(rate: float) -> SlimFitSchedule:
    return SlimFit(rate).schedule(SlimFit(rate).apply(MODELS["qwen2-tied"]()), 0, STEPS)


@pytest.mark.parametrize(("rate", "frozen"), [(0.9, 34), (0.5, 19), (0.0, 0), (0.999, 37)])
def test_slimfit_freezes_the_share_rounded_down_and_never_biases(rate: float, frozen: int) -> None:
    schedule = slimfit(rate)  # 4 blocks of 9 weights, embeddings, final norm: 38, and 12 biases
    assert len(schedule.distances) == 38
    schedule.begin_step(0)
    assert len(schedule.active) == 50 - frozen
    assert {name for name in schedule.parameters if is_bias(name)} <= set(schedule.active)


def test_slimfit_freezes_the_smallest_distances_and_keeps_theirs() -> None:
    schedule = slimfit(0.5)
    schedule.distances = {name: float(i) for i, name in enumerate(reversed(schedule.distances))}
    schedule.begin_step(0)
    moving = [name for name in schedule.active if not is_bias(name)]
    assert {schedule.distances[name] for name in moving} == set(range(19, 38))
    for name in moving:
        schedule.parameters[name].grad = torch.ones(1).expand_as(schedule.parameters[name])
    schedule.see_gradients()
    with torch.no_grad():
        for name in moving:
            schedule.parameters[name] *= 1.25
    schedule.see_update()
    assert [schedule.distances[name] for name in moving] == pytest.approx([0.25] * 19, rel=1e-4)
    assert sorted(set(schedule.distances.values()) - {schedule.distances[name] for name in moving}) == list(range(19))
    schedule.begin_step(1)  # those that froze with 1 to 18 are back, the one with 0 is not
    again = {name for name in schedule.active if not is_bias(name)}
    assert len(again - set(moving)) == 18


def test_slimfit_lets_every_tensor_train_before_any_trains_twice() -> None:
    loop = Loop(MODELS["llama-tied"](), SlimFit(0.75), STEPS)  # 38 tensors, 28 frozen: 10 a step
    seen = list(loop.rest(4))
    assert [len(active) for active in seen] == [10] * 4
    assert len(set().union(*seen[:3])) == 30
    assert len(set().union(*seen)) == 38


def test_lisa_trains_that_many_blocks_and_always_all_that_is_outside_them() -> None:
    model = MODELS["nano"]()
    schedule = Lisa(2, interval=5).schedule(Lisa().apply(model), 0, STEPS)
    blocks = names_by_block(model)
    counts = [0] * 6
    for step in range(0, 3000, 5):
        layers = schedule.layers(step)
        assert len(set(layers)) == 2
        assert all(schedule.layers(step + offset) == layers for offset in range(5))
        for layer in layers:
            counts[layer] += 1
    schedule.begin_step(7)
    chosen = {n for layer in schedule.layers(5) for n in blocks[layer]}
    assert set(schedule.active) == trainable(model) == chosen | {"model.embed_tokens.weight", "model.norm.weight"}
    assert all(150 < count < 250 for count in counts)  # 600 draws of 2 of 6


@pytest.mark.parametrize(
    ("order", "expected"),
    [("ascending", [0, 0, 1, 1, 2, 2, 3, 3, 0, 0, 1]), ("descending", [3, 3, 2, 2, 1, 1, 0, 0, 3, 3, 2])],
)
def test_badam_goes_round_the_blocks_in_order(order: str, expected: list[int]) -> None:
    model = MODELS["gpt2-untied"]()
    schedule = BAdam(2, order).schedule(BAdam().apply(model), 0, STEPS)
    assert [schedule.layer(step) for step in range(11)] == expected
    schedule.begin_step(10)
    assert set(schedule.active) == trainable(model) == set(names_by_block(model)[expected[10]])


def test_badam_in_random_order_trains_every_block_once_a_round() -> None:
    schedule = BAdam(1).schedule(BAdam().apply(MODELS["llama-tied"]()), 0, STEPS)
    rounds = [tuple(schedule.layer(BLOCKS * number + i) for i in range(BLOCKS)) for number in range(20)]
    assert all(sorted(order) == list(range(BLOCKS)) for order in rounds)
    assert len(set(rounds)) > 5


def test_badam_keeps_embeddings_norm_and_head_as_they_are() -> None:
    model = MODELS["qwen2-untied"]()
    before = {n: model.get_parameter(n).detach().clone() for n in outside_blocks(model)}
    assert len(before) == 3
    loop = Loop(model, BAdam(1), STEPS)
    assert not set(before) & set(loop.parameters)
    list(loop.rest(STEPS))
    assert all(torch.equal(model.get_parameter(n), tensor) for n, tensor in before.items())


def test_rgn_factors_are_mean_relative_gradient_norms_over_the_largest() -> None:
    strategy = AutoRGN(interval=4, batches=2)
    model = strategy.apply(MODELS["llama-tied"]())
    schedule = strategy.schedule(model, 0, STEPS)
    names = [n for n, _ in model.named_parameters()]
    ratios = [(0.1, 0.4), (0.3, 0.4), (9.0, 9.0), (9.0, 9.0), (0.5, 0.1), (0.1, 0.1)]
    expected = [(0.25, 1.0), (0.5, 1.0), (0.5, 1.0), (0.5, 1.0), (0.5, 1.0), (1.0, 1 / 3)]
    for step, (pair, wanted) in enumerate(zip(ratios, expected, strict=True)):
        schedule.begin_step(step)
        for name, ratio in zip(names[:2], pair, strict=True):
            parameter = model.get_parameter(name)
            parameter.grad = -ratio * parameter.detach()
        schedule.see_gradients()
        factors = schedule.learning_rate_factors()
        assert [factors[name] for name in names[:2]] == pytest.approx(wanted, rel=1e-5), step
        assert set(schedule.active) == set(names)


def test_rgn_leaves_tensors_of_zeros_at_the_full_rate() -> None:
    strategy = AutoRGN(interval=2, batches=1)
    model = strategy.apply(MODELS["gpt2-tied"]())  # biases start at 0
    schedule = strategy.schedule(model, 0, STEPS)
    schedule.begin_step(0)
    backward(model, 0)
    schedule.see_gradients()
    factors = schedule.learning_rate_factors()
    assert not any(name.endswith("bias") for name in factors)
    assert max(factors.values()) == 1
    assert 0 <= min(factors.values()) < 1


def snr(strategy: AutoSNR, gradients: list[list[list[float]]]) -> tuple[SNRSchedule, str]:
    """A schedule that saw these gradients of one tensor's corner, in so many steps, all else 0; and the tensor's name."""
    model = strategy.apply(MODELS["llama-tied"]())
    schedule = strategy.schedule(model, 0, STEPS)
    assert isinstance(schedule, SNRSchedule)
    name = "model.layers.1.self_attn.q_proj.weight"
    for step, corner in enumerate(gradients):
        schedule.begin_step(step)
        values = torch.tensor(corner)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        weight = model.get_parameter(name)
        assert weight.grad is not None
        weight.grad[: len(values), : values.shape[1]] = values
        schedule.see_gradients()
    return schedule, name


def test_snr_over_samples_is_squared_mean_over_variance_of_the_steps() -> None:
    strategy = AutoSNR(interval=9, batches=4, epsilon=1e-12)
    # steps 1, 3, 5: mean 3, variance 4, ratio 9 / 4; steps 2, 2, 5: mean 3, variance 3, ratio 3; of 16 x 16 numbers
    schedule, name = snr(strategy, [[[1.0, 2.0]], [[3.0, 2.0]], [[5.0, 5.0]]])
    ratios = schedule.ratios()
    assert ratios[name] == pytest.approx((9 / 4 + 3) / 256, rel=1e-5)
    assert sum(ratio for other, ratio in ratios.items() if other != name) == 0
    assert set(schedule.active) == {name}  # below 0.95, but the closest to it


def test_snr_over_rows_is_squared_gradient_over_variance_along_dimension_0() -> None:
    strategy = AutoSNR(interval=9, batches=4, variance="rows", epsilon=1.0)
    # columns (1, 3, 0 x 14) and (2, 6, 0 x 14): variances (10 - 16 / 16) / 15 = .6 and 2.4
    step = [[1.0, 2.0], [3.0, 6.0]]
    once = (10 / 1.6 + 40 / 3.4) / 256
    schedule, name = snr(strategy, [step])
    assert schedule.ratios()[name] == pytest.approx(once, rel=1e-5)
    schedule, name = snr(strategy, [step, [[0.0, 0.0]], step])  # a step without any gradient does not count
    assert schedule.ratios()[name] == pytest.approx(once, rel=1e-5)
    schedule, name = snr(strategy, [step, [[4.0, 0.0]]])  # variance (16 - 1) / 15 = 1
    assert schedule.ratios()[name] == pytest.approx((once + 16 / 2 / 256) / 2, rel=1e-5)


def test_snr_over_rows_reaches_the_published_threshold_whatever_the_gradient() -> None:
    noise = torch.randn(16, 16, generator=torch.Generator().manual_seed(0)).tolist()
    schedule, name = snr(AutoSNR(interval=9, batches=4, variance="rows"), [noise])
    assert schedule.ratios()[name] >= 15 / 16 - 1e-4
    schedule, name = snr(AutoSNR(interval=9, batches=4, variance="samples"), [noise, (-torch.tensor(noise)).tolist()])
    assert schedule.ratios()[name] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("variance", ["samples", "rows"])
def test_snr_freezes_what_is_below_the_threshold_until_the_next_measurement(variance: str) -> None:
    strategy = AutoSNR(interval=4, batches=2, threshold=1.0, variance=variance, epsilon=1e-6)
    model = strategy.apply(MODELS["llama-untied"]())
    schedule = strategy.schedule(model, 0, STEPS)
    everything = {n for n, _ in model.named_parameters()}
    clear = {n for n in everything if re.search(r"layers\.[01]\.", n)}
    draw = torch.Generator().manual_seed(0)
    for step in range(8):
        if step == 4:
            clear = everything - clear
        schedule.begin_step(step)
        assert trainable(model) == (everything if step % 4 < 2 else set(schedule.active))
        for name, parameter in model.named_parameters():
            noise = 1e-4 * torch.randn(parameter.shape, generator=draw)
            parameter.grad = torch.ones_like(parameter) + noise if name in clear else noise
        schedule.see_gradients()
        if step % 4 in (1, 2, 3):
            assert set(schedule.active) == clear, step


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AutoFreeze(percentile=101), r"strategy.percentile=101 must be a number from 0 to 100"),
        (lambda: AutoFreeze(intervals=0), r"strategy.intervals=0 must be a whole number of at least 1"),
        (lambda: AutoFreeze(freeze_tied=1), r"strategy.freeze_tied=1 must be true or false"),
        (lambda: SlimFit(1.0), r"strategy.freezing_rate=1.0 must be a number of at least 0, below 1"),
        (lambda: Lisa(0), r"strategy.active_layers=0 must be a whole number of at least 1"),
        (lambda: Lisa(7).check_blocks(6), r"strategy.active_layers=7 exceeds the model's 6 blocks; use at most 6"),
        (lambda: Lisa(7).apply(MODELS["llama-tied"]()), r"strategy.active_layers=7 exceeds the model's 4 blocks"),
        (lambda: BAdam(order="up"), r"strategy.order='up' is not known; use one of random, descending, ascending"),
        (lambda: AutoRGN(interval=2, batches=3), r"strategy.interval=2 must be .* of at least strategy.batches=3"),
        (lambda: AutoSNR(batches=1), r"strategy.batches=1 gives no variance over samples; use at least 2, or"),
        (lambda: AutoSNR(variance="columns"), r"strategy.variance='columns' is not known; use one of samples, rows"),
        (lambda: AutoSNR(epsilon=0), r"strategy.epsilon=0 must be a number above 0"),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
