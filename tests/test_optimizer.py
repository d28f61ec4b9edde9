"""The optimizer's state goes by name, and a frozen parameter has none."""

import pytest
import torch
from torch import nn

from efficient_rl.training.optimizer import (
    drop_frozen,
    load_state_by_name,
    one_group_a_tensor,
    scale_learning_rates,
    state_by_name,
)


def stepped(model: nn.Module, names: list[str]) -> torch.optim.AdamW:
    """An optimizer over the named parameters, in that order, after one step with different gradients."""
    found = dict(model.named_parameters())
    optimizer = torch.optim.AdamW([found[name] for name in names], lr=0.1)
    for index, name in enumerate(sorted(names)):
        found[name].grad = torch.full_like(found[name], float(index + 1))
    optimizer.step()
    return optimizer


def make() -> tuple[nn.Module, dict[nn.Parameter, str], list[str]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    names = [name for name, _ in model.named_parameters()]
    return model, {p: n for n, p in model.named_parameters()}, names


def test_state_saved_in_one_order_is_loaded_by_name_into_another() -> None:
    model, by_parameter, names = make()
    saved = state_by_name(stepped(model, names), by_parameter)
    other = torch.optim.AdamW([dict(model.named_parameters())[name] for name in reversed(names)], lr=0.5)
    load_state_by_name(other, by_parameter, saved)
    assert other.param_groups[0]["lr"] == 0.1
    for parameter, name in by_parameter.items():
        expected = 0.1 * (sorted(names).index(name) + 1)  # (1 - beta1) x gradient
        assert torch.allclose(other.state[parameter]["exp_avg"], torch.full_like(parameter, expected))


def test_state_of_other_parameters_is_refused_by_name() -> None:
    model, by_parameter, names = make()
    saved = state_by_name(stepped(model, names[:2]), by_parameter)
    with pytest.raises(ValueError, match=r"owns 2 tensors and this one 2; not in both: 0.bias, 0.weight, 1.bias \.\.\."):
        load_state_by_name(stepped(model, names[2:]), by_parameter, saved)


def test_what_was_frozen_has_neither_gradient_nor_state() -> None:
    model, by_parameter, names = make()
    optimizer = stepped(model, names)
    drop_frozen(optimizer, by_parameter, {"1.weight"})
    kept = {by_parameter[p] for p in optimizer.state}
    assert kept == {"1.weight"} == {n for p, n in by_parameter.items() if p.grad is not None}
    saved = state_by_name(optimizer, by_parameter)
    assert set(saved["state"]) == {"1.weight"}
    fresh = torch.optim.AdamW(model.parameters(), lr=0.1)
    load_state_by_name(fresh, by_parameter, saved)
    assert {by_parameter[p] for p in fresh.state} == {"1.weight"}


def test_learning_rates_are_scaled_by_tensor_for_one_step() -> None:
    model, by_parameter, names = make()
    optimizer = stepped(model, names)
    one_group_a_tensor(optimizer)
    scale_learning_rates(optimizer, by_parameter, {"0.weight": 0.5, "1.bias": 0.0})
    rates = {by_parameter[group["params"][0]]: group["lr"] for group in optimizer.param_groups}
    assert rates == {"0.weight": 0.05, "0.bias": 0.1, "1.weight": 0.1, "1.bias": 0.0}
