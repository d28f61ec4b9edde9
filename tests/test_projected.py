"""GaLore and APOLLO project what they promise, follow their formulas, and resume bit for bit."""

import io
import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model

from efficient_rl.strategies.projected import Apollo, GaLore
from efficient_rl.strategies.protocol import AdamSettings, Strategy
from tests.conftest import slow_unless
from tests.small_models import MODELS, backward

SETTINGS = AdamSettings(learning_rate=1e-2, betas=(0.9, 0.99), epsilon=1e-8, weight_decay=0.1)
PLAIN = AdamSettings(learning_rate=1e-2, epsilon=1e-20)
STRATEGIES: dict[str, Strategy] = {
    "galore": GaLore(rank=4, gap=3),
    "apollo": Apollo(rank=4, gap=3),
    "apollo-mini": Apollo(rank=1, gap=3, scaling="tensor", scale=128),
}


@pytest.fixture
def packages() -> None:
    pytest.importorskip("galore_torch", exc_type=ImportError)
    pytest.importorskip("apollo_torch", exc_type=ImportError)


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, first: int, stop: int) -> None:
    for step in range(first, stop):
        backward(model, step)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_attention_and_mlp_matrices_are_projected_and_all_else_is_not(name: str, architecture: str) -> None:
    strategy = STRATEGIES[name]
    model = strategy.apply(MODELS[architecture]())
    optimizer = strategy.optimizer(model, SETTINGS)
    assert optimizer is not None
    names = {id(p): n for n, p in model.named_parameters()}
    owned = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    assert sorted(owned) == sorted(names.values())
    train(model, optimizer, 0, 1)
    for path, parameter in model.named_parameters():
        projected = (".attn." in path or "self_attn" in path or ".mlp." in path) and parameter.ndim == 2
        moments = optimizer.state[parameter]["exp_avg"]
        rank = 1 if name == "apollo-mini" else 4
        assert moments.numel() == (rank * max(parameter.shape) if projected else parameter.numel()), path
        assert ("projector" in optimizer.state[parameter]) == projected


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("architecture", slow_unless(("llama-untied",), ("gpt2-tied", "llama-untied")))
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_resumed_optimizer_goes_on_bit_for_bit(name: str, architecture: str) -> None:
    strategy, steps = STRATEGIES[name], 8
    model = strategy.apply(MODELS[architecture]())
    optimizer = strategy.optimizer(model, SETTINGS)
    assert optimizer is not None
    saved = []
    for step in range(steps):
        stream = io.BytesIO()
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, stream)
        saved.append(stream.getvalue())
        train(model, optimizer, step, step + 1)
    for cut, content in enumerate(saved):
        state = torch.load(io.BytesIO(content), weights_only=False)
        again = strategy.apply(MODELS[architecture]())
        again.load_state_dict(state["model"])
        resumed = strategy.optimizer(again, SETTINGS)
        assert resumed is not None
        resumed.load_state_dict(state["optimizer"])
        train(again, resumed, cut, steps)
        for path, tensor in model.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[path]), (cut, path)


@pytest.mark.usefixtures("packages")
def test_a_loaded_projection_moves_to_its_parameters_device() -> None:
    strategy = STRATEGIES["galore"]
    model = strategy.apply(MODELS["llama-untied"]())
    optimizer = strategy.optimizer(model, SETTINGS)
    assert optimizer is not None
    train(model, optimizer, 0, 1)
    elsewhere = model.to("meta")
    resumed = strategy.optimizer(elsewhere, SETTINGS)
    assert resumed is not None
    resumed.load_state_dict(optimizer.state_dict())
    moved = [state["projector"].ortho_matrix for state in resumed.state.values() if "projector" in state]
    assert {tensor.device.type for tensor in moved} == {"meta"}


@pytest.mark.usefixtures("packages")
def test_galore_takes_adams_first_step_in_the_space_of_the_top_singular_vectors() -> None:
    strategy = GaLore(rank=4, scale=0.5)
    model = strategy.apply(MODELS["llama-untied"]())
    optimizer = strategy.optimizer(model, PLAIN)
    assert optimizer is not None
    backward(model, 0)
    weight = model.get_parameter("model.layers.0.mlp.up_proj.weight")  # 32 x 16: projected from the right
    assert weight.grad is not None
    basis = torch.linalg.svd(weight.grad, full_matrices=False).Vh[:4]
    expected = weight.detach() - 1e-2 * 0.5 * torch.sign(weight.grad @ basis.T) @ basis
    optimizer.step()
    assert torch.allclose(weight, expected, atol=1e-5)


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("name", ["apollo", "apollo-mini"])
def test_apollo_takes_its_first_step_along_the_gradient_with_one_factor_a_channel_or_tensor(name: str) -> None:
    strategy = STRATEGIES[name]
    model = strategy.apply(MODELS["llama-untied"]())
    optimizer = strategy.optimizer(model, PLAIN)
    assert optimizer is not None
    backward(model, 0)
    weight = model.get_parameter("model.layers.0.mlp.up_proj.weight")
    assert weight.grad is not None
    before, gradient = weight.detach().clone(), weight.grad.clone()
    optimizer.step()
    basis = optimizer.state[weight]["projector"].ortho_matrix
    low = gradient @ basis.T
    rows = name == "apollo"
    factor = low.sign().norm(dim=1, keepdim=True) / low.norm(dim=1, keepdim=True) if rows else low.sign().norm() / low.norm()
    expected = before - 1e-2 * (1 if rows else 128**0.5) * factor * gradient
    assert torch.allclose(weight, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("strategy", [GaLore(rank=0.25), Apollo(rank=0.25)], ids=["galore", "apollo"])
@pytest.mark.parametrize(("name", "rank"), [("nano", 16), ("llama-tied", 4)])
def test_a_share_of_the_shorter_side_is_each_matrixs_rank(strategy: Strategy, name: str, rank: int) -> None:
    model = strategy.apply(MODELS[name]())
    optimizer = strategy.optimizer(model, SETTINGS)
    assert optimizer is not None
    assert [group.get("rank") for group in optimizer.param_groups] == [rank, None]


def test_settings_of_adam_reach_every_group(packages: None) -> None:
    for strategy in STRATEGIES.values():
        optimizer = strategy.optimizer(MODELS["llama-tied"](), SETTINGS)
        assert optimizer is not None
        for group in optimizer.param_groups:
            assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (1e-2, (0.9, 0.99), 1e-8, 0.1)


@pytest.mark.parametrize(("strategy", "package"), [(GaLore(), "galore_torch"), (Apollo(), "apollo_torch")])
def test_a_missing_package_is_named_with_its_extra(
    strategy: Strategy, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install 'efficient_rl\[projected\]'"):
        strategy.optimizer(MODELS["llama-tied"](), SETTINGS)


@pytest.mark.parametrize("kind", [GaLore, Apollo])
def test_a_rank_above_the_shorter_side_is_refused_with_both(kind: type[GaLore]) -> None:
    with pytest.raises(ValueError, match=r"strategy.rank=17 exceeds the shorter side 16 of model.layers.0.self_attn.q_proj"):
        kind(rank=17).apply(MODELS["llama-tied"]())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, r"strategy.rank=0 must be a whole number of at least 1"),
        ({"rank": 1.5}, r"strategy.rank=1.5 must be a number above 0 and below 1 \(a share"),
        ({"gap": 0}, r"strategy.gap=0 must be a whole number of at least 1"),
        ({"scale": 0}, r"strategy.scale=0 must be a number above 0"),
        ({"scaling": "row"}, r"strategy.scaling='row' is not known; use one of channel, tensor"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Apollo(**settings)


@pytest.mark.parametrize("strategy", [GaLore(), Apollo()], ids=["galore", "apollo"])
def test_a_model_with_adapters_is_refused(strategy: Strategy) -> None:
    model = get_peft_model(MODELS["llama-tied"](), LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    with pytest.raises(ValueError, match=r"works on a model's own weights"):
        strategy.apply(model)
