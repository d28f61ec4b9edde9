"""Every adapter method trains what it promises, by its own rule, and its result loads elsewhere with the same logits."""

import copy
import functools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from peft.optimizers import create_lorafa_optimizer
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedModel

from efficient_rl.errors import ConfigError
from efficient_rl.models import load_model
from efficient_rl.strategies.adalora import orthogonality_gradient
from efficient_rl.strategies.adapter_targets import adapter_layers
from efficient_rl.strategies.adapters import Lora
from efficient_rl.strategies.protocol import AdamSettings, Schedule, Strategy
from tests.conftest import environment, tiny_run

HIDDEN, INNER, BLOCKS, RANK = 64, 192, 6, 8
IN_PLUS_OUT = 4 * (HIDDEN + HIDDEN) + 3 * (HIDDEN + INNER)  # of q, k, v, o and of gate, up, down: one block
OUT = 4 * HIDDEN + 2 * INNER + HIDDEN
MODULES = 7
LORA = RANK * IN_PLUS_OUT
PAIRS = r"lora_[AB]\.default\.weight$"
TRAINABLE = {  # numbers in one block, and what their names look like
    "lora": (LORA, PAIRS),
    "lora_last": (LORA / 3, PAIRS),  # 2 of 6 blocks
    "rslora": (LORA, PAIRS),
    "dora": (LORA + OUT, rf"{PAIRS}|lora_magnitude_vector\.default\.weight$"),
    "pissa": (LORA, PAIRS),
    "lora_fa": (RANK * OUT, r"lora_B\.default\.weight$"),
    "lora_xs": (MODULES * RANK**2, r"lora_A\.default\.parametrizations\.weight\.0\.R$"),
    "adalora": (12 * IN_PLUS_OUT + MODULES * 12, r"lora_[ABE]\.default$"),
    "vera": (MODULES * 256 + OUT, r"vera_lambda_[bd]\.default$"),
    "randlora": (MODULES * (32 * 2 + 2 * HIDDEN), r"randlora_(lambda|gamma)\.default$"),  # two bases of rank 32 span 64
    "tinylora": (MODULES * 64, r"tinylora_v\.default\.\d+$"),
    "loha": (2 * LORA, r"hada_w[12]_[ab]\.default$"),
    "lokr": (4 * (8 * 8 + 8 * 8) + 3 * (12 * 8 + 16 * 8), r"lokr_w[12]\.default$"),  # 64 = 8 x 8, 192 = 12 x 16
    "ia3": (HIDDEN + HIDDEN + INNER, r"ia3_l\.default$"),
    "oft": ((6 * 2 + 6) * 32 * 31 // 2, r"oft_R\.default\.weight$"),  # blocks of 32: two in 64 inputs, six in 192
}
EXACT_START = sorted(set(TRAINABLE) - {"pissa", "lora_xs"})  # those two: up to rounding, and up to init_std
TINY_LLAMA = LlamaConfig(
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, vocab_size=50, pad_token_id=0
)
TINY_GPT2 = GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=50, bos_token_id=1, eos_token_id=1)
NO_CONV1D = ["loha", "lokr", "oft"]
IDS = torch.arange(3, 35).reshape(2, 16)


@functools.cache
def strategy_of(*overrides: str) -> Strategy:
    built: Strategy = tiny_run(*overrides).strategy.build()
    return built


@functools.cache
def _nano() -> PreTrainedModel:
    return load_model(tiny_run().model)


def nano() -> PreTrainedModel:
    return copy.deepcopy(_nano())


def applied(strategy: Strategy, model: PreTrainedModel | None = None, seed: int = 0) -> PeftModel:
    torch.manual_seed(seed)
    return strategy.apply(nano() if model is None else model)


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def optimizer_of(strategy: Strategy, model: PeftModel) -> torch.optim.Optimizer:
    return strategy.optimizer(model, AdamSettings(1e-2)) or torch.optim.AdamW(trainable(model).values(), lr=1e-2)


def train(
    model: PeftModel, optimizer: torch.optim.Optimizer, schedule: Schedule | None, first: int = 0, last: int = 3
) -> None:
    for step in range(first, last):
        if schedule:
            schedule.begin_step(step)
        logits = model(IDS.roll(step, 1)).logits
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), IDS.roll(step, 1)[:, 1:].flatten()).backward()
        if schedule:
            schedule.see_gradients()
        optimizer.step()
        if schedule:
            schedule.see_update()
        optimizer.zero_grad()


def trained(name: str, steps: int = 3) -> tuple[Strategy, PeftModel]:
    strategy = strategy_of(f"strategy={name}")
    model = applied(strategy)
    train(model, optimizer_of(strategy, model), strategy.schedule(model, 0, steps), last=steps)
    return strategy, model.eval()


def layer_of(model: PeftModel, ending: str) -> Any:
    return next(layer for name, layer in adapter_layers(model) if name.endswith(ending))


def set_weight(model: PreTrainedModel, diagonal: list[float]) -> None:
    weight = model.model.layers[0].self_attn.q_proj.weight.data
    weight.copy_(torch.diag(torch.tensor(diagonal + [0.0] * (len(weight) - len(diagonal)))))


@pytest.mark.parametrize("name", TRAINABLE)
def test_as_many_numbers_train_as_worked_out_by_hand(name: str) -> None:
    model = applied(strategy_of(f"strategy={name}"))
    assert sum(parameter.numel() for parameter in trainable(model).values()) == BLOCKS * TRAINABLE[name][0]
    assert all(re.search(TRAINABLE[name][1], path) for path in trainable(model))


@pytest.mark.parametrize("name", TRAINABLE)
def test_training_changes_every_promised_tensor_and_no_other(name: str) -> None:
    strategy = strategy_of(f"strategy={name}")
    model = applied(strategy)
    promised = set(trainable(model))
    before = {key: value.clone() for key, value in [*model.named_parameters(), *model.named_buffers()]}
    train(model, optimizer_of(strategy, model), strategy.schedule(model, 0, 30))  # 3 steps, before AdaLoRA drops any rank
    after = dict([*model.named_parameters(), *model.named_buffers()])
    assert {key for key, value in after.items() if not torch.equal(value, before[key])} == promised
    if name != "pissa":
        plain = {key.replace("base_model.model.", "").replace(".base_layer", ""): value for key, value in after.items()}
        assert all(torch.equal(plain[key], value) for key, value in nano().named_parameters())


@pytest.mark.parametrize("name", TRAINABLE)
def test_it_starts_as_the_base_model(name: str) -> None:
    model, base = applied(strategy_of(f"strategy={name}")).eval(), nano()
    gap = (model(IDS).logits - base(IDS).logits).abs().max()
    assert gap == 0 if name in EXACT_START else gap < {"pissa": 1e-4, "lora_xs": 2e-2}[name]


@pytest.mark.parametrize("name", TRAINABLE)
def test_what_is_saved_loads_on_the_original_model_with_the_same_logits(name: str, tmp_path: Path) -> None:
    strategy, model = trained(name)
    strategy.save(model, tmp_path / "model")
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "model")
    logits, start = model(IDS).logits, nano()(IDS).logits
    assert (logits - start).abs().max() > 1e-3
    torch.testing.assert_close(loaded(IDS).logits, logits, rtol=1e-5, atol=1e-4 if name == "pissa" else 1e-5)


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_resumed_training_ends_as_an_uninterrupted_one(name: str, tmp_path: Path) -> None:
    strategy, straight = trained(name, steps=4)
    model = applied(strategy)
    optimizer, schedule = optimizer_of(strategy, model), strategy.schedule(model, 0, 4)
    train(model, optimizer, schedule, last=2)
    model.save_pretrained(tmp_path)  # as the Trainer's checkpoint does
    torch.save([optimizer.state_dict(), schedule and schedule.state_dict()], tmp_path / "state")
    resumed = applied(strategy)
    resumed.load_adapter(tmp_path, "default", is_trainable=True)
    optimizer, schedule = optimizer_of(strategy, resumed), strategy.schedule(resumed, 0, 4)
    states = torch.load(tmp_path / "state", weights_only=True)
    optimizer.load_state_dict(states[0])
    if schedule:
        schedule.load_state_dict(states[1])
    train(resumed, optimizer, schedule, first=2, last=4)
    end = resumed.state_dict()
    assert all(torch.equal(end[key], value) for key, value in straight.state_dict().items())


@pytest.mark.parametrize("name", TRAINABLE)
def test_switching_adapters_off_and_on_changes_neither_logits_nor_what_trains(name: str) -> None:
    model = applied(strategy_of(f"strategy={name}")).eval()
    before, names = model(IDS).logits, set(trainable(model))
    with model.disable_adapter():
        model(IDS)
    assert torch.equal(model(IDS).logits, before)
    assert set(trainable(model)) == names


@pytest.mark.parametrize("config", [TINY_LLAMA, TINY_GPT2], ids=lambda config: config.model_type)
@pytest.mark.parametrize("name", TRAINABLE)
def test_it_trains_other_architectures_or_says_why_not(name: str, config: Any) -> None:
    strategy, base = strategy_of(f"strategy={name}", "lora.rank=4"), AutoModelForCausalLM.from_config(config).eval()
    start = base(IDS).logits
    if config is TINY_GPT2 and name in NO_CONV1D:
        with pytest.raises(ValueError, match=r"no form for Conv1D modules such as transformer\.h\.0.*use strategy=lora"):
            strategy.apply(base)
        return
    model = applied(strategy, base)
    torch.testing.assert_close(model.eval()(IDS).logits, start, rtol=0, atol=1e-4)
    train(model, optimizer_of(strategy, model), strategy.schedule(model, 0, 3))
    assert not torch.allclose(model(IDS).logits, start, atol=1e-3)


def test_the_same_seed_draws_the_same_adapters_and_another_seed_others() -> None:
    for name in ("lora", "lora_xs"):
        strategy = strategy_of(f"strategy={name}")
        first, again, other = (trainable(applied(strategy, seed=seed)) for seed in (0, 0, 1))
        assert all(torch.equal(first[key], again[key]) for key in first)
        assert any(not torch.equal(first[key], other[key]) for key in first)


def test_lora_adds_alpha_over_rank_and_rslora_alpha_over_its_root() -> None:
    assert layer_of(applied(strategy_of("strategy=lora")), "0.mlp.up_proj").scaling == {"default": 2.0}
    scaling = layer_of(applied(strategy_of("strategy=rslora")), "0.mlp.up_proj").scaling["default"]
    assert scaling == pytest.approx(5.656854)  # 16 / sqrt(8)


def test_dora_gives_every_output_the_norm_that_it_trains() -> None:
    _, model = trained("dora")
    layer = layer_of(model, "0.mlp.up_proj")
    original = nano().model.layers[0].mlp.up_proj.weight
    magnitude = layer.lora_magnitude_vector["default"].weight
    assert not torch.allclose(magnitude, original.norm(dim=1))
    layer.merge()
    torch.testing.assert_close(layer.weight.norm(dim=1), magnitude)


def test_pissa_leaves_the_smaller_singular_values_in_the_base() -> None:
    base = AutoModelForCausalLM.from_config(TINY_LLAMA)
    set_weight(base, [5.0, 4.0, 2.0, 1.0])
    layer = layer_of(applied(strategy_of("strategy=pissa", "lora.rank=2"), base), "0.self_attn.q_proj")
    residual, adapter = torch.zeros(32), torch.zeros(32)
    residual[2:4], adapter[:2] = torch.tensor([2.0, 1.0]), torch.tensor([5.0, 4.0])
    torch.testing.assert_close(layer.weight.data, torch.diag(residual))
    torch.testing.assert_close(layer.get_delta_weight("default"), torch.diag(adapter))


def test_lora_xs_scales_the_top_singular_directions() -> None:
    base = AutoModelForCausalLM.from_config(TINY_LLAMA)
    set_weight(base, [5.0, 4.0, 2.0, 1.0])
    strategy = strategy_of("strategy=lora_xs", "lora.rank=2", "lora.alpha=6")
    layer = layer_of(applied(strategy, base), "0.self_attn.q_proj")
    layer.lora_A["default"].parametrizations.weight[0].R.data = torch.tensor([[1.0, 0.0], [0.0, 0.5]])
    torch.testing.assert_close(layer.get_delta_weight("default").diagonal()[:4], torch.tensor([15.0, 6.0, 0.0, 0.0]))


def test_vera_weighs_matrices_that_all_modules_share() -> None:
    _, model = trained("vera")
    up, down = layer_of(model, "0.mlp.up_proj"), layer_of(model, "5.mlp.down_proj")
    shared_a, shared_b = model.base_model.vera_A["default"], model.base_model.vera_B["default"]
    assert up.vera_A["default"] is down.vera_A["default"] is shared_a
    assert (tuple(shared_a.shape), tuple(shared_b.shape)) == ((256, INNER), (INNER, 256))
    b, d = down.vera_lambda_b["default"], down.vera_lambda_d["default"]
    by_rule = torch.diag(b) @ shared_b[:HIDDEN] @ torch.diag(d) @ shared_a
    torch.testing.assert_close(down.get_delta_weight("default"), by_rule, rtol=1e-4, atol=1e-5)


def test_tinylora_can_train_thirteen_numbers_in_all() -> None:
    model = applied(strategy_of("strategy=tinylora", "strategy.u=13", "strategy.weight_tying=1.0"))
    assert sum(parameter.numel() for parameter in trainable(model).values()) == 13


def test_lora_fa_corrects_the_gradient_as_peft_does() -> None:
    strategy = strategy_of("strategy=lora_fa")
    ours, theirs = applied(strategy), applied(strategy)
    reference = create_lorafa_optimizer(theirs, r=8, lora_alpha=16, lr=1e-2)
    optimizer = optimizer_of(strategy, ours)
    train(ours, optimizer, None, last=1)
    train(theirs, reference, None, last=1)
    for name, up in trainable(ours).items():
        moment = reference.state[name[: name.find("lora")] + "lora"]["exp_avg_B"]
        scale = float(moment.abs().max())
        torch.testing.assert_close(
            optimizer.state[up]["exp_avg"], moment, rtol=2e-2, atol=2e-2 * scale
        )  # theirs is bfloat16


def test_lora_fa_divides_by_the_square_of_what_a_scales() -> None:
    strategy = strategy_of("strategy=lora_fa", "lora.rank=1", "lora.alpha=3")
    model = applied(strategy)
    optimizer = optimizer_of(strategy, model)
    layer = layer_of(model, "0.mlp.up_proj")
    up, down = layer.lora_B["default"].weight, layer.lora_A["default"].weight
    up.grad = torch.full_like(up, 9.0)
    optimizer.step()
    torch.testing.assert_close(up.grad, torch.full_like(up, 1 / float(down.square().sum())))  # 9 / 3^2 / |a|^2


def test_adalora_drops_ranks_as_its_cubic_says() -> None:
    strategy = strategy_of("strategy=adalora")
    model = applied(strategy)
    schedule, ranks = strategy.schedule(model, 0, 10), []
    for step in range(10):
        train(model, optimizer_of(strategy, model), schedule, step, step + 1)
        ranks.append(schedule.total_rank)
    start, end = 42 * 12, 42 * 8  # falls from step 1 to step 7: (start - end) (1 - (step - 1) / 6)^3 + end
    assert (start, end) == (504, 336)
    assert ranks == [None, 433, 385, 357, 342, 336, 336, 336, 336, 336]
    assert sum(int((p != 0).sum()) for name, p in model.named_parameters() if "lora_E" in name) == 336


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (2, 1), (3, 2)])
def test_adalora_reaches_its_budget_however_short_the_training(steps: int, every: int) -> None:
    strategy = strategy_of("strategy=adalora", f"strategy.every={every}")
    model = applied(strategy)
    schedule = strategy.schedule(model, 0, steps)
    train(model, optimizer_of(strategy, model), schedule, last=steps)
    assert schedule.total_rank == 336
    assert set(schedule.active) == set(trainable(model))


def test_adalora_pulls_its_factors_towards_orthogonality() -> None:
    row = torch.tensor([[2.0, 0.0]])  # |f f^T - 1| = 3, its slope 2 f
    torch.testing.assert_close(orthogonality_gradient(row, rows=True), torch.tensor([[4.0, 0.0]]))
    torch.testing.assert_close(orthogonality_gradient(row.T, rows=False), torch.tensor([[4.0], [0.0]]))
    assert torch.equal(orthogonality_gradient(torch.eye(3), rows=True), torch.zeros(3, 3))
    strategy = strategy_of("strategy=adalora")
    model = applied(strategy)
    labelled = model(IDS, labels=IDS).loss  # PEFT adds the penalty to this loss
    labelled.backward()
    expected = {name: parameter.grad.clone() for name, parameter in trainable(model).items()}
    model.zero_grad()
    model.base_model.model(IDS, labels=IDS).loss.backward()
    strategy.schedule(model, 0, 3).see_gradients()
    for name, parameter in trainable(model).items():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("layers", "blocks"),
    [("[-1]", {5}), ("'-2:'", {4, 5}), ("[0,2]", {0, 2}), ("'last 25%'", {4, 5}), ("null", set(range(6)))],
)
def test_adapters_sit_on_the_chosen_layers_only(layers: str, blocks: set[int]) -> None:
    for name in ("dora", "ia3"):
        model = applied(strategy_of(f"strategy={name}", f"strategy.layers={layers}"))
        assert {int(path.split("layers.")[1].split(".")[0]) for path in trainable(model)} == blocks


def test_a_list_of_target_modules_adapts_these_only() -> None:
    for targets in ("[q_proj,up_proj]", r"'.*\.(q_proj|up_proj)'"):
        model = applied(strategy_of("strategy=lora", f"lora.target_modules={targets}"))
        assert {name.rpartition(".")[2] for name, _ in adapter_layers(model)} == {"q_proj", "up_proj"}
        assert len(adapter_layers(model)) == 12


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["strategy=lora", "strategy.layers=[6]"], r"layers=6 exceeds the model's 6 blocks; use -6 to 5"),
        (["strategy=vera", "strategy.layers=3:9"], r"layers='3:9' exceeds the model's 6 blocks"),
        (["strategy=lora", "lora.rank=0"], r"lora\.rank=0 must be a whole number of at least 1"),
        (["strategy=loha", "lora.alpha=0"], r"lora\.alpha=0 must be above 0"),
        (["strategy=oft", "lora.dropout=1"], r"lora\.dropout=1 must lie in 0 <= dropout < 1"),
        (["strategy=tinylora", "strategy.weight_tying=2"], r"weight_tying=2 must lie in 0 <= weight_tying <= 1"),
        (["strategy=lokr", "strategy.factor=0"], r"strategy\.factor=0 must be a whole number of at least 1"),
        (["strategy=lora_xs", "strategy.init_std=-1"], r"init_std=-1 must not be negative"),
        (["strategy=adalora", "strategy.warmup=0.6", "strategy.final=0.4"], r"their sum must be below 1"),
        (["strategy=adalora", "strategy.initial_rank_factor=1"], r"initial_rank_factor=1 must be above 1"),
        (["strategy=lora", "lora.target_modules='(q_proj'"], r"is no regular expression"),
    ],
)
def test_wrong_settings_are_refused_before_anything_runs(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_run(*overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["strategy=lora", "lora.target_modules=[q_proj,v_prj]"], r"'v_prj' names no linear module; .* q_proj, k_proj"),
        (["strategy=oft", "lora.target_modules=.*attention"], r"names no linear module; use all-linear or a list of q_proj"),
        (
            ["strategy=lora", "strategy.layers=[0]", "lora.target_modules=[lm_head]"],
            r"no linear module within layers=\(0,\)",
        ),
        (["strategy=pissa", "lora.rank=65"], r"lora\.rank=65 exceeds the 64 singular directions of .*; use lora\.rank<=64"),
        (["strategy=lora_xs", "lora.rank=65"], r"lora\.rank=65 exceeds the 64 singular directions"),
        (["strategy=pissa", "lora.target_modules=[lm_head]"], r"names the output head"),
        (["strategy=oft", "strategy.block_size=48"], r"block_size=48 does not divide the 64 inputs of .*q_proj; use 32"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_with_the_remedy(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        applied(strategy_of(*overrides))


def test_planning_with_adapters_does_not_load_torch() -> None:
    modules = "adapters, adapter_forms, adalora, lora_xs"
    code = f"import sys\nfrom efficient_rl.strategies import {modules}\nassert not {{'torch', 'peft'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())
    assert Lora(rank=1, alpha=1).check_blocks(1) is None
