"""An optimizer for parameters that train at times: one owner of all that may ever train, its state by name."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer


def one_group_a_tensor(optimizer: Optimizer) -> None:
    """Give every parameter its own group, so that each can have its own learning rate."""
    optimizer.param_groups[:] = [
        {**group, "params": [parameter]} for group in optimizer.param_groups for parameter in group["params"]
    ]


def scale_learning_rates(optimizer: Optimizer, names: Mapping[nn.Parameter, str], factors: Mapping[str, float]) -> None:
    """Multiply the learning rate of this step; the scheduler sets it anew for the next."""
    if factors:
        for group in optimizer.param_groups:
            group["lr"] *= factors.get(names[group["params"][0]], 1.0)


def drop_frozen(optimizer: Optimizer, names: Mapping[nn.Parameter, str], active: Collection[str]) -> None:
    """Free gradient and state of every parameter that does not train now: a frozen one costs its weights and no more."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if names[parameter] not in active:
                parameter.grad = None
                optimizer.state.pop(parameter, None)


def state_by_name(optimizer: Optimizer, names: Mapping[nn.Parameter, str]) -> dict[str, Any]:
    """The optimizer's state under the names of its parameters, and its groups' settings."""
    packed = optimizer.state_dict()
    order = _order(optimizer, names)
    return {
        "state": {order[index]: state for index, state in packed["state"].items()},
        "groups": [{**group, "params": [order[index] for index in group["params"]]} for group in packed["param_groups"]],
    }


def load_state_by_name(optimizer: Optimizer, names: Mapping[nn.Parameter, str], saved: Mapping[str, Any]) -> None:
    """Put saved state back where its name says. Raises ValueError where the saved names are not this optimizer's."""
    index_of = {name: index for index, name in enumerate(_order(optimizer, names))}
    saved_names = {name for group in saved["groups"] for name in group["params"]}
    if saved_names != set(index_of):
        odd = sorted(saved_names ^ set(index_of))
        raise ValueError(
            f"the checkpoint's optimizer owns {len(saved_names)} tensors and this one {len(index_of)}; "
            f"not in both: {', '.join(odd[:3])}{' ...' if len(odd) > 3 else ''}"
        )
    settings = {name: group for group in saved["groups"] for name in group["params"]}
    groups = []
    for group in optimizer.param_groups:
        own = [names[parameter] for parameter in group["params"]]
        groups.append({**(settings[own[0]] if own else group), "params": [index_of[name] for name in own]})
    optimizer.load_state_dict(
        {"state": {index_of[name]: state for name, state in saved["state"].items()}, "param_groups": groups}
    )


def named(optimizer: Optimizer, names: Mapping[nn.Parameter, str], packed: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's own `state_dict` by name; it numbers its tensors in the order in which this one owns them.

    Raises ValueError where they cannot be the same tensors.
    """
    owned = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    saved = [index for group in packed["param_groups"] for index in group["params"]]
    if len(saved) != len(owned):
        raise ValueError(f"its optimizer owns {len(saved)} tensors and this one {len(owned)}")
    order = dict(zip(saved, owned, strict=True))
    for index, state in packed["state"].items():
        average, parameter = state.get("exp_avg"), order[index]
        if isinstance(average, Tensor) and average.shape != parameter.shape:
            raise ValueError(f"its optimizer holds {tuple(average.shape)} numbers for {names[parameter]}")
    groups = [{**group, "params": [names[order[index]] for index in group["params"]]} for group in packed["param_groups"]]
    return {"state": {names[order[index]]: state for index, state in packed["state"].items()}, "groups": groups}


def _order(optimizer: Optimizer, names: Mapping[nn.Parameter, str]) -> list[str]:
    return [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
