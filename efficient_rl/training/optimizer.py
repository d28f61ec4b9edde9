"""An optimizer for parameters that train at times: owns all of them, with state by name."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

Names = Mapping[nn.Parameter, str]


def one_group_a_tensor(optimizer: Optimizer) -> None:
    """Give every parameter its own group, so that each can have its own learning rate."""
    groups: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        groups += [{**group, "params": [parameter]} for parameter in group["params"]]
    optimizer.param_groups[:] = groups


def scale_learning_rates(optimizer: Optimizer, names: Names, factors: Mapping[str, float]) -> None:
    """Multiply the learning rate of this step; the scheduler resets it for the next."""
    if factors:
        for group in optimizer.param_groups:
            group["lr"] *= factors.get(names[group["params"][0]], 1.0)


def drop_frozen(optimizer: Optimizer, names: Names, active: Collection[str]) -> None:
    """Free gradient and state of every parameter that does not train now."""
    for parameter in members(optimizer.param_groups):
        if names[parameter] not in active:
            parameter.grad = None
            optimizer.state.pop(parameter, None)


def state_by_name(optimizer: Optimizer, names: Names) -> dict[str, Any]:
    """The optimizer's state under the names of its parameters, and its groups' settings."""
    return _by_name(optimizer.state_dict(), _order(optimizer, names))


def load_state_by_name(optimizer: Optimizer, names: Names, saved: Mapping[str, Any]) -> None:
    """Put saved state back by name. Raises ValueError where the names are not this optimizer's."""
    order, saved_names = _order(optimizer, names), set(members(saved["groups"]))
    if odd := sorted(saved_names ^ set(order)):
        raise ValueError(
            f"the checkpoint's optimizer owns {len(saved_names)} tensors and this one {len(order)}; "
            f"not in both: {', '.join(odd[:3])}{' ...' * (len(odd) > 3)}"
        )
    index_of = dict(zip(order, range(len(order)), strict=True))
    settings = {name: group for group in saved["groups"] for name in group["params"]}
    groups = []
    for group in optimizer.param_groups:
        own = [names[parameter] for parameter in group["params"]]
        groups.append({**settings.get(next(iter(own), ""), group), "params": list(map(index_of.__getitem__, own))})
    optimizer.load_state_dict({"state": _relabelled(saved["state"], index_of), "param_groups": groups})


def named(optimizer: Optimizer, names: Names, packed: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's own `state_dict` by name.

    Its tensors are numbered in the order in which this optimizer owns them. Raises ValueError where
    they cannot be the same tensors.
    """
    owned, saved = members(optimizer.param_groups), members(packed["param_groups"])
    if len(saved) != len(owned):
        raise ValueError(f"its optimizer owns {len(saved)} tensors and this one {len(owned)}")
    order = dict(zip(saved, owned, strict=True))
    for index, state in packed["state"].items():
        average, parameter = state.get("exp_avg"), order[index]
        if isinstance(average, Tensor) and average.shape != parameter.shape:
            raise ValueError(f"its optimizer holds {tuple(average.shape)} numbers for {names[parameter]}")
    return _by_name(packed, {index: names[parameter] for index, parameter in order.items()})


def _by_name(packed: Mapping[str, Any], names: Any) -> dict[str, Any]:
    """An optimizer's `state_dict`, which numbers its tensors, with their names."""
    groups = []
    for group in packed["param_groups"]:
        groups.append({**group, "params": [names[index] for index in group["params"]]})
    return {"state": _relabelled(packed["state"], names), "groups": groups}


def _relabelled(state: Mapping[Any, Any], labels: Any) -> dict[Any, Any]:
    return {labels[key]: values for key, values in state.items()}


def members(groups: Iterable[Mapping[str, Any]]) -> list[Any]:
    """The parameters of all groups, or what stands for them in a saved state."""
    return [each for group in groups for each in group["params"]]


def _order(optimizer: Optimizer, names: Names) -> list[str]:
    return list(map(names.__getitem__, members(optimizer.param_groups)))
